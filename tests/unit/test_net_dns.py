"""Names: questions, answers and the table, without a socket."""

from __future__ import annotations

import os
import random

import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import pytest

from sampan.network.dns import message as m
from sampan.network.dns.table import Names, Place
from sampan.network.dns.upstream import Upstreams, valid


def question(name: str, kind: str = "A", **more: int) -> m.Question:
    return m.Question(dns.message.make_query(name, kind, **more).to_wire())


def answered(asked: m.Question, records: list[bytes] | None, **more: int) -> dns.message.Message:
    assert records is not None
    return dns.message.from_wire(m.answer(asked, records, **more))


def place(number: int, *names: str, network: str = "n1", container: str = "", internal: bool = False, **more: object) -> Place:
    values = {
        "id": f"e{number}", "container": container or f"c{number}", "network": network, "label": f"net-{network}",
        "internal": internal, "ip": f"10.0.0.{number}", "ip6": "", "names": names, "links": {}, **more,
    }  # fmt: skip
    return Place(**values)  # type: ignore[arg-type]


def addresses(names: Names, container: str, name: str, kind: str = "A") -> set[str] | None:
    asked = question(name, kind)
    records = names.lookup(container, asked)
    return None if records is None else {item.to_text() for rrset in answered(asked, records).answer for item in rrset}


@pytest.fixture
def names() -> Names:
    made = Names()
    made.put(place(2, "web", "www", "both"))
    made.put(place(3, "db", "both", ip6="fd00::3"))
    made.put(place(4, "other", "web", network="n2"))
    made.put(place(5, "linked", container="c2", network="n3", ip="10.3.0.5", links={"store": "far"}))
    made.put(place(6, "far", network="n3", ip="10.3.0.6", internal=True))
    return made


def test_names_aliases_and_qualified_names_are_answered(names: Names) -> None:
    for name in ("web", "WWW", "web.net-n1", "Web.NET-n1."):
        assert addresses(names, "c3", name) == {"10.0.0.2"}
    assert addresses(names, "c2", "db", "AAAA") == {"fd00::3"}


def test_a_known_name_without_such_an_address_is_an_empty_answer_and_not_forwarded(names: Names) -> None:
    assert addresses(names, "c3", "web", "AAAA") == set()
    assert addresses(names, "c3", "web", "MX") == set()


def test_no_networks_names_leak_into_another(names: Names) -> None:
    assert addresses(names, "c4", "db") is None
    assert addresses(names, "c4", "web") == {"10.0.0.4"}
    assert addresses(names, "c4", "2.0.0.10.in-addr.arpa", "PTR") is None
    assert addresses(names, "nobody", "web") is None


def test_a_name_of_several_is_answered_in_turns(names: Names) -> None:
    asked = question("both")
    first = [answered(asked, names.lookup("c2", asked)).answer[0][0].to_text() for _ in range(4)]

    assert addresses(names, "c2", "both") == {"10.0.0.2", "10.0.0.3"}
    assert set(first) == {"10.0.0.2", "10.0.0.3"}


def test_links_are_the_containers_own_and_addresses_have_names(names: Names) -> None:
    assert addresses(names, "c2", "store") == {"10.3.0.6"}
    assert addresses(names, "c6", "store") is None
    assert addresses(names, "c2", "2.0.0.10.in-addr.arpa", "PTR") == {"web.net-n1."}
    assert addresses(names, "c2", dns.reversename.from_address("fd00::3").to_text(), "PTR") == {"db.net-n1."}


def test_row_76_only_a_container_with_a_network_that_is_not_internal_may_ask_further(names: Names) -> None:
    assert names.forwards("c2") and not names.forwards("c6") and not names.forwards("nobody")


def test_what_is_dropped_is_not_known_any_more(names: Names) -> None:
    names.drop("e3")
    names.drop("e3")

    assert addresses(names, "c2", "db") is None
    assert addresses(names, "c2", "both") == {"10.0.0.2"}


def test_an_answer_too_long_for_udp_is_cut_and_says_so() -> None:
    names = Names()
    for number in range(2, 80):
        names.put(place(number, f"c{number}", "all"))
    plain, roomy = question("all"), question("all", use_edns=0, payload=4096)
    records = names.lookup("c2", plain)
    cut = answered(plain, records, limit=plain.limit)
    whole = answered(roomy, records, limit=roomy.limit)

    assert cut.flags & dns.flags.TC and len(cut.to_wire()) <= 512
    assert not whole.flags & dns.flags.TC and len(whole.answer[0]) == 78 and whole.edns == 0


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", -1), (bytes(11), -1), (b"\0\1\x80\0\0\1" + bytes(6), -1),
        (b"\0\1\x28\0\0\1" + bytes(6), m.NOTIMP), (b"\0\1\1\0\0\2" + bytes(6), m.FORMERR),
        (b"\0\1\1\0\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1", m.FORMERR),  # a name that points at itself
        (b"\0\1\1\0\0\1" + bytes(6) + b"\x3fshort", m.FORMERR), (b"\0\1\1\0\0\1" + bytes(6) + b"\1a", m.FORMERR),
        (b"\0\1\1\0\0\1" + bytes(6) + b"\1a\0\0\1\0\3", m.REFUSED),
        (b"\0\1\1\0\0\1" + bytes(6) + b"\x3f" * 256, m.FORMERR),
    ],
)  # fmt: skip
def test_row_83_crafted_questions_are_refused(raw: bytes, code: int) -> None:
    with pytest.raises(m.Malformed) as caught:
        m.Question(raw)
    assert caught.value.code == code


def test_row_83_whatever_comes_is_read_within_its_bounds() -> None:
    dice = random.Random(83)
    whole = dns.message.make_query("web.example", "A", use_edns=0).to_wire()
    names = Names()
    for _ in range(20_000):
        raw = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        cut = bytes(raw[: dice.randrange(len(raw) + 1)]) if dice.random() < 0.3 else bytes(raw)
        try:
            names.lookup("c", m.Question(cut))
        except m.Malformed as error:
            if error.code >= 0:
                assert dns.message.from_wire(m.refusal(cut, error.code)).rcode() == error.code


def test_the_hosts_servers_are_read_again_when_the_file_changes(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "resolv.conf")
    with open(path, "w") as file:
        file.write("nameserver 10.0.0.53\nnameserver nonsense\nsearch x\nnameserver fe80::1%eth0\n")
    found = Upstreams(path)

    assert found.servers([]) == ["10.0.0.53", "fe80::1%eth0"]
    assert found.servers(["10.1.1.1", "bad"]) == ["10.1.1.1"]
    assert not valid("") and not valid("1.2.3") and valid("::1")
