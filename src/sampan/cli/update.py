"""sampan update: limits and restart policy of containers, changed while they run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sampan.cli import ports
from sampan.cli.main import Exit
from sampan.cli.units import parse_cpus
from sampan.cli.verbs import each
from sampan.wire import resources as r

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.cli.options import Options


def run(call: Invocation) -> int:
    o = call.options
    if not o.given:
        raise Exit(1, "you must provide one or more flags when using this command")
    body = _body(o)

    def act(ref: str) -> None:
        for warning in call.client.containers.update(ref, body).warnings or ():
            print(f"Warning: {warning}", file=sys.stderr)

    return each(call.arguments, act)


def _body(o: Options) -> r.UpdateBody:
    from sampan.cli.create_body import restart_policy

    try:
        nano = parse_cpus(o.cpus) if o.cpus else 0
    except ValueError as error:
        raise Exit(125, f'invalid argument "{o.cpus}" for "--cpus" flag: {error}') from None
    return r.UpdateBody(
        blkio_weight=o.blkio_weight or 0, cpu_period=o.cpu_period or 0, cpu_quota=o.cpu_quota or 0,
        cpu_realtime_period=o.cpu_rt_period or 0, cpu_realtime_runtime=o.cpu_rt_runtime or 0, cpu_shares=o.cpu_shares or 0,
        nano_cpus=nano, cpuset_cpus=o.cpuset_cpus, cpuset_mems=o.cpuset_mems, memory=o.memory or 0,
        memory_reservation=o.memory_reservation or 0, memory_swap=o.memory_swap or 0,
        pids_limit=o.pids_limit if "pids_limit" in o.given else None,
        restart_policy=restart_policy(o.restart) if o.restart else None, publish_add=ports.merged(o.publish_add) or None,
        publish_remove=o.publish_rm or None, network_limit=_limit(o.network_limit),
    )  # fmt: skip


def _limit(text: str) -> r.NetworkLimit | None:
    from sampan.cli.create_body import limit_options

    made = dict(one.removeprefix("sampan.limit.").split("=", 1) for one in limit_options(text))
    return r.NetworkLimit(inwards=made.get("in", ""), outwards=made.get("out", "")) if made else None
