"""Volumes of a daemon."""

from __future__ import annotations

import builtins
from typing import Any

from sampan.client.api import Client, Filters, filters, segment
from sampan.wire import volumes as v


class Volumes:
    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, body: v.CreateBody) -> v.Volume:
        return self._client.get(v.Volume, "POST", "/volumes/create", body=body)

    def list(self, wanted: Filters | None = None) -> builtins.list[v.Volume]:
        return self._client.get(v.VolumeList, "GET", "/volumes", {"filters": filters(wanted)}).volumes or []

    def inspect(self, name: str) -> v.Volume:
        return self._client.get(v.Volume, "GET", f"/volumes/{segment(name)}")

    def inspect_json(self, name: str) -> Any:
        return self._client.json("GET", f"/volumes/{segment(name)}")

    def remove(self, name: str, *, force: bool = False) -> None:
        self._client.raw("DELETE", f"/volumes/{segment(name)}", {"force": force})

    def prune(self, wanted: Filters | None = None) -> v.PruneResult:
        return self._client.get(v.PruneResult, "POST", "/volumes/prune", {"filters": filters(wanted)})
