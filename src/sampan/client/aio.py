"""The asynchronous client: the main verbs, over aiohttp.

async with AsyncClient() as client:
    made = await client.create(CreateBody(image="busybox", cmd=["true"]))
    await client.start(made.id)
    print((await client.wait(made.id)).status_code)
"""

from __future__ import annotations

from builtins import list as List
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import aiohttp
import msgspec

from sampan.client.api import AGENT, Filters, filters, segment
from sampan.client.connect import DEFAULT_HOST, context, parse
from sampan.client.errors import ApiError, NoDaemon, ProtocolError
from sampan.wire import containers as c
from sampan.wire import images as i
from sampan.wire import system as s
from sampan.wire.hosts import TlsFiles

T = TypeVar("T")


class AsyncClient:
    """A daemon at `host`.  Raises as the synchronous Client does; use it as an asynchronous context."""

    def __init__(self, host: str = DEFAULT_HOST, tls: TlsFiles | None = None) -> None:
        self.host = parse(host, tls=tls is not None)
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> AsyncClient:
        connector: aiohttp.BaseConnector
        if self.host.path:
            connector, base = aiohttp.UnixConnector(self.host.path, limit=0), "http://sampan"
        else:
            secure = context(self._tls) if self._tls is not None else True
            connector = aiohttp.TCPConnector(limit=0, ssl=secure)
            name = f"[{self.host.host}]" if ":" in self.host.host else self.host.host
            base = f"{'https' if self._tls is not None else 'http'}://{name}:{self.host.port}"
        self._session = aiohttp.ClientSession(
            base, connector=connector, timeout=aiohttp.ClientTimeout(), headers={"User-Agent": AGENT}
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def _open(self, method: str, path: str, query: dict[str, Any], body: Any = None) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("AsyncClient is used as `async with AsyncClient() as client`")
        wanted = {key: "1" if value is True else str(value) for key, value in query.items() if value not in (None, "", False)}
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"} if data is not None else {}
        try:
            response = await self._session.request(method, path, params=wanted, data=data, headers=headers)
        except aiohttp.ClientConnectorError as error:
            raise NoDaemon(self.host.text, str(error)) from error
        except aiohttp.ClientError as error:
            raise ProtocolError(f"{self.host.text}: {error}") from error
        if response.status >= 400:
            async with response:
                text = await response.text(errors="replace")
            try:
                text = str(msgspec.json.decode(text)["message"])
            except (msgspec.DecodeError, KeyError, TypeError):
                pass
            raise ApiError(response.status, text.strip())
        return response

    async def _raw(self, method: str, path: str, query: dict[str, Any], body: Any = None) -> bytes:
        async with await self._open(method, path, query, body) as response:
            try:
                return await response.read()
            except aiohttp.ClientError as error:
                raise ProtocolError(f"the daemon's answer broke off: {error}") from error

    async def _get(self, kind: type[T], method: str, path: str, body: Any = None, **query: Any) -> T:
        data = await self._raw(method, path, query, body)
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"{method} {path}: unexpected answer: {error}") from error

    async def create(self, body: c.CreateBody, *, name: str = "") -> c.Created:
        return await self._get(c.Created, "POST", "/containers/create", body, name=name)

    async def start(self, ref: str) -> None:
        await self._raw("POST", f"/containers/{segment(ref)}/start", {})

    async def stop(self, ref: str, *, timeout: int | None = None) -> None:
        await self._raw("POST", f"/containers/{segment(ref)}/stop", {"t": None if timeout is None else str(timeout)})

    async def kill(self, ref: str, *, signal: str = "") -> None:
        await self._raw("POST", f"/containers/{segment(ref)}/kill", {"signal": signal})

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        await self._raw("DELETE", f"/containers/{segment(ref)}", {"force": force, "v": volumes})

    async def wait(self, ref: str, condition: str = "not-running") -> c.WaitResult:
        return await self._get(c.WaitResult, "POST", f"/containers/{segment(ref)}/wait", condition=condition)

    async def inspect(self, ref: str) -> c.ContainerInspect:
        return await self._get(c.ContainerInspect, "GET", f"/containers/{segment(ref)}/json")

    async def list(self, *, all: bool = False, wanted: Filters | None = None) -> List[c.ContainerSummary]:
        return await self._get(List[c.ContainerSummary], "GET", "/containers/json", all=all, filters=filters(wanted))

    async def images(self) -> List[i.ImageSummary]:
        return await self._get(List[i.ImageSummary], "GET", "/images/json")

    async def version(self) -> s.Version:
        return await self._get(s.Version, "GET", "/version")

    async def info(self) -> s.Info:
        return await self._get(s.Info, "GET", "/info")

    async def events(self, *, since: str = "", wanted: Filters | None = None) -> AsyncIterator[s.EventMessage]:
        """Yield events as they happen."""
        async with await self._open("GET", "/events", {"since": since, "filters": filters(wanted)}) as response:
            async for line in response.content:
                if line.strip():
                    yield msgspec.json.decode(line, type=s.EventMessage)
