"""nf_tables batches, read back by nft(8)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kernel.net_place import new_namespace
from sampan.kernel import netns
from sampan.kernel import nftables as nft

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft to read the tables back"),
]


@pytest.fixture
def tables() -> Iterator[nft.Nftables]:
    with new_namespace() as space, netns.inside(space):
        made = nft.Nftables()
        yield made
        made.close()


def _listed(kind: str) -> list[dict[str, Any]]:
    # A child has the namespace of the thread that forks it.
    text = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    return [item[kind] for item in json.loads(text)["nftables"] if kind in item]


def _batch() -> nft.Batch:
    batch = nft.Batch("t")
    batch.add_table()
    return batch


def test_chains_have_hook_priority_and_policy(tables: nft.Nftables) -> None:
    batch = _batch()
    batch.chain("plain")
    batch.chain("base", nft.Hook("filter", nft.FORWARD, -5), nft.DROP)
    tables.commit(batch)
    plain, base = _listed("chain")

    assert "hook" not in plain
    assert (base["type"], base["hook"], base["prio"], base["policy"]) == ("filter", "forward", -5, "drop")
    assert [(c.name, c.hook, c.policy) for c in tables.chains()] == [("plain", -1, -1), ("base", nft.FORWARD, 0)]


def test_sets_and_maps_have_types_and_elements(tables: nft.Nftables) -> None:
    batch = _batch()
    batch.chain("c")
    batch.set(nft.Set("hosts", ("ipv4_addr",)))
    batch.set(nft.Set("ports", ("inet_proto", "inet_service"), ("ipv4_addr", "inet_service")))
    batch.set(nft.Set("links", ("ifname",), ("verdict",)))
    batch.add_elements("hosts", [(bytes([10, 0, 0, 1]), None), (bytes([10, 0, 0, 2]), None)])
    key = nft.concatenation(b"\6", (8080).to_bytes(2, "big"))
    batch.add_elements("ports", [(key, nft.concatenation(bytes([10, 0, 0, 1]), (80).to_bytes(2, "big")))])
    batch.add_elements("links", [(nft.ifname("eth0"), (nft.JUMP, "c"))])
    tables.commit(batch)
    shrink = nft.Batch("t")
    shrink.delete_elements("hosts", [bytes([10, 0, 0, 2])])
    tables.commit(shrink)
    (hosts,) = _listed("set")
    maps = {item["name"]: item for item in _listed("map")}

    assert (hosts["type"], hosts["elem"]) == ("ipv4_addr", ["10.0.0.1"])
    ((wanted, target),) = maps["ports"]["elem"]
    assert wanted["concat"] in (["tcp", 8080], [6, 8080])  # nft(8) needs /etc/protocols for the name
    assert target == {"concat": ["10.0.0.1", 80]}
    assert maps["links"]["elem"][0][1] == {"jump": {"target": "c"}}
    assert list(tables.elements("t", "ports")) == [key]


@pytest.mark.parametrize(
    ("expressions", "listed"),
    [
        (nft.match_meta("iifname", "eth0"), 'iifname "eth0"'),
        (nft.match_meta("oifname", "br0", nft.NEQ), 'oifname != "br0"'),
        (nft.match_prefix(nft.load(1, 12, 4), (bytes([10, 0, 0, 0]), 24)), "ip saddr 10.0.0.0/24"),
        (nft.match_prefix(nft.load(1, 16, 4), (bytes([10, 0, 0, 1]), 32), nft.NEQ), "ip daddr != 10.0.0.1"),
        (nft.match_ct("state", nft.CT_ESTABLISHED | nft.CT_RELATED), "ct state established,related"),
        (nft.match_ct("status", nft.CT_DNAT), "ct status dnat"),
        (nft.match_local_daddr(), "fib daddr type local"),
        ([nft.expression("counter", bytes=0, packets=0), nft.verdict(nft.DROP)], "counter packets 0 bytes 0 drop"),
        ([nft.verdict(nft.JUMP, "side")], "jump side"),
        ([nft.expression("masq")], "masquerade"),
    ],
)
def test_expressions_are_what_nft_writes(tables: nft.Nftables, expressions: list[bytes], listed: str) -> None:
    batch = _batch()
    batch.chain("side")
    batch.chain("post", nft.Hook("nat", nft.PRE_ROUTING if "fib" in listed else nft.POST_ROUTING, 100))
    batch.rule("post", expressions)
    tables.commit(batch)
    text = subprocess.run(["nft", "list", "chain", "ip", "t", "post"], capture_output=True, text=True, check=True).stdout

    assert text.splitlines()[3].strip() == listed


def test_a_batch_is_all_or_nothing(tables: nft.Nftables) -> None:
    batch = _batch()
    batch.chain("c")
    batch.rule("not there", [nft.verdict(nft.DROP)])
    with pytest.raises(FileNotFoundError) as caught:
        tables.commit(batch)

    assert caught.value.filename == "nft rule in not there"
    assert tables.tables() == []


def test_thousands_of_elements_go_in_one_batch(tables: nft.Nftables) -> None:
    batch = _batch()
    batch.set(nft.Set("s", ("ipv4_addr",)))
    wanted = {number.to_bytes(4, "big"): b"" for number in range(20_000)}
    batch.add_elements("s", [(key, None) for key in wanted])
    tables.commit(batch)

    # While the kernel still enlarges the set's hash table (a work item of its own, rhashtable_walk_next), a dump begins anew
    # in its middle and leaves elements out; it never invents any.
    deadline = time.monotonic() + 30
    while (found := tables.elements("t", "s")) != wanted:
        assert found.items() <= wanted.items()
        assert time.monotonic() < deadline, f"{len(found)} of {len(wanted)} elements"
    assert tables.has_table("t")
    assert not tables.has_table("u")
