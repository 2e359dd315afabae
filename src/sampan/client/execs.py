"""Processes added to running containers."""

from __future__ import annotations

from sampan.client.api import Client, segment
from sampan.client.connect import Hijacked
from sampan.wire import execs as c


class Execs:
    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, container: str, body: c.ExecCreate) -> str:
        """Return the new exec's id."""
        made = self._client.get(c.ExecCreated, "POST", f"/containers/{segment(container)}/exec", None, body)
        return made.id

    def start(self, exec_id: str, body: c.ExecStart) -> Hijacked:
        """Start it with its streams connected."""
        return self._client.hijack(f"/exec/{segment(exec_id)}/start", None, body)

    def start_detached(self, exec_id: str, *, tty: bool = False) -> None:
        import msgspec

        body = msgspec.json.encode(c.ExecStart(detach=True, tty=tty))
        self._client.raw("POST", f"/exec/{segment(exec_id)}/start", None, body)

    def resize(self, exec_id: str, *, height: int, width: int) -> None:
        self._client.raw("POST", f"/exec/{segment(exec_id)}/resize", {"h": height, "w": width})

    def inspect(self, exec_id: str) -> c.ExecInspect:
        return self._client.get(c.ExecInspect, "GET", f"/exec/{segment(exec_id)}/json")
