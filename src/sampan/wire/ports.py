"""Published ports (engine-api 4.11)."""

from __future__ import annotations

from sampan.wire.shape import Shape


class PortBinding(Shape, frozen=True, kw_only=True):
    host_ip: str = ""
    host_port: str = ""


PortMap = dict[str, list[PortBinding] | None]
