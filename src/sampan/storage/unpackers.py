"""The daemon's unpackers: processes that take layers apart (unpacking.py), made when needed, ended when idle."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading

import msgspec

from sampan.errors import Broken
from sampan.files.atomic import write_all
from sampan.files.compression import Compression
from sampan.files.digests import Readable
from sampan.files.tar_apply import BadArchive, Budget
from sampan.kernel.fds import Fd, pipe, send_with_fds
from sampan.storage.unpacking import SOCKET_FD, Job, Reply, Unpacked, raised

_CODE = "from sampan.storage.unpacking import main; main()"
_IDLE = 2  # kept for the next layer
_PATIENCE = 5.0  # seconds that they are kept
_PIPE = 1 << 20  # bytes, at most what a plain user may have (pipe(7), pipe-max-size)
_CHUNK = 1 << 20


class _Unpacker:
    """One process.  Owned by who took it; `end` is its only end."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # Above SOCKET_FD, which the child overwrites; the daemon's other descriptors close themselves.
            with theirs, Fd(fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, SOCKET_FD + 1)) as high:
                self.pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, "-I", "-B", "-X", "utf8", "-c", _CODE],
                    {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                    file_actions=[(os.POSIX_SPAWN_DUP2, high.fileno(), SOCKET_FD)],
                    setsid=True,
                    setsigmask=[],
                    setsigdef=[signal.SIGPIPE, signal.SIGTERM, signal.SIGINT],
                )  # SIGXFSZ stays ignored as in every Python: a file beyond its limit is EFBIG
        except BaseException:
            ours.close()
            raise
        self._connection = ours

    def run(self, job: Job, folder: Fd, stream: Readable) -> Reply | None:
        """Feed the layer and return what became of it; None when the process died of it."""
        reading, writing = pipe()
        with writing:
            with reading:
                with contextlib.suppress(PermissionError):
                    fcntl.fcntl(writing.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
                try:
                    send_with_fds(self._connection, msgspec.msgpack.encode(job), (folder, reading), socket.MSG_NOSIGNAL)
                except (BrokenPipeError, ConnectionResetError):
                    return None
            with contextlib.suppress(BrokenPipeError):  # it has made up its mind already
                while data := stream.read(_CHUNK):
                    write_all(writing, data)
        try:
            answer = self._connection.recv(1 << 16)
        except ConnectionResetError:
            return None
        return msgspec.msgpack.decode(answer, type=Reply) if answer else None

    def end(self, *, kill: bool = False) -> int:
        """End the process and return its wait status."""
        self._connection.close()
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        return os.waitpid(self.pid, 0)[1]


class Unpackers:
    """Takes layers apart in processes of their own, as many side by side as are asked for.  Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._idle: list[_Unpacker] = []
        self._timer: threading.Timer | None = None
        self._closed = False

    def unpack(self, stream: Readable, kind: Compression, folder: Fd, *, budget: Budget, hashed: bool) -> Unpacked:
        """Unpack the layer `stream`, compressed as `kind`, into the empty folder.

        Raises BadArchive, OverBudget, OSError when the host fails, and whatever `stream` raises; then nothing writes to the
        folder any more.
        """
        job = Job(kind=kind.value, max_bytes=budget.max_bytes, max_entries=budget.max_entries, hashed=hashed)
        worker = self._take()
        try:
            reply = worker.run(job, folder, stream)
        except BaseException:
            worker.end(kill=True)
            raise
        if reply is None:
            status = os.waitstatus_to_exitcode(worker.end())
            if status in (-signal.SIGKILL, -signal.SIGXCPU, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT):
                raise BadArchive(f"the process that unpacked it was ended by signal {-status}")
            raise Broken(f"the process that unpacks layers has ended with status {status}")
        self._give_back(worker)
        if isinstance(reply, Unpacked):
            return reply
        raise raised(reply)

    def _take(self) -> _Unpacker:
        with self._mutex:
            if self._idle:
                return self._idle.pop()
        return _Unpacker()

    def _give_back(self, worker: _Unpacker) -> None:
        with self._mutex:
            if not self._closed and len(self._idle) < _IDLE:
                self._idle.append(worker)
                self._wind()
                return
        worker.end()

    def _wind(self) -> None:
        """Begin to wait anew for the idle ones' end; the mutex is held."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(_PATIENCE, self._end_idle)
        self._timer.daemon = True
        self._timer.start()

    def _end_idle(self) -> None:
        with self._mutex:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def close(self) -> None:
        """End the idle ones; those at work end with their layer."""
        with self._mutex:
            self._closed = True
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            if timer is not threading.current_thread():
                timer.join()
        self._end_idle()
