"""sampan run: create, attach, wait, start; then be at the process's side."""

from __future__ import annotations

import contextlib
import sys

from sampan.cli.create import failed, make
from sampan.cli.create_body import body
from sampan.cli.main import Exit, Invocation, describe
from sampan.client.errors import ApiError, ClientError

NOT_FOUND = ("executable file not found", "no such file or directory", "system cannot find the file specified")
NOT_ALLOWED = ("permission denied", "is a directory")


def run(call: Invocation) -> int:
    """The container's exit code; 125, 126 or 127 when it could not be started."""
    o = call.options
    try:
        wanted = body(o, call.arguments[0], call.arguments[1:], detach=o.detach)
        if not o.detach:
            from sampan.cli import session

            session.check_terminal(tty=o.tty, stdin=wanted.attach_stdin)
            size = session.window() if o.tty else None
            if size is not None and wanted.host_config is not None:
                import msgspec

                wanted = msgspec.structs.replace(
                    wanted, host_config=msgspec.structs.replace(wanted.host_config, console_size=list(size))
                )
        made = make(call, wanted)
    except (ClientError, Exit) as error:
        return failed(call, error)
    if o.detach:
        return _detached(call, made)
    if not (wanted.attach_stdin or wanted.attach_stdout or wanted.attach_stderr):
        return _detached(call, made)
    return _foreground(call, made, wanted.attach_stdin, wanted.attach_stdout, wanted.attach_stderr)


def _detached(call: Invocation, made: str) -> int:
    try:
        call.client.containers.start(made)
    except ClientError as error:
        return _not_started(call, error)
    print(made)
    return 0


def _foreground(call: Invocation, made: str, stdin: bool, stdout: bool, stderr: bool) -> int:
    from sampan.cli.attach import Waiter, beside

    o, containers = call.options, call.client.containers
    sys.stdout.flush()
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(
                containers.attach(made, stdin=stdin, stdout=stdout, stderr=stderr, detach_keys=o.detach_keys)
            )
            waiting = containers.begin_wait(made, "removed" if o.rm else "next-exit")
            waiter = Waiter(waiting)
            containers.start(made)
        except ClientError as error:
            return _not_started(call, error, made)
        return beside(call.client, made, stream, tty=o.tty, stdin=stdin, proxy=o.sig_proxy, waiter=waiter)


def _not_started(call: Invocation, error: ClientError, made: str = "") -> int:
    """126 and 127 are the command's fault, 125 everything else."""
    print(f"sampan: {describe(error)}\n\nRun 'sampan run --help' for more information", file=sys.stderr)
    if call.options.rm and made:
        with contextlib.suppress(ClientError):  # the daemon does it too
            call.client.containers.remove(made, force=True, volumes=True)
    if isinstance(error, ApiError):
        text = error.message.lower()
        if any(words in text for words in NOT_FOUND):
            return 127
        if any(words in text for words in NOT_ALLOWED):
            return 126
    return 125
