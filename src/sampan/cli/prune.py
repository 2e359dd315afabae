"""sampan system prune: everything that nothing uses."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sampan.cli.main import Exit
from sampan.cli.table import filters
from sampan.cli.units import size

if TYPE_CHECKING:
    from sampan.cli.main import Invocation


def system(call: Invocation) -> int:
    o = call.options
    wanted = filters(o.filter)
    if o.volumes and "until" in wanted:
        raise Exit(1, 'ERROR: The "until" filter is not supported with "--volumes"')
    if not o.force and not _confirmed(o.all, o.volumes, o.filter):
        return 0
    client, freed = call.client, 0
    containers = client.containers.prune(wanted)
    _told("Deleted Containers:", containers.containers_deleted)
    freed += containers.space_reclaimed
    _told("Deleted Networks:", client.networks.prune(wanted).networks_deleted)
    if o.volumes:
        volumes = client.volumes.prune(wanted)
        _told("Deleted Volumes:", volumes.volumes_deleted)
        freed += volumes.space_reclaimed
    images = client.images.prune({**wanted, "dangling": ["false" if o.all else "true"]})
    gone = [f"deleted: {one.deleted}" if one.deleted else f"untagged: {one.untagged}" for one in images.images_deleted or ()]
    _told("Deleted Images:", gone)
    print(f"Total reclaimed space: {size(freed + images.space_reclaimed, 4)}")
    return 0


def _told(heading: str, names: list[str] | None) -> None:
    if names:
        print(heading + "\n" + "\n".join(names) + "\n")


def _confirmed(everything: bool, volumes: bool, given: list[str]) -> bool:
    lines = ["all stopped containers", "all networks not used by at least one container"]
    lines += ["all anonymous volumes not used by at least one container"] if volumes else []
    lines += ["all images without at least one container associated to them"] if everything else ["all dangling images"]
    lines += ["all build cache" if everything else "unused build cache"]
    print("WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in lines))
    if given:
        print("  Items to be pruned will be filtered with:\n" + "".join(f"  - {one}\n" for one in sorted(given)))
    print("Are you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
