"""Building images, and what builds keep."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import msgspec

from sampan.client.api import Client, Filters, Parameters, filters, segment
from sampan.client.context import Reader
from sampan.client.errors import ProtocolError
from sampan.client.stream import json_lines
from sampan.wire import builds as b
from sampan.wire import images as i

PREFIXED = "application/vnd.sampan.build"


@dataclass(frozen=True)
class Sent:
    """Something that is sent before the context.  kind: "context", "image" or "cache"; name: of the context that it is."""

    kind: str
    name: str
    pieces: Iterator[bytes]


@dataclass(frozen=True)
class Along:
    """What travels before the context and never in the query.

    secrets: by id.  context: the token of `tell`; the tar then holds what was wanted.  session: that of lent agents.
    """

    secrets: Mapping[str, bytes] = field(default_factory=dict)
    context: str = ""
    session: str = ""
    uploads: tuple[Sent, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.secrets or self.context or self.session or self.uploads)

    def before(self, tar: Iterator[bytes]) -> Iterator[bytes]:
        """Yield it all, then the tar."""
        encoded = {name: base64.b64encode(value).decode() for name, value in self.secrets.items()}
        uploads = [{"kind": one.kind, "name": one.name} for one in self.uploads]
        told = msgspec.json.encode({"secrets": encoded, "context": self.context, "session": self.session, "uploads": uploads})
        yield len(told).to_bytes(8, "big") + told
        for upload in self.uploads:
            for piece in upload.pieces:
                if piece:
                    yield len(piece).to_bytes(4, "big") + piece
            yield bytes(4)
        yield from tar


class Builder:
    """The builder of a daemon."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def build(
        self, tar: Iterator[bytes], query: Parameters, *, along: Along = Along(), auths: str = ""
    ) -> Iterator[i.Progress]:  # fmt: skip
        """Build from the pieces of a tar; a failure comes as a message with `error`.  auths: X-Registry-Config."""
        headers = {"X-Registry-Config": auths} if auths else {}
        if along:
            headers["Content-Type"] = PREFIXED
        pieces = along.before(tar) if along else tar
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

    def steps(self, keys: list[str]) -> Iterator[bytes]:
        """Yield an OCI layout with cached steps: for another daemon, see `Sent`."""
        body = msgspec.json.encode(keys)
        with closing(self._client.open("POST", "/sampan/cache", None, body, {"Content-Type": "application/json"})) as response:
            while data := response.read1(1 << 18):
                yield data

    def builds(self) -> list[b.BuildSummary]:
        """Return the builds that were, the newest first."""
        return self._client.get(list[b.BuildSummary], "GET", "/sampan/builds")

    def inspect(self, build: str) -> b.BuildDetails:
        return self._client.get(b.BuildDetails, "GET", f"/sampan/builds/{segment(build)}")

    def said(self, build: str) -> str:
        """Return the messages of a build."""
        return self._client.raw("GET", f"/sampan/builds/{segment(build)}/log").decode(errors="replace")

    def forget(self, build: str) -> None:
        self._client.raw("DELETE", f"/sampan/builds/{segment(build)}")

    def prune(self, *, all: bool = False, keep: int = 0, wanted: Filters | None = None) -> i.BuildPruned:
        """Remove cached steps."""
        query: dict[str, Any] = {"all": all, "keep-storage": keep or None, "filters": filters(wanted)}
        return self._client.get(i.BuildPruned, "POST", "/build/prune", query)

    def export(self, container: str) -> Iterator[bytes]:
        """Yield the tar of a container's files."""
        with closing(self._client.open("GET", f"/containers/{segment(container)}/export")) as response:
            while data := response.read1(1 << 18):
                yield data
