"""HTTP to one host of a registry: redirects, retries with back-off, and credentials that go nowhere else.

request        -> the registry's own host, with Authorization once it has asked for it
  redirect     -> wherever the registry points, judged by guard.py, never with Authorization, never from TLS to none
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType

import aiohttp
from yarl import URL

from sampan.errors import Forbidden, SampanError
from sampan.registry.auth import Authorizer
from sampan.registry.faults import RETRIED, Interrupted, RegistryFailed, refusal, shown
from sampan.registry.guard import Guard
from sampan.registry.hosts import Endpoint, Hosts, split_port

MAX_REDIRECTS = 5
MAX_ERROR_BODY = 64 << 10
MAX_HEADER = 64 << 10
BUFFER = 1 << 20
REDIRECTS = frozenset((301, 302, 303, 307, 308))
Body = bytes | Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True)
class Timing:
    """How patient to be.  Seconds; attempts of one request; slow: bytes a minute below which a transfer counts as stalled."""

    attempts: int = 5
    delay: float = 0.5
    connect: float = 15.0
    stall: float = 30.0
    document: float = 60.0
    longest_wait: float = 30.0
    slow: int = 64 << 10


class Session:
    """A conversation with `endpoint`.  An async context manager."""

    def __init__(self, hosts: Hosts, endpoint: Endpoint, authorizer: Authorizer, *, timing: Timing, agent: str) -> None:
        self.hosts = hosts
        self.endpoint = endpoint
        self.timing = timing
        self.authorizer = authorizer
        self.guard = Guard(split_port(endpoint.host)[0])
        self._agent = agent
        self._users = 0
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._scheme = endpoint.schemes[0] if len(endpoint.schemes) == 1 else ""

    async def __aenter__(self) -> Session:
        """Use it.  Several may at once; it is closed when the last one leaves."""
        self._users += 1
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._users -= 1
        if not self._users:
            for session in self._sessions.values():
                await session.close()

    # One exchange

    async def open(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, body: Body | None = None,
        scopes: Sequence[str] = (),
    ) -> aiohttp.ClientResponse:  # fmt: skip
        """Make a request until it is answered; return the response with its body unread, which the caller releases.

        target: a path on the registry's host, or a whole URL that it gave.  Raises Missing, AccessDenied, WrongCredentials,
        Interrupted after the last attempt, RegistryFailed, Forbidden.
        """
        for attempt in range(self.timing.attempts):
            last = attempt == self.timing.attempts - 1
            try:
                return await self._authorised(method, target, dict(headers or {}), body, scopes)
            except Interrupted as error:
                if last or (callable(body) and method == "PATCH"):  # a chunk may have arrived: its sender looks first
                    raise
                await self.pause(attempt, error.after)
        raise AssertionError("unreachable")

    async def pause(self, attempt: int, after: float = 0.0) -> None:
        """Wait before another attempt: longer each time, and as long as the registry asks for within reason."""
        wait = self.timing.delay * 2**attempt * random.uniform(0.75, 1.25)
        await asyncio.sleep(min(max(wait, after), self.timing.longest_wait))

    async def document(
        self, method: str, target: str, *, limit: int, headers: Mapping[str, str] | None = None, scopes: Sequence[str] = ()
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Make a request whose answer is a small document; return both.  Raises as `open`, RegistryFailed when it is large."""
        for attempt in range(self.timing.attempts):
            try:
                async with asyncio.timeout(self.timing.document):
                    response = await self.open(method, target, headers=headers, scopes=scopes)
                    async with response:
                        return response, await whole(response, limit)
            except (aiohttp.ClientPayloadError, TimeoutError, ConnectionError) as error:
                if attempt == self.timing.attempts - 1:
                    raise RegistryFailed(f"{method} {shown(target)}: {error or 'timed out'}") from error
                await self.pause(attempt)
        raise AssertionError("unreachable")

    async def _authorised(
        self, method: str, target: str, headers: dict[str, str], body: Body | None, scopes: Sequence[str]
    ) -> aiohttp.ClientResponse:
        value = self.authorizer.header(scopes)
        for again in (False, True):
            if value:
                headers["Authorization"] = value
            response = await self._redirected(method, target, headers, body)
            if response.status == 401 and not again and self.is_home(response.url):
                challenges = response.headers.getall("WWW-Authenticate", [])
                content = await _rest(response)
                before, value = value, await self.authorizer.answer(challenges, scopes, self, value)
                if value:
                    continue
                raise refusal(401, method, str(response.url), content, before)
            if response.status >= 400:
                raise await self._refused(method, response, value)
            return response
        raise AssertionError("unreachable")

    async def _refused(self, method: str, response: aiohttp.ClientResponse, authorization: str) -> Exception:
        url = str(response.url)
        error = refusal(response.status, method, url, await _rest(response), authorization)
        if response.status in RETRIED:
            return Interrupted(str(error), _retry_after(response.headers.get("Retry-After", "")))
        return error

    async def _redirected(self, method: str, target: str, headers: dict[str, str], body: Body | None) -> aiohttp.ClientResponse:
        url = await self._url(target)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self.send(method, url, headers, body)
            if response.status not in REDIRECTS or method not in ("GET", "HEAD"):
                return response
            location = response.headers.get("Location", "")
            await _rest(response)
            url = self.follow(url, location)
        raise RegistryFailed(f"{shown(str(url))}: more than {MAX_REDIRECTS} redirects")

    def follow(self, base: URL, location: str) -> URL:
        """Return the URL that a Location header means.  Raises RegistryFailed, Forbidden for a step down from TLS."""
        try:
            url = base.join(URL(location, encoded=True))
        except ValueError:
            url = URL()
        if not location or url.scheme not in ("http", "https") or not url.host or url.user is not None:
            raise RegistryFailed(f"{shown(str(base))}: redirect to an invalid address")
        if base.scheme == "https" and url.scheme == "http":
            raise Forbidden(f"{shown(str(base))} redirects to {shown(str(url))}, which is not encrypted")
        return url

    def is_home(self, url: URL) -> bool:
        """Return whether `url` is on the registry's own host, spoken to as we speak to it."""
        return f"{url.scheme}://{_netloc(url)}" == f"{self._scheme}://{_with_port(self._scheme, self.endpoint.host)}"

    async def _url(self, target: str) -> URL:
        if "://" in target:
            return URL(target, encoded=True)
        if not self._scheme:
            self._scheme = await self._find_scheme()
        return URL(f"{self._scheme}://{self.endpoint.host}{target}", encoded=True)

    async def _find_scheme(self) -> str:
        """Return "https" when the insecure host speaks it, else "http"."""
        try:
            response = await self.send("GET", URL(f"https://{self.endpoint.host}/v2/"), {}, None)
        except SampanError:
            return "http"
        response.release()
        return "https"

    async def send(
        self, method: str, url: URL, headers: Mapping[str, str], body: Body | None, *, keep: bool = False
    ) -> aiohttp.ClientResponse:
        """Make one request of one host and return whatever it answers.

        keep: Authorization may go to a host that is not the registry's (its caller judged that).  Raises Interrupted,
        RegistryFailed, Forbidden.
        """
        home = self.is_home(url) or not self._scheme
        sent = {name: value for name, value in headers.items() if home or keep or name.lower() != "authorization"}
        if not home:
            self.guard.check(url.host or "")
        proxy = self.hosts.proxy(url.scheme, _netloc(url))
        session = self._session("proxy" if proxy else "home" if home else "foreign")
        context = self.hosts.context(self.endpoint.host if home else url.authority) if url.scheme == "https" else True
        try:
            return await session.request(
                method, url, headers=sent, data=body() if callable(body) else body, allow_redirects=False, ssl=context, proxy=proxy
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError, ValueError) as error:
            raise _fault(method, url, error) from error

    async def ask(self, method: str, url: URL, headers: Mapping[str, str], body: Body | None, limit: int) -> tuple[int, bytes]:
        """Ask a token service, with the headers given and no others; return (status, body).  No redirect is followed.

        Raises as `send`, RegistryFailed when the body is larger than `limit`.
        """
        async with asyncio.timeout(self.timing.document):
            response = await self.send(method, url, headers, body, keep=True)
            async with response:
                return response.status, await whole(response, limit)

    def _session(self, kind: str) -> aiohttp.ClientSession:
        found = self._sessions.get(kind)
        if found is None:
            resolver = None if kind == "proxy" else self.guard.resolver(foreign=kind == "foreign")
            found = self._sessions[kind] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=resolver, limit=16, use_dns_cache=False),
                cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False, read_bufsize=BUFFER,
                timeout=aiohttp.ClientTimeout(total=None, connect=self.timing.connect, sock_read=self.timing.stall),
                headers={"User-Agent": self._agent, "Accept-Encoding": "identity"},
                max_line_size=MAX_HEADER, max_field_size=MAX_HEADER,
            )  # fmt: skip
        return found


async def whole(response: aiohttp.ClientResponse, limit: int, *, cut: bool = False) -> bytes:
    """Return a body of at most `limit` bytes, with `cut` its beginning.  Raises RegistryFailed when it is larger."""
    parts: list[bytes] = []
    left = limit
    while data := await response.content.readany():
        left -= len(data)
        parts.append(data)
        if left < 0:
            response.close()
            if cut:
                break
            raise RegistryFailed(f"{shown(str(response.url))} is larger than {limit} bytes")
    return b"".join(parts)[:limit]


async def _rest(response: aiohttp.ClientResponse) -> bytes:
    """Return the (beginning of the) body of an answer that is not what was wanted; the connection can be used again."""
    async with response:
        try:
            return await whole(response, MAX_ERROR_BODY, cut=True)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return b""


def _fault(method: str, url: URL, error: BaseException) -> SampanError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SampanError):  # the guard's, from within the resolver
            return cause
        cause = cause.__cause__ or cause.__context__
    what = f'{method.capitalize()} "{shown(str(url))}"'
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return RegistryFailed(f"{what}: tls: failed to verify certificate: {error.certificate_error}")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return RegistryFailed(f"{what}: dial tcp: lookup {url.host}: no such host")
    if isinstance(error, aiohttp.ClientConnectorError):
        return RegistryFailed(f"{what}: dial tcp {_netloc(url)}: connect: {_reason(error.os_error)}")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.ClientResponseError | ValueError):
        return RegistryFailed(f"{what}: {str(error)[:200]}")
    return Interrupted(f"{what}: {str(error)[:200] or 'timed out'}")


def _reason(error: OSError) -> str:
    """Return what connect(2) said; of several addresses, what the first one did."""
    code = error.errno
    if code is None and "[Errno " in str(error):
        digits = str(error).partition("[Errno ")[2].partition("]")[0]
        code = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 5 else None
    return os.strerror(code).lower() if code is not None else str(error)[:200].lower()


def _netloc(url: URL) -> str:
    return f"{f'[{url.host}]' if ':' in (url.host or '') else url.host}:{url.port}"


def _with_port(scheme: str, host: str) -> str:
    name, port = split_port(host)
    return f"{f'[{name}]' if ':' in name else name.lower()}:{port or (443 if scheme == 'https' else 80)}"


def _retry_after(text: str) -> float:
    if text.isascii() and text.isdigit() and len(text) < 9:
        return float(text)
    try:
        from datetime import UTC, datetime

        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()) if text else 0.0
    except (TypeError, ValueError):
        return 0.0
