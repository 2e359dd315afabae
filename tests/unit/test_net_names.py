"""Files with names in them, from words that were checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.errors import InvalidRequest
from sampan.network import names
from sampan.network.names import Resolver

EVIL = ("a\n1.2.3.4 bank", "a b", "a\tb", "", "-a", "a-", "a..b", "a" * 64, "é", "a\0b", "a#b", "a/b")


@pytest.mark.parametrize("word", EVIL)
def test_row_84_a_bad_hostname_is_refused(word: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid hostname"):
        names.hostname_file(word)


@pytest.mark.parametrize("word", [w for w in EVIL if w])
def test_row_84_bad_domains_searches_and_extra_hosts_are_refused(word: str) -> None:
    for check, value in (
        (names.check_domainname, word),
        (names.check_search, word),
        (names.extra_host, f"{word}:1.2.3.4"),
        (names.extra_host, f"name:{word}"),
    ):
        with pytest.raises(InvalidRequest):
            check(value)


@pytest.mark.parametrize("word", ["1.2.3.4\n", "fe80::1%eth0\nx", "1.2.3", "", "localhost"])
def test_row_84_a_bad_server_is_refused(word: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid IP address"):
        names.resolv_file(Resolver(), Resolver(servers=(word,)))


def test_row_84_a_bad_option_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="invalid DNS option"):
        names.resolv_file(Resolver(), Resolver(options=("ndots:1\nnameserver 6.6.6.6",)))


def test_a_hosts_file_is_dockers() -> None:
    made = names.hosts_file(
        "web", "example.org", ["172.17.0.2"], ["db:10.0.0.5", "up:host-gateway", "six:[2001:db8::1]"], gateway="172.17.0.1"
    )

    assert made.decode() == (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::\tip6-localnet\n"
        "ff00::\tip6-mcastprefix\n"
        "ff02::1\tip6-allnodes\n"
        "ff02::2\tip6-allrouters\n"
        "10.0.0.5\tdb\n"
        "172.17.0.1\tup\n"
        "2001:db8::1\tsix\n"
        "172.17.0.2\tweb.example.org web\n"
    )


def test_a_hosts_file_without_ipv6_or_network_is_short() -> None:
    assert names.hosts_file("web", ipv6=False) == b"127.0.0.1\tlocalhost\n"


def test_host_gateway_without_a_gateway_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="host-gateway"):
        names.hosts_file("web", extra=["up:host-gateway"])


@pytest.mark.parametrize(
    ("host", "wanted", "lines"),
    [
        (Resolver(("127.0.0.1", "9.9.9.9", "::1", "2001:db8::1")), Resolver(), ["nameserver 9.9.9.9"]),
        (Resolver(("127.0.0.53",)), Resolver(), ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]),
        (
            Resolver(("9.9.9.9",), ("corp.example",), ("ndots:2",)),
            Resolver(),
            ["nameserver 9.9.9.9", "search corp.example", "options ndots:2"],
        ),
        (
            Resolver(("9.9.9.9",), ("corp.example",), ("ndots:2",)),
            Resolver(("127.0.0.1",), (".",), ("rotate",)),
            ["nameserver 127.0.0.1", "options rotate"],
        ),
    ],
)
def test_resolv_conf_is_the_hosts_less_loopback_or_what_was_asked(host: Resolver, wanted: Resolver, lines: list[str]) -> None:
    made = names.resolv_file(host, wanted).decode().splitlines()

    assert [line for line in made if not line.startswith("#")] == lines


def test_behind_systemds_stub_the_real_servers_are_used(tmp_path: Path) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\n")
    real.write_text("# c\nnameserver 9.9.9.9\nsearch a b\n")

    assert names.host_resolver(stub, real) == Resolver(("9.9.9.9",), ("a", "b"))
    assert names.host_resolver(tmp_path / "none", real) == Resolver()
