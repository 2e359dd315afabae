"""Networks of a daemon."""

from __future__ import annotations

import builtins
from typing import Any

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
