"""Images of a daemon.  What takes long yields progress messages; a failure among them is raised as ApiError."""

from __future__ import annotations

import builtins
import http.client
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, BinaryIO

import msgspec

from sampan.client.api import Client, Filters, Parameters, filters, segment
from sampan.client.errors import ApiError, ProtocolError
from sampan.client.stream import json_lines
from sampan.wire import images as i
from sampan.wire import registry as r


class Images:
    """`ref` is a name with or without tag, a digest, an id or the beginning of one."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(
        self, *, all: bool = False, wanted: Filters | None = None, manifests: bool = False
    ) -> builtins.list[i.ImageSummary]:  # fmt: skip
        query = {"all": all, "filters": filters(wanted), "manifests": manifests or None}
        return self._client.get(builtins.list[i.ImageSummary], "GET", "/images/json", query)

    def inspect(self, ref: str) -> i.ImageInspect:
        return self._client.get(i.ImageInspect, "GET", f"/images/{segment(ref)}/json")

    def inspect_json(self, ref: str, *, platform: str = "") -> Any:
        return self._client.json("GET", f"/images/{segment(ref)}/json", {"platform": platform or None})

    def history(self, ref: str, *, platform: str = "") -> builtins.list[i.HistoryItem]:
        """platform: "os/arch" that the image has to be of, here as elsewhere."""
        query = {"platform": platform or None}
        return self._client.get(builtins.list[i.HistoryItem], "GET", f"/images/{segment(ref)}/history", query)

    def tag(self, ref: str, repo: str, tag: str = "") -> None:
        self._client.raw("POST", f"/images/{segment(ref)}/tag", {"repo": repo, "tag": tag or None})

    def remove(
        self, ref: str, *, force: bool = False, prune: bool = True, platforms: Sequence[str] = ()
    ) -> builtins.list[i.Deleted]:
        query: Parameters = {"force": force, "noprune": not prune, "platforms": platforms}
        return self._client.get(builtins.list[i.Deleted], "DELETE", f"/images/{segment(ref)}", query)

    def prune(self, wanted: Filters | None = None) -> i.PruneResult:
        return self._client.get(i.PruneResult, "POST", "/images/prune", {"filters": filters(wanted)})

    def load(self, tar: BinaryIO, *, quiet: bool = False, platform: str = "") -> Iterator[i.Progress]:
        """`tar` is read to its end."""
        return self._progress("/images/load", {"quiet": "1" if quiet else "0", "platform": platform or None}, tar)

    def import_(
        self, tar: BinaryIO | str, *, repo: str = "", tag: str = "", message: str = "", changes: Sequence[str] = (),
        platform: str = "",
    ) -> Iterator[i.Progress]:  # fmt: skip
        """Make an image of a root file system's tar, or of what the daemon fetches from an address; the last status is its id."""
        query = {
            "fromSrc": tar if isinstance(tar, str) else "-", "repo": repo or None, "tag": tag or None, "message": message or None,
            "changes": changes, "platform": platform or None,
        }  # fmt: skip
        return self._progress("/images/create", query, None if isinstance(tar, str) else tar)

    def pull(self, name: str, tag: str, *, platform: str = "", auth: str = "") -> Iterator[i.Progress]:
        """Fetch from a registry: one tag or digest, or with "" every tag.  auth: X-Registry-Auth."""
        query = {"fromImage": name, "tag": tag or None, "platform": platform or None}
        return self._progress("/images/create", query, None, auth)

    def push(self, name: str, tag: str, *, platform: str = "", auth: str = "") -> Iterator[i.Progress]:
        """Send to a registry: one tag, or with "" every tag of the repository."""
        query = {"tag": tag or None, "platform": platform or None}
        return self._progress(f"/images/{segment(name)}/push", query, None, auth or "e30=")

    def login(self, given: Mapping[str, str]) -> r.AuthAnswer:
        """Try credentials (username, password, serveraddress ...)."""
        return self._client.get(r.AuthAnswer, "POST", "/auth", None, dict(given))

    def search(
        self, term: str, *, limit: int | None = None, wanted: Filters | None = None, auth: str = ""
    ) -> builtins.list[r.SearchResult]:
        query = {"term": term, "limit": limit, "filters": filters(wanted)}
        headers = {"X-Registry-Auth": auth} if auth else None
        return self._client.get(builtins.list[r.SearchResult], "GET", "/images/search", query, headers=headers)

    def bootstrap(self, recipe: str, *, tag: str = "") -> Iterator[i.Progress]:
        """Make a base image from the distribution's own packages."""
        return self._progress("/sampan/images/bootstrap", {"recipe": recipe, "tag": tag or None}, None)

    def sbom(self, ref: str) -> bytes:
        """Return the image's software bill of materials: SPDX in JSON."""
        return self._client.raw("GET", f"/sampan/images/{segment(ref)}/sbom")

    def save(self, refs: Sequence[str], *, platform: str = "") -> Iterator[bytes]:
        """Yield the tar that holds `refs`."""
        query = {"names": refs, "platform": platform or None}
        with closing(self._client.open("GET", "/images/get", query)) as response:
            try:
                while data := response.read1(1 << 18):
                    yield data
            except http.client.IncompleteRead:
                raise ProtocolError("the daemon's answer broke off") from None

    def _progress(self, path: str, query: Parameters, tar: BinaryIO | None, auth: str = "") -> Iterator[i.Progress]:
        headers = {"X-Registry-Auth": auth} if auth else None
        with closing(self._client.open("POST", path, query, tar, headers)) as response:
            try:
                for value in json_lines(response):
                    message = msgspec.convert(value, i.Progress)
                    if message.error or message.error_detail is not None:
                        detail = message.error_detail
                        raise ApiError(500, (detail.message if detail else "") or message.error)
                    yield message
            except (http.client.IncompleteRead, msgspec.ValidationError) as error:
                raise ProtocolError(f"the daemon's answer broke off: {error}") from error
