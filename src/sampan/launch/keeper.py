"""One per container: parent of its first process, holder of its stdio, log, control group and exit status.

It belongs to the container, not to the daemon: daemons come and go, and it notices only that nobody answers.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import NoReturn

import msgspec

from sampan import messages
from sampan.errors import SampanError
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.process import default_signal, pidfd_signal, write_name
from sampan.kernel.pty import set_size
from sampan.launch import bare, birth
from sampan.launch.channel import Channel, unpack
from sampan.launch.container import Container, Running, exit_status
from sampan.launch.failures import failed
from sampan.launch.host import Host, socket_identity
from sampan.launch.loop import READ, Loop

_TOLD, _UNTOLD = 16, 4096  # ended execs that are remembered, with a daemon listening and without
_PEER = struct.Struct("3i")


def main(body: bytes, ends: tuple[int, ...], host: Host) -> NoReturn:
    """Have a brood's init made, wait until a container is handed over, keep it to its end; never returns.

    body, ends: the Breed and its descriptors.  Until it is handed over, the end of the daemon is the end of init.
    """
    first = 0
    try:
        default_signal(signal.SIGCHLD)
        write_name("sampan-keeper")
        os.setsid()
        first = _child(body, ends)
        control = bare.adopt(ends[0])
        handed, ancillary = bare.receive(control) if first else (b"", [])
        if handed:
            numbers = bare.numbers(ancillary)
            _sleep((ends[0], *numbers[: handed[0]]) if handed[0] else ())
            first = 0
            Keeper(handed[1:], [Fd(number) for number in numbers], Fd(control.detach()), host).run()
    finally:
        if first:
            os.kill(first, signal.SIGKILL)  # its number is its own until we have reaped it
            os.waitpid(first, 0)
        os._exit(0)


def _child(body: bytes, ends: tuple[int, ...]) -> int:
    """Return the pid of the init that was made, 0 when none was and the daemon has been told why."""
    if body in (birth.EARLY, birth.NOW):
        inits = bare.adopt(ends[1])
        born = birth.bear(inits, early=body == birth.EARLY)
        inits.close()
        return born
    reading, writing = os.pipe()
    midwife = os.fork()
    if midwife == 0:
        birth.deliver(body, ends, writing)
    for number in (*ends[1:], writing):
        os.close(number)
    told = int(os.read(reading, 16) or 0)
    os.close(reading)
    if os.waitpid(midwife, 0)[1] and told:  # killed: whoever waits for its word hears the end of init instead
        os.kill(told, signal.SIGKILL)
        os.waitpid(told, 0)
        return 0
    return told


def _sleep(fds: tuple[int, ...]) -> None:
    """Return when something happens on one of `fds`, at once when there are none.

    Until then the keeper has touched next to nothing of the memory that it shares with the spawner: a quiet container costs
    its kernel objects and little more.
    """
    if fds:
        poller = select.poll()
        for fd in fds:
            poller.register(fd, select.POLLIN)
        poller.poll()


class Keeper:
    """The container with its connections."""

    def __init__(self, body: bytes, fds: list[Fd], control: Fd, host: Host) -> None:
        handed = unpack(body, fds)
        assert isinstance(handed, messages.Handed)
        self._id = handed.id
        self._state_dir = handed.state_dir
        self._socket = handed.socket
        self._control: Channel | None = Channel.adopt(control)
        self._listener: socket.socket | None = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=fds[handed.listener].take()
        )
        self._loop = Loop()
        self._container = Container(self._loop, handed, fds, host)
        self._started_at = handed.started_at
        self._execs: dict[str, Running] = {}
        self._ended_execs: dict[str, int] = {}
        self._notes: dict[str, bytes] = {}
        self._exited: messages.Exited | None = None
        self._over = False

    def run(self) -> None:
        """Serve until the container has ended and the daemon knows, clean up."""
        self._watch()
        while not (self._over and self._drained()):
            self._loop.step()

    def _drained(self) -> bool:
        return self._container.first.stdio.drained and not self._execs

    # Connections.

    def _watch(self) -> None:
        if self._control is not None:
            self._loop.watch(self._control.fileno(), READ, self._control_ready)
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), READ, self._accept)
        self._loop.watch(self._container.first.pidfd.fileno(), READ, self._first_ended)

    def _accept(self, _: int) -> None:
        if self._listener is None:
            return
        connection, _address = self._listener.accept()
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        if _PEER.unpack(peer)[1] != 0:
            connection.close()
            return
        self._hang_up()
        self._control = Channel(connection)
        self._loop.watch(self._control.fileno(), READ, self._control_ready)
        self._tell_status()

    def _hang_up(self) -> None:
        channel, self._control = self._control, None
        if channel is not None:
            self._loop.forget(channel.fileno())
            channel.close()

    def _say(self, message: messages.Message, fds: list[Fd] | None = None) -> None:
        if self._control is None:
            return
        try:
            self._control.send(message, fds or [])
        except OSError:
            self._alone()

    def _alone(self) -> None:
        """The daemon has gone, whichever way that was found out; its Release may be among what it left unread."""
        released = self._released()
        self._hang_up()
        if self._exited is not None:
            if not released:
                self._write_exit(self._exited)
            self._release()

    def _released(self) -> bool:
        """Return whether the last words of a daemon that has gone were Release: nobody is to find an end that is recorded."""
        if self._control is None or self._exited is None:
            return False
        with suppress(OSError, msgspec.DecodeError):  # nothing more to read
            while (heard := self._control.receive(nonblocking=True))[0] is not None:
                for fd in heard[1]:
                    fd.close()
                if isinstance(heard[0], messages.Release):
                    return True
        return False

    def _control_ready(self, _: int) -> None:
        if self._control is None:
            return
        try:
            message, fds = self._control.receive(nonblocking=True)
        except BlockingIOError:
            return
        except (OSError, msgspec.DecodeError) as error:
            self._say(messages.Refused(request="", text=str(error)))
            return
        if message is None:
            self._alone()
            return
        try:
            self._obey(message, fds)
        except (SampanError, OSError, ValueError, IndexError, KeyError) as error:
            self._say(messages.Refused(request=type(message).__name__, text=str(error)))
        finally:
            for fd in fds:
                fd.close()

    def _obey(self, message: messages.AnyMessage, fds: list[Fd]) -> None:
        if isinstance(message, messages.Attach):
            wanted = message.attachment
            gate = Fd(fds[message.gate].take()) if message.gate >= 0 else None
            self._container.first.stdio.attach(Fd(fds[wanted.fd].take()), wanted, gate)
        elif isinstance(message, messages.Exec):
            self._exec(message, fds)
        elif isinstance(message, messages.Resize):
            master = self._running(message.exec_id).stdio.master
            if master is not None:
                set_size(master, message.height, message.width)
        elif isinstance(message, messages.Signal):
            self._signal(message)
        elif isinstance(message, messages.Query):
            self._tell_status()
        elif isinstance(message, messages.Release) and self._exited is not None:
            self._release()

    def _signal(self, message: messages.Signal) -> None:
        running = self._running(message.exec_id)
        if message.group and message.exec_id and not running.over:
            os.killpg(running.pid, message.number)  # its number is its own until we have reaped it
        else:
            pidfd_signal(running.pidfd, message.number)

    def _running(self, exec_id: str) -> Running:
        if exec_id:
            return self._execs[exec_id]
        if self._exited is not None:
            raise ProcessLookupError(3, "the container has ended")
        return self._container.first

    def _tell_status(self) -> None:
        first = self._container.first
        status = messages.Status(
            id=self._id, pid=0 if self._exited else first.pid, keeper_pid=os.getpid(), started_at=self._started_at,
            exited=self._exited, execs={name: run.pid for name, run in self._execs.items() if not run.over},
            exec_statuses=dict(self._ended_execs), exec_notes=dict(self._notes),
        )  # fmt: skip
        self._say(status, [] if self._exited else [first.pidfd])

    # Processes.

    def _exec(self, request: messages.Exec, fds: list[Fd]) -> None:
        if self._exited is not None or request.exec_id in self._execs:
            self._say(messages.ExecFailed(exec_id=request.exec_id, step="exec", code=3, text="the container has ended"))
            return
        try:
            running = self._container.exec(request, fds)
        except Exception as error:  # noqa: BLE001 - as above
            why = failed(error)
            self._say(messages.ExecFailed(exec_id=request.exec_id, step=why.step, code=why.code, text=why.text))
            return
        self._execs[request.exec_id] = running
        self._notes[request.exec_id] = request.note
        self._loop.watch(running.pidfd.fileno(), READ, lambda _: self._exec_ended(request.exec_id))
        self._say(messages.ExecStarted(exec_id=request.exec_id, pid=running.pid), [running.pidfd])

    def _exec_ended(self, exec_id: str) -> None:
        running = self._execs[exec_id]
        self._loop.forget(running.pidfd.fileno())
        status = exit_status(running.pidfd)
        running.finish()
        self._forget_exec(exec_id)
        self._say(messages.ExecExited(exec_id=exec_id, status=status))
        # A daemon that is killed may not have read it: the last ones are told again to the next.
        self._ended_execs[exec_id] = status
        while len(self._ended_execs) > (_TOLD if self._control is not None else _UNTOLD):
            oldest = next(iter(self._ended_execs))
            del self._ended_execs[oldest]
            self._notes.pop(oldest, None)

    def _forget_exec(self, exec_id: str) -> None:
        running = self._execs[exec_id]
        if running.stdio.drained:
            running.close()
            del self._execs[exec_id]
        else:
            running.stdio.on_drained = lambda: self._forget_exec(exec_id)

    def _first_ended(self, _: int) -> None:
        first = self._container.first
        self._loop.forget(first.pidfd.fileno())
        status = exit_status(first.pidfd)
        killed_by_oom = self._container.end()
        first.finish()
        self._exited = messages.Exited(
            status=status, oom_killed=killed_by_oom, finished_at=time.time_ns(), lost_lines=first.stdio.lost_lines
        )
        if self._control is None:
            self._alone()
        else:
            self._say(self._exited)

    def _write_exit(self, exited: messages.Exited) -> None:
        """Leave word for the next daemon; run-time state, so a rename is enough: it does not outlive the host.

        A daemon that was told says when it has it on its disk; until then the word is the keeper's to give.
        """
        try:
            temporary = os.path.join(self._state_dir, ".exit")
            with open_fd(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW) as file:
                os.write(file.fileno(), msgspec.json.encode(exited))
            os.rename(temporary, os.path.join(self._state_dir, "exit"))
        except OSError:
            pass  # the folder is gone: so is whoever would read it

    def _release(self) -> None:
        self._container.release()
        if self._listener is not None:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
        path = os.path.join(self._state_dir, "keeper.sock")
        with suppress(OSError):  # the daemon that heard of the end has removed it, and may have started the next one since
            if socket_identity(path) == self._socket:
                os.unlink(path)
        self._over = True
