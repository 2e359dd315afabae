"""Containers of a daemon."""

from __future__ import annotations

import base64
import builtins
import http.client
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, BinaryIO

import msgspec

from sampan.client.api import Client, Filters, filters, segment
from sampan.client.connect import Hijacked
from sampan.client.errors import ProtocolError
from sampan.client.stream import json_lines, pieces
from sampan.wire import containers as c
from sampan.wire import resources as r
from sampan.wire import stats as st
from sampan.wire import system as s
from sampan.wire.archive import Change, CommitOptions, Committed, PathStat


class Waiting:
    """A wait that the daemon has noted: `result` returns when its condition is met."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def result(self) -> c.WaitResult:
        with self._response:
            try:
                data = self._response.read()
            except (http.client.HTTPException, ConnectionError) as error:
                raise ProtocolError(f"the daemon left while it was waited for: {error}") from error
        try:
            return msgspec.json.decode(data, type=c.WaitResult)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"wait: unexpected answer: {error}") from error

    def cancel(self) -> None:
        self._response.close()


class Containers:
    """`ref` is an id, the beginning of one, or a name."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, body: c.CreateBody, *, name: str = "", platform: str = "") -> c.Created:
        query = {"name": name or None, "platform": platform or None}
        return self._client.get(c.Created, "POST", "/containers/create", query, body)

    def list(
        self, *, all: bool = False, limit: int = 0, size: bool = False, wanted: Filters | None = None
    ) -> builtins.list[c.ContainerSummary]:
        query = {"all": all, "limit": limit or None, "size": size, "filters": filters(wanted)}
        return self._client.get(builtins.list[c.ContainerSummary], "GET", "/containers/json", query)

    def inspect(self, ref: str, *, size: bool = False) -> c.ContainerInspect:
        return self._client.get(c.ContainerInspect, "GET", f"/containers/{segment(ref)}/json", {"size": size})

    def inspect_json(self, ref: str, *, size: bool = False) -> Any:
        return self._client.json("GET", f"/containers/{segment(ref)}/json", {"size": size})

    def _post(self, ref: str, verb: str, **query: str | int | bool | None) -> None:
        self._client.raw("POST", f"/containers/{segment(ref)}/{verb}", query)

    def start(self, ref: str) -> None:
        self._post(ref, "start")

    def stop(self, ref: str, *, timeout: int | None = None, signal: str = "") -> None:
        self._post(ref, "stop", t=timeout, signal=signal or None)

    def restart(self, ref: str, *, timeout: int | None = None, signal: str = "") -> None:
        self._post(ref, "restart", t=timeout, signal=signal or None)

    def kill(self, ref: str, *, signal: str = "") -> None:
        self._post(ref, "kill", signal=signal or None)

    def rename(self, ref: str, name: str) -> None:
        self._post(ref, "rename", name=name)

    def pause(self, ref: str) -> None:
        self._post(ref, "pause")

    def unpause(self, ref: str) -> None:
        self._post(ref, "unpause")

    def resize(self, ref: str, *, height: int, width: int) -> None:
        self._post(ref, "resize", h=height, w=width)

    def remove(self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        self._client.raw("DELETE", f"/containers/{segment(ref)}", {"force": force, "v": volumes, "link": link})

    def prune(self, wanted: Filters | None = None) -> c.PruneResult:
        return self._client.get(c.PruneResult, "POST", "/containers/prune", {"filters": filters(wanted)})

    def top(self, ref: str, ps_args: str = "") -> s.Top:
        return self._client.get(s.Top, "GET", f"/containers/{segment(ref)}/top", {"ps_args": ps_args or None})

    def begin_wait(self, ref: str, condition: str = "not-running") -> Waiting:
        """Return as soon as the daemon waits, so that no exit after this call is missed."""
        return Waiting(self._client.open("POST", f"/containers/{segment(ref)}/wait", {"condition": condition}))

    def wait(self, ref: str, condition: str = "not-running") -> c.WaitResult:
        return self.begin_wait(ref, condition).result()

    def attach(
        self, ref: str, *, stdin: bool = False, stdout: bool = True, stderr: bool = True,
        logs: bool = False, detach_keys: str = "",
    ) -> Hijacked:  # fmt: skip
        """Connect to the process's streams; framed unless it has a terminal."""
        query = {
            "stream": True, "stdin": stdin, "stdout": stdout, "stderr": stderr, "logs": logs,
            "detachKeys": detach_keys or None,
        }  # fmt: skip
        return self._client.hijack(f"/containers/{segment(ref)}/attach", query)

    def logs(
        self, ref: str, *, follow: bool = False, stdout: bool = True, stderr: bool = True, since: str = "",
        until: str = "", timestamps: bool = False, tail: str = "all", details: bool = False,
    ) -> Iterator[tuple[int, bytes]]:  # fmt: skip
        """Yield (stream, bytes); stream is 1 for stdout, 2 for stderr."""
        query = {
            "follow": follow, "stdout": stdout, "stderr": stderr, "since": since or None, "until": until or None,
            "timestamps": timestamps, "tail": tail, "details": details,
        }  # fmt: skip
        response = self._client.open("GET", f"/containers/{segment(ref)}/logs", query)
        with closing(response):
            framed = "multiplexed" in (response.getheader("Content-Type") or "")
            try:
                yield from pieces(response, framed=framed)
            except http.client.IncompleteRead:
                raise ProtocolError("the daemon's answer broke off") from None

    def stats(self, ref: str, *, one_shot: bool = False) -> st.ContainerStats:
        shot = "1" if one_shot else None
        query = {"stream": "0", "one-shot": shot}
        return self._client.get(st.ContainerStats, "GET", f"/containers/{segment(ref)}/stats", query)

    def stats_stream(self, ref: str) -> Iterator[st.ContainerStats]:
        """Yield a sample a second until the container is removed."""
        with closing(self._client.open("GET", f"/containers/{segment(ref)}/stats", {"stream": "1"})) as response:
            try:
                for value in json_lines(response):
                    yield msgspec.convert(value, st.ContainerStats)
            except msgspec.ValidationError as error:
                raise ProtocolError(f"stats: unexpected answer: {error}") from error
            except (http.client.HTTPException, ConnectionError) as error:
                raise ProtocolError(f"the daemon left: {error}") from error

    def update(self, ref: str, body: r.UpdateBody) -> r.Updated:
        return self._client.get(r.Updated, "POST", f"/containers/{segment(ref)}/update", body=body)

    def path_stat(self, ref: str, path: str) -> PathStat:
        """Return what a path in the container is, a link itself."""
        with self._client.open("HEAD", f"/containers/{segment(ref)}/archive", {"path": path}) as response:
            return _stat(response)

    def copy_out(self, ref: str, path: str) -> tuple[PathStat, http.client.HTTPResponse]:
        """Return what the path is, and its tar, unread; the caller closes it."""
        response = self._client.open("GET", f"/containers/{segment(ref)}/archive", {"path": path})
        try:
            return _stat(response), response
        except BaseException:
            response.close()
            raise

    def copy_in(
        self, ref: str, path: str, tar: BinaryIO | Iterable[bytes], *, keep_kinds: bool = True, as_user: bool = False
    ) -> None:
        """Unpack a tar in the folder `path`; keep_kinds: a folder is not replaced by something else, nor the reverse."""
        query = {"path": path, "noOverwriteDirNonDir": "true" if keep_kinds else "false", "copyUIDGID": as_user}
        self._client.open("PUT", f"/containers/{segment(ref)}/archive", query, tar).close()

    def export(self, ref: str) -> Iterator[bytes]:
        """Yield the tar of the root file system."""
        with closing(self._client.open("GET", f"/containers/{segment(ref)}/export")) as response:
            yield from body_of(response)

    def changes(self, ref: str) -> builtins.list[Change]:
        return self._client.get(builtins.list[Change] | None, "GET", f"/containers/{segment(ref)}/changes") or []  # type: ignore[arg-type]

    def commit(self, ref: str, options: CommitOptions = CommitOptions()) -> str:
        """Make an image of what the container changed; return its id."""
        query = {
            "container": ref, "repo": options.repo or None, "tag": options.tag or None, "comment": options.comment or None,
            "author": options.author or None, "pause": "1" if options.pause else "0", "changes": options.changes,
        }  # fmt: skip
        return self._client.get(Committed, "POST", "/commit", query, {}).id

    def explain(self, ref: str) -> s.Explanation:
        return self._client.get(s.Explanation, "GET", f"/sampan/containers/{segment(ref)}/explain")


def body_of(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body as it comes.  Raises ProtocolError when it breaks off."""
    try:
        while data := response.read1(1 << 16):  # more is memory anew for each
            yield data
    except (http.client.HTTPException, ConnectionError) as error:
        raise ProtocolError(f"the daemon's answer broke off: {error}") from None


def _stat(response: http.client.HTTPResponse) -> PathStat:
    text = response.getheader("X-Docker-Container-Path-Stat") or ""
    try:
        return msgspec.json.decode(base64.b64decode(text), type=PathStat)
    except (ValueError, msgspec.DecodeError) as error:
        raise ProtocolError(f"X-Docker-Container-Path-Stat makes no sense: {text[:80]!r}") from error
