"""Drivers that make nothing: host and none."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.errors import Forbidden, InvalidRequest
from sampan.network.host import Host
from sampan.network.records import Endpoint, NetworkInfo


class Plain:
    """The networks `host` and `none`: records, so that containers can be told to be there; nothing is ever attached."""

    addresses = False
    publishes = False
    macs = False

    def __init__(self, host: Host) -> None:
        del host

    def check(self, info: NetworkInfo) -> NetworkInfo:
        if not info.predefined:
            raise Forbidden(f'only one instance of "{info.driver}" network is allowed')
        return info

    def mac(self, info: NetworkInfo) -> str:
        return ""

    def create(self, info: NetworkInfo) -> None:
        pass

    def remove(self, info: NetworkInfo) -> None:
        pass

    def attach(self, info: NetworkInfo, endpoint: Endpoint, netns_fd: int, routes: frozenset[int]) -> None:
        raise InvalidRequest(f"network {info.name} gives no addresses")

    def limit(self, endpoint: Endpoint) -> None:
        pass

    def detach(self, info: NetworkInfo, endpoint: Endpoint) -> None:
        pass

    def leave(self, info: NetworkInfo, endpoint: Endpoint, netns_fd: int) -> None:
        pass

    def repair(self, info: NetworkInfo, endpoints: Sequence[Endpoint]) -> bool:
        return False

    def present(self, endpoint: Endpoint) -> bool:
        return True
