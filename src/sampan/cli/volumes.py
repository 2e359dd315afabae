"""sampan volume create, ls, rm, prune."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.cli.main import Exit
from sampan.cli.table import filters, labels, raw, show
from sampan.cli.units import size
from sampan.wire import volumes as v

if TYPE_CHECKING:
    from sampan.cli.main import Invocation

COLUMNS = [("Driver", "DRIVER"), ("Name", "VOLUME NAME")]


def create(call: Invocation) -> int:
    o = call.options
    body = v.CreateBody(
        name=call.arguments[0] if call.arguments else "", driver=o.driver, driver_opts=_pairs(o.opt, "-o, --opt", strict=True),
        labels=_pairs(o.label, "--label") or None,
    )  # fmt: skip
    print(call.client.volumes.create(body).name)
    return 0


def _pairs(given: list[str], name: str, *, strict: bool = False) -> dict[str, str]:
    for one in given:
        if strict and "=" not in one:
            raise Exit(125, f'invalid argument "{one}" for "{name}" flag: {one} must be formatted as key=value')
    return dict(one.partition("=")[::2] for one in given)


def listing(call: Invocation) -> int:
    o = call.options
    found = sorted(call.client.volumes.list(filters(o.filter)), key=lambda one: one.name)
    if o.quiet and not o.format:
        for one in found:
            print(one.name)
        return 0
    if o.format == "raw":
        raw((row(one) for one in found), (("name", "Name"), ("driver", "Driver")))
    else:
        show((row(one) for one in found), COLUMNS, o.format, "*formatter.volumeContext")
    return 0


def row(one: v.Volume) -> dict[str, object]:
    usage = one.usage_data if isinstance(one.usage_data, v.UsageData) else v.UsageData()
    return {
        "Driver": one.driver, "Name": one.name, "Scope": one.scope, "Mountpoint": one.mountpoint, "Labels": labels(one.labels),
        "Label": lambda name: (one.labels or {}).get(name, ""), "Links": "N/A" if usage.ref_count < 0 else str(usage.ref_count),
        "Size": "N/A" if usage.size < 0 else size(usage.size), "Group": "N/A", "Availability": "N/A", "Status": "N/A",
    }  # fmt: skip


def remove(call: Invocation) -> int:
    from sampan.cli.verbs import each

    return each(call.arguments, lambda name: call.client.volumes.remove(name, force=call.options.force))


def prune(call: Invocation) -> int:
    from sampan.cli.verbs import confirmed

    o = call.options
    what = "all local volumes" if o.all else "anonymous local volumes"
    if not o.force and not confirmed(f"WARNING! This will remove {what} not used by at least one container."):
        return 0
    wanted = filters(o.filter)
    if o.all:
        if "all" in wanted:
            raise Exit(1, "conflicting options: cannot specify both --all and --filter all=1")
        wanted["all"] = ["true"]
    done = call.client.volumes.prune(wanted)
    if done.volumes_deleted:
        print("Deleted Volumes:\n" + "\n".join(done.volumes_deleted) + "\n")
    print(f"Total reclaimed space: {size(done.space_reclaimed, 4)}")
    return 0
