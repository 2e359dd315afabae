"""SSH agents of this user, lent to a build: the daemon passes the requests on that its steps make (see build/agents.py).

A step may see which keys there are and have something signed; all else (adding, removing, locking) is answered with a failure.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType

from sampan.client.api import Client
from sampan.client.errors import ProtocolError

MAX_MESSAGE = 256 << 10
_ALLOWED = (11, 13)  # SSH_AGENTC_REQUEST_IDENTITIES, SSH_AGENTC_SIGN_REQUEST
_FAILURE = b"\x05"
_TOKEN = 64


class Lent:
    """A session with a daemon while a build runs.  sockets: the agents' sockets by name; token: what the build is told."""

    def __init__(self, client: Client, sockets: Mapping[str, str]) -> None:
        self._sockets = sockets
        self._mutex = threading.Lock()
        self._link = client.hijack("/sampan/session", None, {"Agents": list(sockets)})
        try:
            self.token = self._exactly(_TOKEN).decode()
        except BaseException:
            self._link.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="ssh-agents", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._link.end_input()
        self._thread.join(5)
        self._link.close()

    def _exactly(self, size: int) -> bytes:
        return _exactly(self._link.read, size)

    def _serve(self) -> None:
        with suppress(OSError, ProtocolError):
            while True:
                size = int.from_bytes(self._exactly(4), "big")
                if not 5 <= size <= MAX_MESSAGE + 300:
                    return
                body = self._exactly(size)
                length = body[4]
                name, message = body[5 : 5 + length].decode(errors="replace"), body[5 + length :]
                threading.Thread(target=self._answer, args=(body[:4], name, message), daemon=True).start()

    def _answer(self, number: bytes, name: str, message: bytes) -> None:
        answer = number + ask(self._sockets.get(name, ""), message)
        with suppress(OSError), self._mutex:
            self._link.write(len(answer).to_bytes(4, "big") + answer)


def ask(path: str, message: bytes) -> bytes:
    """Ask an agent what a step may ask; whatever else comes to nothing is the protocol's failure."""
    if not path or message[:1] not in {bytes([kind]) for kind in _ALLOWED}:
        return _FAILURE
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(path)
            agent.sendall(len(message).to_bytes(4, "big") + message)
            size = int.from_bytes(_exactly(agent.recv, 4), "big")
            return _exactly(agent.recv, size) if 0 < size <= MAX_MESSAGE else _FAILURE
    except (OSError, ProtocolError):
        return _FAILURE


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    out = b""
    while len(out) < size:
        data = read(size - len(out))
        if not data:
            raise ProtocolError("the other side hung up")
        out += data
    return out
