"""-p and --expose: docker's spellings of ports."""

from __future__ import annotations

import ipaddress

from sampan.cli.main import Exit
from sampan.wire.containers import PortBinding

PROTOCOLS = ("tcp", "udp", "sctp")
Bindings = dict[str, list[PortBinding] | None]


def _span(text: str, whole: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    last = last or first
    for one in (first, last):
        if not (one.isascii() and one.isdigit()) or len(one) > 5 or int(one) > 65535:
            raise Exit(125, f"invalid port: {whole}: {one or 'empty'}")
    if int(last) < int(first):
        raise Exit(125, f"invalid range: {whole}")
    return int(first), int(last)


def _protocol(text: str) -> tuple[str, str]:
    port, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise Exit(125, f"invalid proto: {protocol}")
    return port, protocol


def expose(text: str) -> list[str]:
    """`80`, `80/udp`, `8000-8010/tcp` as ports of their own.  Raises Exit."""
    port, protocol = _protocol(text)
    first, last = _span(port, text)
    return [f"{number}/{protocol}" for number in range(first, last + 1)]


def publish(text: str) -> Bindings:
    """`[[IP:]HOST:]CONTAINER[/PROTO]`, ranges allowed.  Raises Exit."""
    rest, protocol = _protocol(text)
    ip = ""
    if rest.startswith("["):
        ip, closing, rest = rest[1:].partition("]:")
        if not closing:
            raise Exit(125, f"invalid hostPort: {text}")
    parts = rest.split(":")
    if len(parts) > 3 or (ip and len(parts) > 2):
        raise Exit(125, f"invalid hostPort: {text}")
    inner = parts[-1]
    outer = parts[-2] if len(parts) > 1 else ""
    if len(parts) == 3:
        ip = parts[0]
    if ip:
        try:
            ipaddress.ip_address(ip)
        except ValueError:
            raise Exit(125, f"invalid IP address: {ip}") from None
    if not inner:
        raise Exit(125, f"no port specified: {text}<empty>")
    first, last = _span(inner, text)
    made: Bindings = {}
    if not outer:
        for number in range(first, last + 1):
            made[f"{number}/{protocol}"] = [PortBinding(host_ip=ip)]
        return made
    low, high = _span(outer, text)
    if first == last and high > low:  # any one of the range
        return {f"{first}/{protocol}": [PortBinding(host_ip=ip, host_port=outer)]}
    if high - low != last - first:
        raise Exit(125, f"invalid ranges specified for container and host Ports: {inner} and {outer}")
    for number in range(first, last + 1):
        made[f"{number}/{protocol}"] = [PortBinding(host_ip=ip, host_port=str(low + number - first))]
    return made


def merged(texts: list[str]) -> Bindings:
    made: dict[str, list[PortBinding]] = {}
    for text in texts:
        for port, bound in publish(text).items():
            made.setdefault(port, []).extend(bound or ())
    return dict(made)
