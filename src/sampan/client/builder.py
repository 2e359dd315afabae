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
        self, tar: Iterator[bytes], query: Parameters, *, secrets: Mapping[str, bytes] | None = None, auths: str = ""
    ) -> Iterator[i.Progress]:
        """Build from the pieces of a tar; a failure comes as a message with `error`.

        secrets: by id; they travel before the tar, never in the query.  auths: X-Registry-Config.
        """
        headers = {"X-Registry-Config": auths} if auths else {}
        pieces = tar
        if secrets:
            headers["Content-Type"] = PREFIXED
            told = msgspec.json.encode({"secrets": {name: base64.b64encode(value).decode() for name, value in secrets.items()}})
            pieces = _after(len(told).to_bytes(8, "big") + told, tar)
        body = cast("BinaryIO", Reader(pieces))
        with closing(self._client.open("POST", "/build", query, body, headers)) as response:
            try:
                for value in json_lines(response):
                    yield msgspec.convert(value, i.Progress)
            except (http.client.IncompleteRead, msgspec.ValidationError) as error:
                raise ProtocolError(f"the daemon's answer broke off: {error}") from error

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
