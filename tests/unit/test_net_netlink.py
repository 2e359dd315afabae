"""Netlink messages: lengths that cannot wrap, bytes that cannot be overrun."""

from __future__ import annotations

import errno
import struct

import pytest

from sampan.kernel import netlink, rtnl
from sampan.kernel.nftables import Batch, concatenation


def test_p22_an_attribute_longer_than_65531_bytes_is_refused() -> None:
    assert netlink.attribute(1, bytes(65531))[:2] == b"\xff\xff"
    for make in (
        lambda: netlink.attribute(1, bytes(65532)),
        lambda: netlink.nest(1, netlink.attribute(1, bytes(65528))),
        lambda: Batch("a" * 70_000),
        lambda: Batch("a").chain("b" * 70_000),
    ):
        with pytest.raises(OSError, match="at most 65531") as caught:
            make()
        assert caught.value.errno == errno.EMSGSIZE


def test_p22_lists_longer_than_an_attribute_are_split() -> None:
    batch = Batch("a")
    batch.add_elements("s", [(n.to_bytes(8, "big"), bytes(8)) for n in range(5000)])

    assert len(batch.requests) == 6
    assert all(len(request.payload) < 65536 for request in batch.requests)


@pytest.mark.parametrize("data", [b"\1", b"\3\0\1\0", b"\xff\0\1\0ab", b"\0\0\0\0"])
def test_p22_attributes_that_claim_more_than_there_is_are_not_read(data: bytes) -> None:
    assert list(netlink.attributes(data)) == []


@pytest.mark.parametrize("size", [0, 15, 17, 0xFFFFFFFF])
def test_p22_messages_that_claim_more_than_there_is_are_not_read(size: int) -> None:
    assert list(netlink.messages(struct.pack("=IHHII", size, 2, 0, 1, 0))) == []


def test_attributes_are_padded_and_read_back() -> None:
    data = netlink.text(3, "eth0") + netlink.nest(18, netlink.u32(4, 1500))
    name, info = netlink.attributes(data)

    assert data.hex() == "0900030065746830000000000c001280" + "08000400dc050000"
    assert name == (3, b"eth0\0")
    assert list(netlink.attributes(info[1])) == [(4, struct.pack("=I", 1500))]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a:b", "a" * 16, "a\n", "é"])
def test_interface_names_that_the_kernel_refuses_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="invalid interface name"):
        rtnl.check_name(name)


@pytest.mark.parametrize("mac", ["", "02:42", "02:42:0a:d5:00:0g", "02420ad50001", "02:42:0a:d5:00:01:02"])
def test_bad_macs_are_refused(mac: str) -> None:
    with pytest.raises(ValueError, match="MAC|hexadecimal"):
        rtnl.mac_bytes(mac)


def test_a_failure_tells_the_kernels_own_words() -> None:
    words = netlink.text(1, "what it said")
    payload = struct.pack("=i", -errno.EINVAL) + struct.pack("=IHHII", 16, 16, 5, 1, 0) + words
    error = netlink.failure(payload, 0x300, "veth1")

    assert error is not None
    assert (error.errno, error.filename) == (errno.EINVAL, "veth1")
    assert "what it said" in str(error)


def test_concatenated_parts_are_padded() -> None:
    assert concatenation(b"\6", b"\x1f\x90") == b"\6\0\0\0\x1f\x90\0\0"
