"""The daemon's side: start the spawner, ask it for containers, find a keeper again."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Sequence

from sampan import messages
from sampan.kernel.fds import Fd, open_fd
from sampan.launch.channel import Channel

SPAWNER_FD = 3
_CODE = "from sampan.launch.spawner import main; main()"


class Spawner:
    """The zygote.  `fileno()` gets readable when it has died; containers do not notice."""

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self._channel = channel

    def fileno(self) -> int:
        return self._channel.fileno()

    def breed(self, request: messages.Breed, fds: Sequence[int | Fd]) -> None:
        """Ask for a brood; init's end hears of it.  Any thread.  Raises OSError when the spawner is dead."""
        self._channel.send(request, fds)

    def userns(self, base: int, size: int) -> Fd:
        """Return a fresh user namespace that maps 0..size-1 to `base` up.  Any thread; about a millisecond.

        Raises OSError, BrokenPipeError or ConnectionResetError when the spawner is dead.
        """
        ours, theirs = Channel.pair()
        try:
            try:
                self._channel.send(messages.MakeUserns(base=base, size=size), [theirs.fileno()])
            finally:
                theirs.close()
            answer, fds = ours.receive()
        finally:
            ours.close()
        if not isinstance(answer, messages.UsernsMade) or not fds:
            code = answer.code if isinstance(answer, messages.UsernsMade) else errno.ECONNRESET
            raise OSError(code, os.strerror(code), "user namespace")
        return fds[0]

    def close(self) -> None:
        """Let the spawner end, and wait for it; keepers go on."""
        self._channel.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass


def start_spawner(interpreter: Fd | None = None) -> Spawner:
    """Start the spawner, from the sealed interpreter when one is given.  Raises OSError."""
    ours, theirs = Channel.pair()
    program = Fd(-1)
    try:
        if interpreter is not None:
            # Above SPAWNER_FD, which the child overwrites before it opens the program.
            program = Fd(fcntl.fcntl(interpreter.fileno(), fcntl.F_DUPFD_CLOEXEC, SPAWNER_FD + 1))
        pid = os.posix_spawn(
            sys.executable if program.closed else program.path,
            # argv[0] is how Python finds its prefix, a virtual environment's too.
            [sys.executable, "-I", "-B", "-X", "utf8", "-c", _CODE],
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), SPAWNER_FD)],
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        program.close()
    return Spawner(pid, ours)


def connect(state_dir: str) -> Channel:
    """Return a connection to the keeper of a container; its first message is Status.

    Raises FileNotFoundError or ConnectionRefusedError when there is no keeper any more.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with open_fd(state_dir, os.O_PATH | os.O_DIRECTORY) as folder:
            connection.connect(f"{folder.path}/keeper.sock")  # a socket's path may have 107 bytes at most
    except BaseException:
        connection.close()
        raise
    return Channel(connection)
