"""sampan attach, and what attach, run and start have in common: being at a container's side until it ends."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from sampan.cli import session
from sampan.cli.main import Exit
from sampan.client.connect import Hijacked
from sampan.client.errors import ApiError, ClientError

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.client.api import Client
    from sampan.client.containers import Waiting


class Waiter:
    """Waits for a container's end in a thread of its own, so that the exit code is there when its output ends."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._code: int | None = None
        self._error: ClientError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            result = self._waiting.result()
            self._code = result.status_code
            if result.error:
                self._error = ApiError(500, result.error.message)
        except ClientError as error:
            self._error = error
        except (OSError, ValueError):  # cancelled
            pass

    def code(self) -> int:
        """Wait for the end.  Raises ClientError."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return 125 if self._code is None else self._code

    def ended(self, seconds: float) -> bool:
        """Whether the end came within `seconds`."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


def beside(client: Client, ref: str, stream: Hijacked, *, tty: bool, stdin: bool, proxy: bool, waiter: Waiter) -> int:
    """Be the process's terminal or pipes until its output ends; return its exit code, 0 when detached."""

    def resize(height: int, width: int) -> None:
        client.containers.resize(ref, height=height, width=width)

    with (
        session.proxied(lambda number: client.containers.kill(ref, signal=number), proxy and not tty),
        session.resizing(resize, tty) as tell,
        session.raw_terminal(tty and stdin),
    ):
        tell()
        session.Pump(stream, tty=tty, stdin=stdin).run()
    if stdin and tty and not waiter.ended(0.2) and _runs(client, ref):
        session.detached_note(False)
        return 0
    return waiter.code()


def _runs(client: Client, ref: str) -> bool:
    try:
        return client.containers.inspect(ref).state.running
    except ApiError:
        return False  # it has been removed


def run(call: Invocation) -> int:
    """Attach to a running container; its exit code is ours."""
    o, ref = call.options, call.arguments[0]
    found = call.client.containers.inspect(ref)
    if found.state.paused:
        raise Exit(1, "You cannot attach to a paused container, unpause it first")
    if found.state.restarting:
        raise Exit(1, "You cannot attach to a restarting container, wait until it is running")
    if not found.state.running:
        raise Exit(1, "You cannot attach to a stopped container, start it first")
    tty, stdin = found.config.tty, found.config.open_stdin and not o.no_stdin
    session.check_terminal(tty=tty, stdin=stdin)
    waiter = Waiter(call.client.containers.begin_wait(found.id))
    with call.client.containers.attach(found.id, stdin=stdin, detach_keys=o.detach_keys) as stream:
        sys.stdout.flush()
        if tty:
            _redraw(call.client, found.id)
        return beside(call.client, found.id, stream, tty=tty, stdin=stdin, proxy=o.sig_proxy, waiter=waiter)


def _redraw(client: Client, ref: str) -> None:
    """A size that differs by one and back makes full-screen programs draw themselves."""
    size = session.window()
    if size is not None and os.isatty(1):
        try:
            client.containers.resize(ref, height=size[0] + 1, width=size[1] + 1)
        except ClientError:
            pass
