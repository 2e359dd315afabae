"""sampan exec."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sampan.cli import session
from sampan.wire import execs as e

if TYPE_CHECKING:
    from sampan.cli.main import Invocation


def run(call: Invocation) -> int:
    """The exit code is the process's: 126 and 127 when it could not be started."""
    from sampan.cli.environment import environment

    o = call.options
    detach = bool(o.detach)
    session.check_terminal(tty=o.tty and not detach, stdin=o.interactive)
    size = session.window() if o.tty else None
    body = e.ExecCreate(
        attach_stdin=o.interactive and not detach, attach_stdout=not detach, attach_stderr=not detach, tty=o.tty,
        privileged=o.privileged, detach_keys=o.detach_keys, user=o.user, working_dir=o.workdir,
        env=environment(o.env, o.env_file), cmd=call.arguments[1:], console_size=list(size) if size else None,
    )  # fmt: skip
    execs = call.client.execs
    made = execs.create(call.arguments[0], body)
    if detach:
        execs.start_detached(made, tty=o.tty)
        return 0
    sys.stdout.flush()

    def resize(height: int, width: int) -> None:
        execs.resize(made, height=height, width=width)

    with (
        execs.start(made, e.ExecStart(tty=o.tty, console_size=body.console_size)) as stream,
        session.resizing(resize, o.tty) as tell,
        session.raw_terminal(o.tty and o.interactive),
    ):
        tell()
        session.Pump(stream, tty=o.tty, stdin=o.interactive).run()
    found = execs.inspect(made)
    if found.running:
        session.detached_note(False)
        return 0
    return 255 if found.exit_code is None else found.exit_code & 0xFF
