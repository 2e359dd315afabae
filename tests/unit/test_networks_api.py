"""Networks on the wire and on the command line: bytes in, bytes out, words and exit codes; IPAM plans without a kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from api_support import Api

from sampan.cli.create_body import limit_options
from sampan.cli.main import Exit, main
from sampan.engine.networks.create import wanted
from sampan.errors import Forbidden, InvalidRequest, NotFound
from sampan.network.addresses import POOLS, parse_pool
from sampan.network.inside import SYSCTLS, sysctls
from sampan.network.ipam import Space, local_pool
from sampan.network.records import NetworkInfo, Subnet
from sampan.wire import networks as n

ID = "f" * 64


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as running:
        yield running


def sampan(api: Api, *words: str) -> int:
    return main(["-H", f"unix://{api.path}", *words])


def test_a_network_is_created_connected_pruned_and_removed_over_http(api: Api) -> None:
    body = {"Name": "n", "CheckDuplicate": True, "EnableIPv6": None, "IPAM": None, "Options": None}
    assert api.ask("POST", "/v1.50/networks/create", json.dumps(body).encode())[::2] == (
        201,
        b'{"Id":"%s","Warning":""}\n' % ID.encode(),
    )
    told = {"Container": "web", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.0.0.9"}, "Aliases": ["a"]}}
    assert api.ask("POST", "/networks/n/connect", json.dumps(told).encode())[::2] == (200, b"")
    assert api.ask("POST", "/networks/n/disconnect", b'{"Container":"web","Force":true}')[::2] == (200, b"")
    assert json.loads(api.ask("POST", '/networks/prune?filters={"label":["a"]}')[2]) == {"NetworksDeleted": ["old"]}
    assert api.ask("DELETE", "/networks/bridge")[::2] == (204, b"")
    assert api.ask("DELETE", "/networks/none9")[0] == 404
    assert api.ask("POST", '/networks/prune?filters={"driver":["x"]}')[0] == 400
    assert api.ask("POST", "/networks/create", b"[]")[0] == 400
    calls = api.engine.networks.calls
    assert [name for name, _ in calls] == ["create", "connect", "disconnect", "prune"]
    assert calls[1][1].endpoint_config.aliases == ["a"] and calls[2][1].force


def test_commands_send_what_docker_sends(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert sampan(api, "network", "create", "--subnet", "10.1.0.0/16", "--subnet", "fd00::/64", "--ip-range", "10.1.4.0/24",
                  "--gateway", "fd00::9", "--aux-address", "x=10.1.0.7",
                  "--ipv6", "-o", "a=b", "--label", "l", "net") == 0  # fmt: skip
    assert capsys.readouterr().out == ID + "\n"
    assert sampan(api, "network", "connect", "--ip", "10.1.0.9", "--alias", "w", "--gw-priority", "3", "net", "web") == 0
    assert sampan(api, "network", "prune", "-f") == 0
    assert capsys.readouterr().out == "Deleted Networks:\nold\n\n"
    (_, made), (_, connect), _ = api.engine.networks.calls
    assert made.ipam.config == [
        n.IpamPool(subnet="10.1.0.0/16", ip_range="10.1.4.0/24", auxiliary_addresses={"x": "10.1.0.7"}),
        n.IpamPool(subnet="fd00::/64", gateway="fd00::9"),
    ]
    assert (made.enable_ipv6, made.options, made.labels) == (True, {"a": "b"}, {"l": ""})
    assert connect.endpoint_config.gw_priority == 3


def test_network_rm_says_what_is_missing_and_force_does_not(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert sampan(api, "network", "rm", "bridge", "gone") == 1
    shown = capsys.readouterr()
    assert shown.out == "bridge\n" and "network gone not found" in shown.err
    assert sampan(api, "network", "rm", "-f", "gone") == 0
    assert sampan(api, "network", "repair") == 0
    assert sampan(api, "network", "audit") == 0
    assert "made again: tables" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["--gateway", "10.1.0.1"], ["--subnet", "10.1.0.0/16", "--ip-range", "10.2.0.0/24"],
     ["--subnet", "x", "--gateway", "10.1.0.1"],
     ["--subnet", "10.1.0.0/16", "--aux-address", "a=zz"]],
)  # fmt: skip
def test_network_create_refuses_what_belongs_to_no_subnet(api: Api, words: list[str]) -> None:
    assert sampan(api, "network", "create", *words, "net") == 1


def test_limits_become_driver_options() -> None:
    assert limit_options("in=10mbit,out=5mbit") == ["sampan.limit.in=10mbit", "sampan.limit.out=5mbit"]
    with pytest.raises(Exit):
        limit_options("10mbit")


# What a body means.


def info(**more: object) -> NetworkInfo:
    return wanted(n.NetworkCreate(**{"name": "n", **more}), lambda name: (_ for _ in ()).throw(NotFound(name)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a/b", "a\n", "ü", "x" * 129])
def test_names_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        info(name=name)


def test_predefined_names_and_swarm_are_forbidden() -> None:
    for more in ({"name": "host"}, {"name": "default"}, {"scope": "swarm"}, {"driver": "overlay"}, {"ingress": True}):
        with pytest.raises(Forbidden):
            info(**more)
    with pytest.raises(InvalidRequest):
        info(enable_ipv4=False)
    with pytest.raises(NotFound, match='plugin "x" not found'):
        info(ipam=n.Ipam(driver="x"))


def test_ip_versions_are_the_bodys_or_the_options() -> None:
    def versions(six: bool | None, *defaults: tuple[str, str], **options: str) -> tuple[bool, bool]:
        body = n.NetworkCreate(name="a", enable_ipv6=six, options={f"com.docker.network.{key}": v for key, v in options.items()})
        found = wanted(body, lambda _: pytest.fail("no template"), {"bridge": dict(defaults)})
        return found.ipv4, found.ipv6

    six = ("com.docker.network.enable_ipv6", "true")
    assert versions(None) == (True, False) and versions(None, six) == (True, True) and versions(False, six) == (True, False)
    assert versions(None, six, enable_ipv6="0") == (True, False) and versions(None, six, enable_ipv4="F") == (False, True)
    with pytest.raises(InvalidRequest, match='driver-opt "com.docker.network.enable_ipv6" is not a valid bool'):
        versions(None, enable_ipv6="maybe")


def test_a_template_lends_its_settings_and_nothing_else_may_be_said() -> None:
    template = NetworkInfo(id="1", name="t", driver="null", config_only=True, subnets=(Subnet(subnet="10.0.0.0/24"),))
    source = n.ConfigFrom(network="t")
    made = wanted(n.NetworkCreate(name="n", config_from=source), lambda _: template)
    assert (made.subnets, made.config_from, made.driver) == (template.subnets, "t", "bridge")
    with pytest.raises(InvalidRequest, match="not supported if the network depends"):
        wanted(n.NetworkCreate(name="n", config_from=source, internal=True), lambda _: template)


# Subnets.


def plan(*subnets: Subnet, held: str = "", ipv6: bool = False) -> list[tuple[str, str]]:
    space = Space([*POOLS, local_pool("x")], [ip_network(text) for text in held.split()], [])
    return [(one.subnet, one.gateway) for one in space.plan(subnets, ipv4=True, ipv6=ipv6)]


def test_subnets_come_from_the_pools_and_gateways_are_their_first_addresses() -> None:
    assert plan(held="172.17.0.0/16") == [("172.18.0.0/16", "172.18.0.1")]
    assert plan(Subnet(subnet="10.0.0.0/24", aux={"a": "10.0.0.1"})) == [("10.0.0.0/24", "10.0.0.2")]
    four, six = plan(ipv6=True)
    assert four[0] == "172.17.0.0/16" and ip_network(six[0]).is_private and six[0].endswith("/64") and six[1].endswith("::1")


def test_an_overlap_is_forbidden_in_dockers_words() -> None:
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        plan(Subnet(subnet="10.0.0.0/25"), held="10.0.0.0/8")


@pytest.mark.parametrize(
    ("subnet", "words"),
    [
        (Subnet(subnet="10.0.0.1/24"), "it should be 10.0.0.0/24"), (Subnet(subnet="10.0.0.0"), "invalid CIDR"),
        (Subnet(subnet="10.0.0.0/24", gateway="10.0.1.1"), "parent subnet 10.0.0.0/24 doesn't contain this address"),
        (Subnet(subnet="10.0.0.0/24", gateway="x"), "invalid gateway"), (Subnet(subnet="224.0.0.0/24"), "no addresses"),
        (Subnet(subnet="10.0.0.0/24", ip_range="10.0.1.0/25"), "invalid ip-range"), (Subnet(subnet="fd00::/64"), "--ipv6"),
        (Subnet(subnet="10.0.0.0/24", ip_range="10.0.0.1/25"), "it should be"), (Subnet(subnet="fe80::%a/64"), "invalid"),
        (Subnet(subnet="10.0.0.0/24", aux={"a": "10.9.0.1"}), "auxiliary"),
    ],
)  # fmt: skip
def test_subnets_that_make_no_sense_are_refused_with_the_reason(subnet: Subnet, words: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid network config:") as caught:
        plan(subnet)
    assert words in str(caught.value)


def test_default_pools_are_read_and_used() -> None:
    assert plan_of("base=10.200.0.0/16,size=24", held="10.200.0.0/24") == "10.200.1.0/24"
    for text in (
        "base=10.0.0.0/8",
        "size=24",
        "base=x,size=24",
        "base=10.0.0.0/24,size=16",
        "base=10.0.0.0/8,size=30",
        "a=b,base=10.0.0.0/8,size=9",
    ):
        with pytest.raises(InvalidRequest):
            parse_pool(text)


def plan_of(pool: str, held: str) -> str:
    return Space([parse_pool(pool)], [ip_network(held)], []).plan((), ipv4=True, ipv6=False)[0].subnet


def test_row_11_endpoint_sysctls_are_the_interfaces_own() -> None:
    good = {SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.forwarding=0"}
    assert sysctls(good) == [("ipv4/conf/IFNAME/log_martians", "1"), ("ipv6/conf/IFNAME/forwarding", "0")]
    for text in (
        "net.ipv4.ip_forward=1", "net.ipv4.conf.all.forwarding=1", "net.ipv4.conf.IFNAME.../x=1", "kernel.core_pattern=x",
        "net.ipv4.conf.IFNAME.a=1\nb", "net.ipv4.conf.IFNAME.=1", "net.ipv4.conf.IFNAME.x", "net.ipv4.conf.IFNAME.a/b=1",
    ):  # fmt: skip
        with pytest.raises(InvalidRequest):
            sysctls({SYSCTLS: text})
