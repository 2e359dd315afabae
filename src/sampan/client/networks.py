"""Networks of a daemon."""

from __future__ import annotations

import builtins
from typing import Any

import msgspec

from sampan.client.api import Client, Filters, filters, segment
from sampan.wire import networks as n


class Networks:
    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, wanted: Filters | None = None) -> builtins.list[n.Network]:
        return self._client.get(builtins.list[n.Network], "GET", "/networks", {"filters": filters(wanted)})

    def inspect(self, ref: str) -> n.Network:
        return self._client.get(n.Network, "GET", f"/networks/{segment(ref)}")

    def inspect_json(self, ref: str, *, verbose: bool = False) -> Any:
        return self._client.json("GET", f"/networks/{segment(ref)}", {"verbose": "true" if verbose else None})

    def create(self, body: n.NetworkCreate) -> n.NetworkCreated:
        return self._client.get(n.NetworkCreated, "POST", "/networks/create", body=body)

    def remove(self, ref: str) -> None:
        self._client.raw("DELETE", f"/networks/{segment(ref)}")

    def connect(self, ref: str, body: n.NetworkConnect) -> None:
        self._client.raw("POST", f"/networks/{segment(ref)}/connect", body=msgspec.json.encode(body))

    def disconnect(self, ref: str, container: str, *, force: bool = False) -> None:
        body = n.NetworkDisconnect(container=container, force=force)
        self._client.raw("POST", f"/networks/{segment(ref)}/disconnect", body=msgspec.json.encode(body))

    def audit(self) -> builtins.list[n.Reach]:
        return self._client.get(builtins.list[n.Reach], "GET", "/sampan/networks/audit")

    def repair(self) -> n.Repaired:
        return self._client.get(n.Repaired, "POST", "/sampan/networks/repair")

    def prune(self, wanted: Filters | None = None) -> n.NetworksPruned:
        return self._client.get(n.NetworksPruned, "POST", "/networks/prune", {"filters": filters(wanted)})
