"""SSH agents of the client, lent to RUN --mount=type=ssh (`sampan build --ssh`).

    step ── socket in the container ── daemon ══ the client's session ══ client ── its agent

Each request of the agent protocol (draft-miller-ssh-agent: 4 bytes length, then the message) is passed on by itself and
answered by itself; keys never come here.  What an agent may be asked the client decides; see client/agents.py.

    daemon  -> client    4 bytes length, 4 bytes number, 1 byte length of the agent's name, the name, the message
    client  -> daemon    4 bytes length, 4 bytes number, the answer; none: it cannot be had
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack

from sampan.errors import InvalidRequest, NotFound

MAX_MESSAGE = 256 << 10  # bytes, as OpenSSH has it
MAX_LENT = 64  # connections of one step at a time
FAILURE = b"\x05"  # SSH_AGENT_FAILURE


class Session:
    """A client's agents, for as long as it stays.  Its methods are the event loop's.

    token: names it to a build.  send: gives the client bytes.
    """

    def __init__(self, agents: frozenset[str], send: Callable[[bytes], None]) -> None:
        self.token = secrets.token_hex(32)
        self.agents = agents
        self._send = send
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._read = b""
        self._gone = False

    async def ask(self, agent: str, message: bytes) -> bytes:
        """Return the agent's answer; a failure, in the agent protocol's words, when there is none."""
        if self._gone:
            return FAILURE
        self._number += 1
        number, name = self._number, agent.encode()
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        body = number.to_bytes(4, "big") + bytes([len(name)]) + name + message
        self._send(len(body).to_bytes(4, "big") + body)
        try:
            return await answer or FAILURE
        finally:
            self._waiting.pop(number, None)

    def feed(self, data: bytes) -> None:
        """Take what the client sent.  Raises InvalidRequest for what is no answer."""
        self._read += data
        while len(self._read) >= 4:
            size = int.from_bytes(self._read[:4], "big")
            if not 4 <= size <= MAX_MESSAGE + 4:
                raise InvalidRequest(f"an answer of {size} bytes")
            if len(self._read) < 4 + size:
                return
            body, self._read = self._read[4 : 4 + size], self._read[4 + size :]
            answer = self._waiting.get(int.from_bytes(body[:4], "big"))
            if answer is not None and not answer.done():
                answer.set_result(body[4:])

    def lost(self) -> None:
        """The client has gone."""
        self._gone = True
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_result(b"")


class Sessions:
    """The sessions there are."""

    def __init__(self) -> None:
        self._all: list[Session] = []

    def open(self, agents: list[str], send: Callable[[bytes], None]) -> Session:
        """Begin a session.  Raises InvalidRequest."""
        if not agents or len(agents) > 100 or any(not one or len(one.encode(errors="replace")) > 200 for one in agents):
            raise InvalidRequest("1 to 100 agents with names of at most 200 bytes are expected")
        session = Session(frozenset(agents), send)
        self._all.append(session)
        return session

    def close(self, session: Session) -> None:
        session.lost()
        self._all.remove(session)

    def find(self, token: str) -> Session | None:
        """Return the session of a token, None for no token.  Raises NotFound."""
        if not token:
            return None
        found = next((one for one in self._all if secrets.compare_digest(one.token, token)), None)
        if found is None:
            raise NotFound("no such session: the client that lends its agents has gone")
        return found


def serve(listening: socket.socket, session: Session, agent: str, held: ExitStack) -> None:
    """Answer whoever connects, until `held` is closed.  (Event loop)"""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def accept() -> None:
        with contextlib.suppress(OSError):
            made, _ = listening.accept()
            if len(tasks) >= MAX_LENT:
                made.close()
                return
            task = loop.create_task(_answer(made, session, agent))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def stop() -> None:
        loop.remove_reader(listening.fileno())
        listening.close()
        for task in tasks:
            task.cancel()

    listening.setblocking(False)
    loop.add_reader(listening.fileno(), accept)
    held.callback(stop)


async def _answer(made: socket.socket, session: Session, agent: str) -> None:
    """One connection: a request, its answer, the next request."""
    made.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=made)
    try:
        while True:
            size = int.from_bytes(await reader.readexactly(4), "big")
            if not 0 < size <= MAX_MESSAGE:
                return
            answer = await session.ask(agent, await reader.readexactly(size))
            writer.write(len(answer).to_bytes(4, "big") + answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, OSError):
        return  # the step has closed it, or has ended
    finally:
        writer.close()
