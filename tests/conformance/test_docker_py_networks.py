"""docker-py, unchanged: networks."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, NotFound
from docker.types import IPAMConfig, IPAMPool

from support.daemon import Daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=daemon.host)
    yield made
    daemon.remove_all()
    made.networks.prune()
    made.close()


def test_a_network_with_pools_is_made_listed_and_removed(client: docker.DockerClient) -> None:
    pool = IPAMPool(subnet="10.71.0.0/16", iprange="10.71.8.0/24", gateway="10.71.0.254", aux_addresses={"nas": "10.71.8.1"})
    made = client.networks.create(
        "py", ipam=IPAMConfig(pool_configs=[pool]), labels={"a": "b"}, options={"x": "y"}, attachable=True
    )

    assert made.attrs["IPAM"]["Config"] == [
        {"Subnet": "10.71.0.0/16", "IPRange": "10.71.8.0/24", "Gateway": "10.71.0.254", "AuxiliaryAddresses": {"nas": "10.71.8.1"}}
    ]
    assert [one.name for one in client.networks.list(filters={"label": "a=b"})] == ["py"]
    assert client.networks.get(made.short_id).id == made.id
    made.remove()
    with pytest.raises(NotFound):
        client.networks.get("py")


def test_containers_are_connected_and_disconnected(client: docker.DockerClient) -> None:
    made = client.networks.create("py", ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.71.0.0/24")]))
    box = client.containers.run("busybox", ["sleep", "60"], detach=True, name="box")
    made.connect(box, aliases=["b"], ipv4_address="10.71.0.77")
    box.reload()
    made.reload()
    assert box.attrs["NetworkSettings"]["Networks"]["py"]["IPAddress"] == "10.71.0.77"
    assert [one.name for one in made.containers] == ["box"]
    with pytest.raises(APIError) as caught:
        made.connect(box)
    assert caught.value.status_code == 403
    made.disconnect(box)
    box.reload()
    assert list(box.attrs["NetworkSettings"]["Networks"]) == ["bridge"]


def test_networking_config_and_names_work_between_containers(client: docker.DockerClient) -> None:
    client.networks.create("py", internal=True)
    config = {"py": client.api.create_endpoint_config(aliases=["store"], driver_opt={"sampan.limit.in": "1gbit"})}
    client.containers.run("busybox", ["sleep", "60"], detach=True, network="py", networking_config=config)
    code, output = client.containers.run("busybox", ["sleep", "60"], detach=True, network="py").exec_run(["nslookup", "store"])

    assert code == 0 and b"Name:\tstore" in output


def test_prune_removes_what_nobody_uses(client: docker.DockerClient) -> None:
    client.networks.create("unused")
    client.networks.create("used")
    client.containers.create("busybox", "true", network="used")

    assert client.networks.prune()["NetworksDeleted"] == ["unused"]
