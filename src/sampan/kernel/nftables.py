"""nf_tables by netlink: tables, chains, sets, maps, rules, elements; every change one atomic batch.

Numbers from include/uapi/linux/netfilter/nf_tables.h.  An expression is a row of EXPRESSIONS: its attributes by name,
with number and coding.  A rule is a list of encoded expressions, read from left to right; values travel in 32-bit
registers (reg 8 is the first), and a concatenation is registers side by side, each part padded to four bytes.

    batch = Batch("sampan_sampan0")
    batch.chain("output", Hook("nat", LOCAL_OUT, -100))
    batch.rule("output", [*match_meta("oifname", "eth0"), expression("masq")])
    Nftables().commit(batch)                         # all of it, or OSError and nothing of it
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sampan.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    Answer,
    Netlink,
    Request,
    attribute,
    attributes,
    be32,
    nest,
    text,
)

SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
GROUP = 7  # NFNLGRP_NFTABLES: notices of every change
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE = range(9)
NEWSET, GETSET, DELSET, NEWSETELEM, GETSETELEM, DELSETELEM = range(9, 15)

PRE_ROUTING, LOCAL_IN, FORWARD, LOCAL_OUT, POST_ROUTING = range(5)
DROP, ACCEPT, JUMP, RETURN = 0, 1, -3, -5
EQ, NEQ, LT, LTE, GT, GTE = range(6)
REG_VERDICT, REG = 0, 8  # NFT_REG_VERDICT, NFT_REG32_00
INET, IPV4, BRIDGE, IPV6 = 1, 2, 7, 10  # NFPROTO_*
CT_DNAT = 1 << 5  # IPS_DST_NAT, nf_conntrack_common.h
CT_ESTABLISHED, CT_RELATED = 2, 4  # NF_CT_STATE_BIT
LOCAL = 2  # RTN_LOCAL

_SET_INTERVAL, _SET_MAP = 4, 8
# Types as nft(8) numbers them (for listing; the kernel only compares lengths): (number, bytes).
_TYPES = {"verdict": (1, 4), "ipv4_addr": (7, 4), "inet_proto": (12, 1), "inet_service": (13, 2), "mark": (19, 4),
          "ifname": (41, 16), "ipv6_addr": (8, 16), "ether_addr": (9, 6)}  # fmt: skip
_META = {"mark": 3, "iif": 4, "oif": 5, "iifname": 6, "oifname": 7, "l4proto": 16}
_CT = {"state": 0, "status": 2, "mark": 3}
_ELEMENTS_PER_MESSAGE = 900  # some 60 bytes each, far from the 65531 of one attribute


def _u32(number: int, value: int) -> bytes:
    return be32(number, value & 0xFFFFFFFF)


def _data(number: int, value: bytes) -> bytes:
    return nest(number, attribute(1, value))  # NFTA_DATA_VALUE


def _verdict(number: int, value: tuple[int, str]) -> bytes:
    code, chain = value
    return nest(number, nest(2, _u32(1, code), text(2, chain) if chain else b""))  # NFTA_DATA_VERDICT


def _be64(number: int, value: int) -> bytes:
    return attribute(number, struct.pack(">Q", value))


_Coding = Callable[[int, Any], bytes]  # each coding takes the one kind of value that its attribute has
_NUMBER, _TEXT, _DATA, _VERDICT = (_u32, text, _data, _verdict)

EXPRESSIONS: dict[str, dict[str, tuple[int, _Coding]]] = {
    "immediate": {"dreg": (1, _NUMBER), "data": (2, _DATA), "verdict": (2, _VERDICT)},
    "cmp": {"sreg": (1, _NUMBER), "op": (2, _NUMBER), "data": (3, _DATA)},
    "bitwise": {
        "sreg": (1, _NUMBER),
        "dreg": (2, _NUMBER),
        "len": (3, _NUMBER),
        "mask": (4, _DATA),
        "xor": (5, _DATA),
    },
    "lookup": {"set": (1, _TEXT), "sreg": (2, _NUMBER), "dreg": (3, _NUMBER), "flags": (5, _NUMBER)},
    "payload": {"dreg": (1, _NUMBER), "base": (2, _NUMBER), "offset": (3, _NUMBER), "len": (4, _NUMBER)},
    "meta": {"dreg": (1, _NUMBER), "key": (2, _NUMBER), "sreg": (3, _NUMBER)},
    "ct": {"dreg": (1, _NUMBER), "key": (2, _NUMBER)},
    "fib": {"dreg": (1, _NUMBER), "result": (2, _NUMBER), "flags": (3, _NUMBER)},
    "nat": {"type": (1, _NUMBER), "family": (2, _NUMBER), "addr": (3, _NUMBER), "proto": (5, _NUMBER)},
    "masq": {},
    "notrack": {},
    "counter": {"bytes": (1, _be64), "packets": (2, _be64)},
}


def expression(name: str, **values: int | bytes | str | tuple[int, str]) -> bytes:
    """Return one encoded expression.  KeyError for a name or attribute that is not in EXPRESSIONS."""
    table = EXPRESSIONS[name]
    coded = [table[key][1](table[key][0], value) for key, value in values.items()]
    return nest(1, text(1, name), nest(2, *coded))  # NFTA_LIST_ELEM


def ifname(name: str) -> bytes:
    """Return an interface name as the kernel compares it: sixteen bytes."""
    return name.encode().ljust(16, b"\0")


def load_meta(key: str, reg: int = REG) -> bytes:
    """meta KEY into a register."""
    return expression("meta", dreg=reg, key=_META[key])


def match_meta(key: str, value: str, op: int = EQ) -> list[bytes]:
    """iifname or oifname is (not) `value`."""
    return [load_meta(key), expression("cmp", sreg=REG, op=op, data=ifname(value))]


def load(base: int, offset: int, size: int, reg: int = REG) -> bytes:
    """Bytes of a header into registers; base 0 is the link's, 1 the network's, 2 the transport's."""
    return expression("payload", dreg=reg, base=base, offset=offset, len=size)


def load_dport(reg: int = REG) -> bytes:
    """The transport's destination port (tcp, udp, sctp alike) into a register."""
    return load(2, 2, 2, reg)


def match_bytes(loaded: bytes, value: bytes, op: int = EQ) -> list[bytes]:
    """What `loaded` put into the first register is (not) `value`."""
    return [loaded, expression("cmp", sreg=REG, op=op, data=value)]


def match_prefix(loaded: bytes, network: tuple[bytes, int], op: int = EQ) -> list[bytes]:
    """The address that `loaded` put into the first registers is (not) within (address, prefix length)."""
    address, prefix = network
    bits = len(address) * 8
    compared = expression("cmp", sreg=REG, op=op, data=address)
    if prefix == bits:
        return [loaded, compared]
    mask = ((1 << bits) - (1 << bits - prefix)).to_bytes(len(address), "big")
    masked = expression("bitwise", sreg=REG, dreg=REG, len=len(address), mask=mask, xor=bytes(len(address)))
    return [loaded, masked, compared]


def in_set(name: str, *loaded: bytes, inverted: bool = False) -> list[bytes]:
    """What `loaded` put into the registers, side by side, is (not) an element of the set."""
    found = expression("lookup", set=name, sreg=REG, flags=1) if inverted else expression("lookup", set=name, sreg=REG)
    return [*loaded, found]


def match_ct(key: str, bits: int) -> list[bytes]:
    """Any of `bits` is set in ct state or ct status."""
    mask = struct.pack("=I", bits)
    return [
        expression("ct", dreg=REG, key=_CT[key]),
        expression("bitwise", sreg=REG, dreg=REG, len=4, mask=mask, xor=bytes(4)),
        expression("cmp", sreg=REG, op=NEQ, data=bytes(4)),
    ]


def match_local_daddr(reg: int = REG) -> list[bytes]:
    """fib daddr type local: the packet is for one of the host's own addresses.  Needs the register `reg`."""
    return [
        expression("fib", dreg=reg, result=3, flags=2),
        expression("cmp", sreg=reg, op=EQ, data=struct.pack("=I", LOCAL)),
    ]


def verdict(code: int, chain: str = "") -> bytes:
    """DROP, ACCEPT, RETURN, or JUMP to a chain."""
    return expression("immediate", dreg=REG_VERDICT, verdict=(code, chain))


class Hook(NamedTuple):
    """Where a base chain hangs: its type ("filter", "nat"), hook, priority."""

    kind: str
    hook: int
    priority: int


class Set(NamedTuple):
    """A set (data empty) or a map.  key and data name types; several are a concatenation."""

    name: str
    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    interval: bool = False


def _concat(types: tuple[str, ...]) -> tuple[int, int]:
    number = size = 0
    for name in types:
        kind, width = _TYPES[name]
        number = number << 6 | kind
        size += width if len(types) == 1 else (width + 3) & ~3
    return number, size


def concatenation(*parts: bytes) -> bytes:
    """Return parts side by side, each padded to four bytes, as a concatenated key or value."""
    return b"".join(part + bytes(-len(part) & 3) for part in parts)


class Batch:
    """Changes to one table, applied together by `Nftables.commit`."""

    def __init__(self, table: str, family: int = IPV4) -> None:
        self.table = table
        self._head = struct.pack(">BBH", family, 0, 0)
        self._table = text(1, table)  # NFTA_*_TABLE and NFTA_TABLE_NAME are all 1
        self._sets = 0
        self.requests: list[Request] = []

    def _add(self, kind: int, flags: int, payload: bytes, subject: str) -> None:
        self.requests.append(Request(SUBSYSTEM << 8 | kind, flags, self._head + payload, f"nft {subject}"))

    def add_table(self) -> None:
        """Make the table; it may exist."""
        self._add(NEWTABLE, NLM_F_CREATE, self._table + be32(2, 0), self.table)

    def delete_table(self) -> None:
        """Delete the table with all it holds; ENOENT when it does not exist."""
        self._add(DELTABLE, 0, self._table, self.table)

    def chain(self, name: str, hook: Hook | None = None, policy: int = ACCEPT) -> None:
        """Make a chain, a base chain when it has a hook."""
        payload = self._table + text(3, name)
        if hook is not None:
            payload += nest(4, _u32(1, hook.hook), _u32(2, hook.priority)) + be32(5, policy) + text(7, hook.kind)
        self._add(NEWCHAIN, NLM_F_CREATE, payload, f"chain {name}")

    def set(self, wanted: Set) -> None:
        """Make a set or map."""
        self._sets += 1
        key, key_size = _concat(wanted.key)
        flags = (_SET_MAP if wanted.data else 0) | (_SET_INTERVAL if wanted.interval else 0)
        payload = self._table + text(2, wanted.name) + be32(3, flags) + be32(4, key) + be32(5, key_size)
        if wanted.data == ("verdict",):
            payload += be32(6, 0xFFFFFF00)  # NFT_DATA_VERDICT
        elif wanted.data:
            data, data_size = _concat(wanted.data)
            payload += be32(6, data) + be32(7, data_size)
        payload += be32(10, self._sets)
        if wanted.key == ("ifname",):  # NFTA_SET_USERDATA: nft(8) then lists the keys in the host's byte order
            payload += attribute(13, b"\x00\x04" + struct.pack("=I", 1))
        self._add(NEWSET, NLM_F_CREATE, payload, f"set {wanted.name}")

    def rule(self, chain: str, expressions: Iterable[bytes], comment: str = "") -> None:
        """Append a rule."""
        payload = self._table + text(2, chain) + nest(4, *expressions)
        if comment:
            payload += attribute(7, _comment(comment))
        self._add(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, payload, f"rule in {chain}")

    def delete_rule(self, chain: str, handle: int) -> None:
        """Delete a rule; ENOENT when it is gone."""
        self._add(DELRULE, 0, self._table + text(2, chain) + _be64(3, handle), f"rule of {chain}")

    def add_elements(self, name: str, elements: Iterable[tuple[bytes, bytes | tuple[int, str] | None]]) -> None:
        """Add (key, data) pairs; data is None in a set, (code, chain) in a verdict map.  EEXIST on another's key."""
        coded = []
        for key, data in elements:
            inner = _data(1, key)
            if isinstance(data, tuple):
                inner += _verdict(2, data)
            elif data is not None:
                inner += _data(2, data)
            coded.append(nest(1, inner))
        self._elements(NEWSETELEM, NLM_F_CREATE, name, coded)

    def delete_elements(self, name: str, keys: Iterable[bytes]) -> None:
        """Delete elements; ENOENT when one is not there."""
        self._elements(DELSETELEM, 0, name, [nest(1, _data(1, key)) for key in keys])

    def _elements(self, kind: int, flags: int, name: str, coded: Sequence[bytes]) -> None:
        for start in range(0, len(coded), _ELEMENTS_PER_MESSAGE):
            part = coded[start : start + _ELEMENTS_PER_MESSAGE]
            self._add(kind, flags, self._table + text(2, name) + nest(3, *part), f"elements of {name}")


def _comment(words: str) -> bytes:
    """NFTA_RULE_USERDATA as nft(8) and iptables(8) write comments: a type, a length, a string with its NUL."""
    return bytes([0, len(words) + 1]) + words.encode() + b"\0"


def _words(data: bytes) -> str:
    """Return the comment that NFTA_RULE_USERDATA begins with, "" for none."""
    comment = data[2:].rstrip(b"\0") if data[:1] == b"\0" and len(data) == data[1] + 2 else b""
    return comment.decode(errors="replace")


class Chain(NamedTuple):
    """A chain that exists: hook and policy are -1 when it is not a base chain."""

    family: int
    table: str
    name: str
    hook: int
    policy: int


class Rule(NamedTuple):
    """A rule that exists; compared: the interface name that its first comparison is with ("": none)."""

    handle: int
    comment: str
    compared: str


def rule_chain_of(answer: Answer) -> str:
    """Return the name of the chain that a notice of a rule is about."""
    return dict(attributes(answer.payload, 4)).get(2, b"").rstrip(b"\0").decode(errors="replace")


def table_of(answer: Answer) -> str:
    """Return the table's name that a notice is about ("" when it is about none)."""
    if answer.kind >> 8 != SUBSYSTEM:
        return ""
    return dict(attributes(answer.payload, 4)).get(1, b"").rstrip(b"\0").decode(errors="replace")


def _compared(rule: bytes) -> str:
    for _, one in attributes(rule):
        parts = dict(attributes(one))
        if parts.get(1, b"") == b"cmp\0":
            data = dict(attributes(dict(attributes(parts.get(2, b""))).get(3, b""))).get(1, b"")
            return data.rstrip(b"\0").decode(errors="replace")
    return ""


class Nftables(Netlink):
    """A NETLINK_NETFILTER socket of the namespace in which it was made."""

    def __init__(self, *, watch: bool = False) -> None:
        super().__init__(NETLINK_NETFILTER, groups=(GROUP,) if watch else ())
        self.roomy()

    def commit(self, *batches: Batch) -> None:
        """Apply all of `batches` in one transaction of the kernel, or raise OSError and change nothing."""
        requests = [request for batch in batches for request in batch.requests]
        if not requests:
            return
        mark = struct.pack(">BBH", 0, 0, SUBSYSTEM)
        requests[-1] = requests[-1]._replace(flags=requests[-1].flags | NLM_F_ACK)
        begin = Request(_BATCH_BEGIN, 0, mark, f"nft {batches[0].table}")
        self.talk([begin, *requests, Request(_BATCH_END, 0, mark)])

    def _dump(self, kind: int, family: int, payload: bytes = b"") -> list[Answer]:
        head = struct.pack(">BBH", family, 0, 0)
        return self.talk([Request(SUBSYSTEM << 8 | kind, NLM_F_DUMP, head + payload, "nft list")])

    def tables(self, family: int = IPV4) -> list[str]:
        """Return the names of the tables of a family."""
        return [table_of(answer) for answer in self._dump(GETTABLE, family)]

    def chains(self) -> list[Chain]:
        """Return every chain of every family."""
        result = []
        for answer in self._dump(GETCHAIN, 0):
            found = dict(attributes(answer.payload, 4))
            hook = dict(attributes(found.get(4, b"")))
            result.append(Chain(
                family=answer.payload[0],
                table=found.get(1, b"").rstrip(b"\0").decode(errors="replace"),
                name=found.get(3, b"").rstrip(b"\0").decode(errors="replace"),
                hook=int.from_bytes(hook[1], "big") if 1 in hook else -1,
                policy=int.from_bytes(found[5], "big") if 5 in found else -1,
            ))  # fmt: skip
        return result

    def rules(self, family: int, table: str, chain: str) -> list[Rule]:
        """Return the rules of a chain, in order."""
        made = []
        for answer in self._dump(GETRULE, family, text(1, table) + text(2, chain)):
            found = dict(attributes(answer.payload, 4))
            made.append(Rule(int.from_bytes(found[3], "big"), _words(found.get(7, b"")), _compared(found.get(4, b""))))
        return made

    def elements(self, table: str, name: str, family: int = IPV4) -> dict[bytes, bytes]:
        """Return a set's or map's elements (data b"" in a set).  FileNotFoundError when it does not exist."""
        result = {}
        for answer in self._dump(GETSETELEM, family, text(1, table) + text(2, name)):
            for _, element in attributes(dict(attributes(answer.payload, 4)).get(3, b"")):
                inner = dict(attributes(element))
                key, data = (dict(attributes(inner.get(n, b""))).get(1, b"") for n in (1, 2))
                result[key] = data
        return result

    def has_table(self, table: str, family: int = IPV4) -> bool:
        """Return whether the table exists."""
        head = struct.pack(">BBH", family, 0, 0)
        ask = Request(SUBSYSTEM << 8 | GETTABLE, 0, head + text(1, table), f"nft {table}")
        return bool(self.talk([ask], tolerate=frozenset({errno.ENOENT})))
