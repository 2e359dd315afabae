"""sampan start."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from sampan.cli import session
from sampan.cli.attach import Waiter, beside
from sampan.cli.main import Exit
from sampan.cli.verbs import each
from sampan.client.errors import ApiError

if TYPE_CHECKING:
    from sampan.cli.main import Invocation


def _start(call: Invocation, failed: list[str], ref: str) -> None:
    try:
        call.client.containers.start(ref)
    except ApiError:
        failed.append(ref)
        raise


def run(call: Invocation) -> int:
    """Print the names; attached, the exit code is the container's."""
    o = call.options
    if o.checkpoint or o.checkpoint_dir:
        raise Exit(1, "checkpointing is not supported yet")
    if not (o.attach or o.interactive):
        failed: list[str] = []
        code = each(call.arguments, functools.partial(_start, call, failed))
        if failed:
            print(f"Error: failed to start containers: {', '.join(failed)}", file=sys.stderr)
        return code
    if len(call.arguments) > 1:
        raise Exit(1, "you cannot start and attach multiple containers at once")
    found = call.client.containers.inspect(call.arguments[0])
    tty, stdin = found.config.tty, bool(o.interactive and found.config.open_stdin)
    session.check_terminal(tty=tty, stdin=stdin)
    if found.state.running:
        waiter = Waiter(call.client.containers.begin_wait(found.id))
    with call.client.containers.attach(found.id, stdin=stdin, detach_keys=o.detach_keys) as stream:
        if not found.state.running:
            condition = "removed" if found.host_config.auto_remove else "next-exit"
            waiter = Waiter(call.client.containers.begin_wait(found.id, condition))
            call.client.containers.start(found.id)
        return beside(call.client, found.id, stream, tty=tty, stdin=stdin, proxy=o.sig_proxy, waiter=waiter)
