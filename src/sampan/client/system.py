"""The daemon itself: version, info, events, and what Sampan adds: jobs, doctor."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing

import msgspec

from sampan.client.api import Client, Filters, filters
from sampan.client.errors import ProtocolError
from sampan.client.stream import json_lines
from sampan.wire import system as s
from sampan.wire import usage as u


class System:
    def __init__(self, client: Client) -> None:
        self._client = client

    def ping(self) -> None:
        self._client.raw("GET", "/_ping")

    def version(self) -> s.Version:
        return self._client.get(s.Version, "GET", "/version")

    def info(self) -> s.Info:
        return self._client.get(s.Info, "GET", "/info")

    def jobs(self, *, all: bool = False) -> list[s.Job]:
        return self._client.get(list[s.Job], "GET", "/sampan/jobs", {"all": all})

    def doctor(self) -> list[s.Finding]:
        return self._client.get(list[s.Finding], "GET", "/sampan/doctor")

    def check(self, *, repair: bool = False) -> list[s.Finding]:
        """Look at every blob, layer and record of the images; with `repair`, mend what is broken."""
        return self._client.get(list[s.Finding], "POST", "/sampan/system/check", {"repair": repair})

    def usage(self) -> u.DiskUsage:
        return self._client.get(u.DiskUsage, "GET", "/system/df")

    def events(self, *, since: str = "", until: str = "", wanted: Filters | None = None) -> Iterator[s.EventMessage]:
        """Yield events as they happen; with `until` those before it.  Times are seconds since the epoch."""
        query = {"since": since or None, "until": until or None, "filters": filters(wanted)}
        with closing(self._client.open("GET", "/events", query)) as response:
            try:
                for value in json_lines(response):
                    yield msgspec.convert(value, s.EventMessage)
            except msgspec.ValidationError as error:
                raise ProtocolError(f"events: unexpected answer: {error}") from error
            except (http.client.HTTPException, ConnectionError) as error:
                raise ProtocolError(f"the daemon left: {error}") from error
