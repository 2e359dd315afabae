"""Building images, and what builds keep."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, BinaryIO, cast

import msgspec

from sampan.client.api import Client, Filters, Parameters, filters, segment
from sampan.client.context import Reader
from sampan.client.errors import ProtocolError
from sampan.client.stream import json_lines
from sampan.wire import images as i

PREFIXED = "application/vnd.sampan.build"


class Builder:
    """The builder of a daemon."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def build(
        self, tar: Iterator[bytes], query: Parameters, *, secrets: Mapping[str, bytes] | None = None, auths: str = "",
        context: str = "",
    ) -> Iterator[i.Progress]:  # fmt: skip
        """Build from the pieces of a tar; a failure comes as a message with `error`.

        context: the token of `tell`; the tar then holds what was wanted.
        secrets: by id; they travel before the tar, never in the query.  auths: X-Registry-Config.
        """
        headers = {"X-Registry-Config": auths} if auths else {}
        pieces = tar
        if secrets or context:
            headers["Content-Type"] = PREFIXED
            encoded = {name: base64.b64encode(value).decode() for name, value in (secrets or {}).items()}
            told = msgspec.json.encode({"secrets": encoded, "context": context})
            pieces = _after(len(told).to_bytes(8, "big") + told, tar)
        body = cast("BinaryIO", Reader(pieces))
        with closing(self._client.open("POST", "/build", query, body, headers)) as response:
            try:
                for value in json_lines(response):
                    yield msgspec.convert(value, i.Progress)
            except (http.client.IncompleteRead, msgspec.ValidationError) as error:
                raise ProtocolError(f"the daemon's answer broke off: {error}") from error

    def tell(self, key: str, entries: list[tuple[str, int, int, int, str]]) -> i.ContextAnswer:
        """Tell what a context has: (path, st_mode, size, mtime in nanoseconds, target of a link); get what is wanted of it."""
        data = self._client.raw("POST", "/sampan/context", {"key": key}, msgspec.json.encode(entries))
        return msgspec.json.decode(data, type=i.ContextAnswer)

    def prune(self, *, all: bool = False, keep: int = 0, wanted: Filters | None = None) -> i.BuildPruned:
        """Remove cached steps."""
        query: dict[str, Any] = {"all": all, "keep-storage": keep or None, "filters": filters(wanted)}
        return self._client.get(i.BuildPruned, "POST", "/build/prune", query)

    def export(self, container: str) -> Iterator[bytes]:
        """Yield the tar of a container's files."""
        with closing(self._client.open("GET", f"/containers/{segment(container)}/export")) as response:
            while data := response.read1(1 << 18):
                yield data


def _after(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
