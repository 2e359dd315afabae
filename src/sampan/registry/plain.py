"""What somebody gives the address of: one GET over HTTP, no registry's protocol.  Blocks."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sampan.errors import InvalidRequest

_TIMEOUT = 60.0  # seconds without a byte


class Reply:
    """A body that is on its way."""

    def __init__(self, reply: http.client.HTTPResponse) -> None:
        self._reply = reply
        self.modified = reply.headers.get("Last-Modified")

    def read(self, size: int = 1 << 18, /) -> bytes:
        """Return the next bytes, b"" at the end.  Raises OSError, and ConnectionError for a body that ends early."""
        try:
            data = self._reply.read(size)
        except http.client.HTTPException as error:
            raise ConnectionError(f"the answer is cut: {error!r}") from None
        if not data and size and self._reply.length:  # http.client takes the end of the connection for the end of the body
            raise ConnectionError(f"the answer is cut: {self._reply.length} bytes are missing")
        return data


class _OnlyHttp(urllib.request.HTTPRedirectHandler):
    """Redirects stay with HTTP: never to a file or another scheme."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if not newurl.startswith(("http://", "https://")):
            fp.close()
            raise InvalidRequest(f"{req.full_url[:200]} redirects to {newurl[:80]!r}, which is not HTTP")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        before, after = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if following is not None and (before.scheme, before.netloc) != (after.scheme, after.netloc):
            following.remove_header("Authorization")  # credentials are for the host they were given for (row 50)
        return following


def checked(source: str) -> urllib.parse.SplitResult:
    """Return the parts of an address.  Raises InvalidRequest for one that is not HTTP's."""
    try:
        parts = urllib.parse.urlsplit(source)
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError as error:
        raise InvalidRequest(f"invalid URL {source[:200]!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or any(ord(sign) < 33 for sign in source):
        raise InvalidRequest(f"invalid URL {source[:200]!r}")
    return parts


@contextmanager
def opened(source: str, headers: Mapping[str, str] | None = None) -> Iterator[Reply]:
    """Open what an http or https address gives.  Raises InvalidRequest, and OSError when the server does not give it."""
    checked(source)
    opener = urllib.request.build_opener(_OnlyHttp())
    request = urllib.request.Request(source, headers={"User-Agent": "sampan", **(headers or {})})
    try:
        reply = opener.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise
    except ValueError as error:  # a name that is none in the DNS, a path that is none in HTTP
        raise InvalidRequest(f"invalid URL {source[:200]!r}: {error}") from None
    except http.client.HTTPException as error:
        raise ConnectionError(f"no answer in HTTP: {error!r}") from None
    with reply:
        yield Reply(reply)
