"""The daemon's side of the answering process (dns/server.py): started when first needed, found again, told everything."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sampan.errors import Broken
from sampan.kernel import netns
from sampan.kernel.fds import Fd, open_fd
from sampan.network.records import Endpoint, NetworkInfo

log = logging.getLogger("sampan.network")
ADDRESS = ("127.0.0.11", 53)
_CODE = "from sampan.network.dns.server import main; main()"
_LISTENER, _CONTROL, _SAFE = 3, 4, 8
_BATCH = 100  # places of one message: a SEQPACKET message has to fit the socket's buffer
_PATIENCE = 5.0
_PAUSES = (0.0, 0.1, 1.0, 10.0, 60.0)  # seconds before a process that ended is replaced; then the next container tries again
Spaces = Callable[[str], Fd]


class Resolver:
    """Thread-safe.  folder: where its socket is; program: the interpreter's path, for `sys.executable`'s prefix."""

    def __init__(self, folder: Path, program: Callable[[], str]) -> None:
        self._folder = folder
        self._program = program
        self._mutex = threading.RLock()
        self._control: socket.socket | None = None
        self._child = 0
        self._places: dict[str, dict[str, Any]] = {}
        self._servers: dict[str, Sequence[str]] = {}
        self._have: set[str] = set()
        self._relays: dict[str, tuple[dict[str, Any], socket.socket]] = {}
        self._closing = False
        self.spaces: Spaces | None = None  # a running container's network namespace, to serve it again

    # What the networks tell.

    def put(self, endpoint: Endpoint, info: NetworkInfo) -> None:
        """An endpoint is there."""
        place = {
            "id": endpoint.id, "container": endpoint.container_id, "network": info.id, "label": info.name,
            "internal": info.internal, "ip": endpoint.ip, "ip6": endpoint.ip6, "names": list(endpoint.names),
            "links": dict(endpoint.links),
        }  # fmt: skip
        with self._mutex:
            self._places[endpoint.id] = place
            self._tell({"op": "put", "places": [place]})

    def drop(self, endpoint: str) -> None:
        """An endpoint is gone."""
        with self._mutex:
            if self._places.pop(endpoint, None) is not None:
                self._tell({"op": "drop", "places": [endpoint]})

    def serve(self, container: str, servers: Sequence[str], netns_fd: int) -> None:
        """Answer at 127.0.0.11 in the namespace (borrowed); where that is so already, nothing.

        servers: whom to ask what is not known, empty for the host's.  Raises Broken when the address is taken.
        """
        with self._mutex:
            self._servers[container] = servers
            if container in self._have:
                return
            self._ensure()
            if container in self._have:
                return
            self._open(container, netns_fd)

    def watch(self, container: str, pidfd: int) -> None:
        """Let the process see the container's end by itself (a copy of `pidfd` goes to it)."""
        with self._mutex:
            if container in self._have or any(told["container"] == container for told, _ in self._relays.values()):
                self._tell({"op": "watch", "container": container}, [pidfd])

    def relay(self, key: str, container: str, proto: str, to: tuple[str, int], held: socket.socket) -> None:
        """Have a published port carried to a container's; `held`, its socket, stays the caller's.  Raises OSError."""
        with self._mutex:
            told = {"op": "relay", "key": key, "container": container, "proto": proto, "to": list(to)}
            self._relays[key] = (told, held)
            self._ensure()
            self._tell(told, [held.fileno()])

    def unrelay(self, keys: Iterable[str]) -> None:
        """Have ports carried no more; the process has let go of them when this returns."""
        with self._mutex:
            gone = [key for key in keys if self._relays.pop(key, None) is not None]
            if not gone or self._control is None:
                return
            reading, writing = os.pipe2(os.O_CLOEXEC)
            with Fd(reading):
                with Fd(writing):
                    self._tell({"op": "unrelay", "keys": gone}, [writing])
                select.select([reading], [], [], _PATIENCE)  # the end: it has closed its copy

    def forget(self, container: str) -> None:
        """The container has ended, or left its last network with names."""
        with self._mutex:
            self._servers.pop(container, None)
            if container in self._have:
                self._have.discard(container)
                self._tell({"op": "close", "container": container})

    def serves(self, container: str) -> bool:
        with self._mutex:
            return container in self._have

    def remember(self, expected: Mapping[str, Sequence[str]]) -> None:
        """Containers that run already and are to be served; `expected`: their servers.  Before anything else is told."""
        with self._mutex:
            self._servers.update(expected)

    def adopt(self) -> None:
        """Find the process of an earlier daemon, or start one when something is expected of it."""
        with self._mutex:
            if self._servers or self._relays:
                self._ensure()
                return
            try:
                self._connect()
                self._synchronise()
            except OSError:
                self._lost()  # what does not answer is not kept for one that does

    def prepare(self) -> None:
        """Have the process ready soon: a network with names was made, and a container will want it."""

        def start() -> None:
            with self._mutex, contextlib.suppress(OSError):
                if not self._closing:
                    self._ensure()

        threading.Thread(target=start, name="names begin", daemon=True).start()

    def close(self, *, end: bool) -> None:
        """Leave it to itself, or end it."""
        with self._mutex:
            self._relays.clear()
            self._closing = True
            control, self._control = self._control, None
            if control is None:
                return
            if end:
                with contextlib.suppress(OSError):
                    control.send(b'{"op": "quit"}', socket.MSG_NOSIGNAL)
                with contextlib.suppress(FileNotFoundError):
                    (self._folder / "names.sock").unlink()
            control.shutdown(socket.SHUT_RDWR)
            control.close()
            if end and self._child:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(self._child, 0)
                self._child = 0

    # The process.

    def _ensure(self) -> None:
        """See that there is a process and that it knows everything.  Raises OSError."""
        if self._control is not None:
            return
        try:
            self._connect()
            self._synchronise()
        except TimeoutError:  # it lives, and has the addresses: a second one could serve nobody
            self._lost()
            raise
        except OSError:  # there is none; or it is being killed, and its listener still takes connections (exit_files, LIFO)
            self._lost()
            self._spawn()
            try:
                self._synchronise()
            except BaseException:
                self._lost()
                raise

    def _connect(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with open_fd(str(self._folder), os.O_PATH | os.O_DIRECTORY) as folder:
                made.connect(f"{folder.path}/names.sock")  # a socket's path may have 107 bytes at most
        except BaseException:
            made.close()
            raise
        self._begin(made)

    def _begin(self, control: socket.socket) -> None:
        control.settimeout(_PATIENCE)
        self._control = control

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        high: list[int] = []
        try:
            with open_fd(str(self._folder), os.O_PATH | os.O_DIRECTORY) as folder:
                with contextlib.suppress(FileNotFoundError):
                    (self._folder / "names.sock").unlink()
                old = os.umask(0o177)
                try:
                    listener.bind(f"{folder.path}/names.sock")
                finally:
                    os.umask(old)
            listener.listen(4)
            code = f"import sys; sys.path[:0] = [{_root()!r}]; {_CODE}"
            high = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, _SAFE) for one in (listener, theirs)]
            self._child = os.posix_spawn(
                self._program(), [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", code, str(self._folder)],
                {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                file_actions=[(os.POSIX_SPAWN_DUP2, high[0], _LISTENER), (os.POSIX_SPAWN_DUP2, high[1], _CONTROL)],
                setsigmask=[], setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            for fd in high:
                os.close(fd)
            listener.close()
            theirs.close()
        self._begin(ours)

    def _synchronise(self) -> None:
        """Ask what it has; tell what it lacks, and what is no more."""
        control = self._control
        if control is None:
            return
        control.send(b'{"op": "hello"}', socket.MSG_NOSIGNAL)
        heard = control.recv(1 << 20)
        if not heard:
            raise BrokenPipeError("the process of names ended")
        have = json.loads(heard)
        self._have = set(have["containers"])
        gone = [key for key in have["places"] if key not in self._places]
        for start in range(0, len(gone), _BATCH):
            self._send({"op": "drop", "places": gone[start : start + _BATCH]})
        places = list(self._places.values())
        for start in range(0, len(places), _BATCH):
            self._send({"op": "put", "places": places[start : start + _BATCH]})
        lost = [key for key in have["relays"] if key not in self._relays]
        if lost:
            self._send({"op": "unrelay", "keys": lost})
        for told, held in self._relays.values():
            self._send(told, [held.fileno()])
        for container in self._have - set(self._servers):
            self._have.discard(container)
            self._send({"op": "close", "container": container})
        control.settimeout(None)
        threading.Thread(target=self._listen, args=(control,), name="names", daemon=True).start()
        for container in set(self._servers) - self._have:
            self._again(container)

    def _again(self, container: str) -> None:
        if self.spaces is None:
            return
        try:
            with self.spaces(container) as space:
                self._open(container, space.fileno())
        except Exception as error:  # noqa: BLE001 - one container's end must not keep the others from their names
            log.warning("names of container %s: %s", container[:12], error)

    def _open(self, container: str, netns_fd: int) -> None:
        with contextlib.ExitStack() as held:
            with netns.inside(netns_fd):
                udp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                tcp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                udp.bind(ADDRESS)
                tcp.bind(ADDRESS)
            except OSError as error:
                raise Broken(f"names of container {container[:12]}: {ADDRESS[0]}: {error.strerror}") from error
            tcp.listen(16)
            told = {"op": "open", "container": container, "servers": list(self._servers.get(container, ()))}
            self._have.add(container)
            self._tell(told, [udp.fileno(), tcp.fileno()])

    def _listen(self, control: socket.socket) -> None:
        """Nothing comes but the end: then another process is started, and everybody served again."""
        try:
            while control.recv(4096):
                pass
        except OSError:
            pass
        with self._mutex:
            if self._closing or self._control is not control:
                return
            log.error("the process of names ended; another one is started")
            self._lost()
        self._replace()

    def _replace(self) -> None:
        for pause in _PAUSES:
            time.sleep(pause)
            with self._mutex:
                if self._closing or self._control is not None:
                    return
                try:
                    self._ensure()
                    return
                except OSError as error:
                    log.error("names: %s", error)

    def _lost(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = None
        self._have.clear()
        if self._child:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._child, signal.SIGKILL)  # nobody has its other end any more
                os.waitpid(self._child, 0)
            self._child = 0

    def _tell(self, message: dict[str, Any], fds: Iterable[int] = ()) -> None:
        if self._control is None:
            return
        try:
            self._send(message, fds)
        except OSError:
            pass  # it has just ended: _listen starts another one, which is told everything

    def _send(self, message: dict[str, Any], fds: Iterable[int] = ()) -> None:
        assert self._control is not None
        socket.send_fds(self._control, [json.dumps(message).encode()], list(fds), socket.MSG_NOSIGNAL)


def _root() -> str:
    return str(Path(__file__).resolve().parent.parent.parent)
