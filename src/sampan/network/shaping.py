"""Bandwidth limits of an endpoint, on the host's end of its link, where the container cannot undo them.

    in    a token bucket on the host's end: what goes towards the container
    out   what comes from the container is led through an ifb of its own, with a token bucket on it

Asked for by endpoint options, which only whoever makes the container can give (never an image, SECURITY.md row 55):
`sampan.limit.in=10mbit`, `sampan.limit.out=5mbit`; "0" is no limit.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from sampan.errors import InvalidRequest, Unsupported
from sampan.kernel import rtnl, tc
from sampan.kernel.netlink import Request

IN, OUT = "sampan.limit.in", "sampan.limit.out"
_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9, "bps": 8, "kbps": 8 * 10**3, "mbps": 8 * 10**6, "gbps": 8 * 10**9}
LEAST, MOST = 8_000, 100 * 10**9  # bits a second
_GONE = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV})
_MTU = 1514 + 8


class Limits(NamedTuple):
    """Bits a second, 0 for none: towards the container, and from it."""

    inwards: int = 0
    outwards: int = 0


def rate(text: str) -> int:
    """Return bits a second of "10mbit", "1.5gbit", "800kbps" (bytes), "0".  Raises InvalidRequest."""
    if text in ("0", "none", ""):
        return 0
    digits = text.lower().rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text.lower()[len(digits) :]
    whole, dot, part = digits.partition(".")
    good = (
        whole.isascii()
        and whole.isdigit()
        and len(whole) < 13
        and (not dot or (part.isascii() and part.isdigit() and len(part) < 7))
    )
    if not good or unit not in _UNITS:
        raise InvalidRequest(f"invalid bandwidth {text[:32]!r}: a number and one of {', '.join(_UNITS)}")
    found = int(whole) * _UNITS[unit] + (int(part) * _UNITS[unit] // 10 ** len(part) if part else 0)
    if not LEAST <= found <= MOST:
        raise InvalidRequest(f"invalid bandwidth {text[:32]!r}: between 8kbit and 100gbit")
    return found


def limits(options: dict[str, str]) -> Limits:
    """Return the limits that an endpoint's options ask for.  Raises InvalidRequest."""
    return Limits(rate(options.get(IN, "")), rate(options.get(OUT, "")))


def ifb(veth: str) -> str:
    """Return the name of the block that belongs to a link."""
    return f"ifb{veth.removeprefix('veth')}"


def _bucket(index: int, bits: int) -> Request:
    """Twenty milliseconds at once, fifty more waiting: neither a timer's coarseness nor a full window spoils the rate."""
    size = bits // 8
    burst = max(size // 50, 4 * _MTU)
    return tc.token_bucket(index, size, burst, burst + max(size // 20, 64 * 1024))


def apply(route: rtnl.Route, veth: str, wanted: Limits) -> None:
    """Make the link's limits these, whatever they were.  Raises OSError, Unsupported without CONFIG_IFB."""
    link = route.link(veth)
    if link is None:
        raise FileNotFoundError(errno.ENODEV, "no such link", veth)
    if wanted.inwards:
        route.talk([_bucket(link.index, wanted.inwards)])
    else:
        route.talk([tc.no_bucket(link.index)], tolerate=_GONE)
    block = route.link(ifb(veth))
    if not wanted.outwards:
        route.talk([tc.no_ingress(link.index)], tolerate=_GONE)
        if block is not None:
            route.talk([rtnl.delete_link(block.name)], tolerate=_GONE)
        return
    if block is None:
        block = _block(route, link)
    route.talk([_bucket(block.index, wanted.outwards)])


def _block(route: rtnl.Route, link: rtnl.Link) -> rtnl.Link:
    """Make the link's block, and lead through it what comes in."""
    try:
        route.talk([tc.new_ifb(ifb(link.name)), rtnl.link_up(ifb(link.name))])
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise Unsupported("a limit on what a container sends needs ifb (CONFIG_IFB), which this kernel has not") from None
        raise
    block = route.link(ifb(link.name))
    if block is None:
        raise FileNotFoundError(errno.ENODEV, "no such link", ifb(link.name))
    route.talk([tc.ingress(link.index)])
    route.talk([tc.redirect(link.index, block.index)])
    return block
