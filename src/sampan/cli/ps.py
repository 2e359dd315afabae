"""sampan ps."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from sampan.cli import units
from sampan.cli.table import filters, labels, raw, short, show, whole_as_json

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.wire.containers import ContainerSummary, PortSummary

COLUMNS = [
    ("ID", "CONTAINER ID"), ("Image", "IMAGE"), ("Command", "COMMAND"), ("RunningFor", "CREATED"), ("Status", "STATUS"),
    ("Ports", "PORTS"), ("Names", "NAMES"),
]  # fmt: skip
KIND = "*formatter.ContainerContext"
RAW = (
    ("container_id", "ID"), ("image", "Image"), ("command", "Command"), ("created_at", "CreatedAt"), ("state", "State"),
    ("status", "Status"), ("names", "Names"), ("labels", "Labels"), ("ports", "Ports"),
)  # fmt: skip


def run(call: Invocation) -> int:
    o = call.options
    last = 1 if o.latest else max(o.last, 0)
    size = o.size or ".Size" in o.format or (o.format != "json" and whole_as_json(o.format))
    if o.quiet and o.format:
        print("WARNING: Ignoring custom format, because both --format and --quiet are set.", file=sys.stderr)
    found = call.client.containers.list(all=o.all or last > 0, limit=last, size=size, wanted=filters(o.filter))
    if o.quiet:
        for one in found:
            print(one.id if o.no_trunc else one.id[:12])
        return 0
    now = time.time()
    columns = [*COLUMNS, ("Size", "SIZE")] if o.size else COLUMNS
    rows = [row(one, now, whole=o.no_trunc) for one in found]
    if o.format == "raw":
        raw(rows, (*RAW, ("size", "Size")) if o.size else RAW)
    else:
        show(rows, columns, o.format, KIND)
    return 0


def row(one: ContainerSummary, now: float, *, whole: bool = False) -> dict[str, Any]:
    """The fields of a line, also those that only templates show."""
    command = one.command if whole else short(one.command, 20)
    names = [name.removeprefix("/") for name in one.names]
    if not whole:
        names = [name for name in names if "/" not in name]
    image = one.image or "<no image>"
    if not whole and image.startswith("sha256:"):
        image = image.removeprefix("sha256:")[:12]
    mounts = [mount.name if isinstance(mount.name, str) and mount.name else mount.source for mount in one.mounts]
    return {
        "ID": one.id if whole else one.id[:12],
        "Image": image,
        "Command": json.dumps(command, ensure_ascii=False),
        "RunningFor": units.ago(now - one.created) + " ago",
        "CreatedAt": units.stamp(one.created),
        "Status": one.status,
        "State": one.state,
        "Ports": ports(one.ports),
        "Names": ",".join(names),
        "Size": _size(one),
        "Labels": labels(one.labels),
        "Label": lambda name: (one.labels or {}).get(name, ""),
        "Mounts": ",".join(mount if whole else short(mount, 15) for mount in mounts),
        "LocalVolumes": str(sum(mount.type == "volume" for mount in one.mounts)),
        "Networks": ",".join(sorted(one.network_settings.networks)),
        "Platform": None,
    }


def _size(one: ContainerSummary) -> str:
    rw = 0 if one.size_rw is UNSET else one.size_rw
    root = 0 if one.size_root_fs is UNSET else one.size_root_fs
    text = units.size(rw)
    return f"{text} (virtual {units.size(root)})" if root else text


def ports(found: list[PortSummary]) -> str:
    """Published and exposed ports, consecutive ones merged: "0.0.0.0:8001-8003->8001-8003/tcp, 443/tcp"."""
    plain: list[tuple[str, int, int, str]] = []
    for one in found:
        public = 0 if one.public_port is UNSET else one.public_port
        ip = "" if one.ip is UNSET else one.ip
        plain.append((ip if public else "", one.private_port, public, one.type))
    plain.sort(key=lambda p: (p[1], p[0], p[2], p[3]))
    runs: list[list[Any]] = []  # ip, protocol, first private, last private, first public
    others: list[list[Any]] = []  # published as another port: each by itself, at the end
    open_runs: dict[tuple[str, str], list[Any]] = {}
    for ip, private, public, protocol in plain:
        run = open_runs.get((ip, protocol))
        if public and public != private:
            others.append([ip, protocol, private, private, public])
        elif run is not None and private == run[3] + 1:
            run[3] = private
        else:
            run = open_runs[ip, protocol] = [ip, protocol, private, private, public]
            runs.append(run)
    return ", ".join(_port(*run) for run in (*runs, *others))


def _port(ip: str, protocol: str, first: int, last: int, public: int) -> str:
    span = f"{first}" if first == last else f"{first}-{last}"
    if not public:
        return f"{span}/{protocol}"
    outer = span if first == public else str(public)
    return f"{f'[{ip}]' if ':' in ip else ip}:{outer}->{span}/{protocol}"
