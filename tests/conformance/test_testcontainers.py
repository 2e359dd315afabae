"""testcontainers, unchanged (its reaper container off): what a project's test suite does with it."""

from __future__ import annotations

import re
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from support.daemon import Daemon

pytest.importorskip("testcontainers")

from testcontainers.compose import DockerCompose
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import (
    ContainerStatusWaitStrategy,
    FileExistsWaitStrategy,
    HealthcheckWaitStrategy,
    HttpWaitStrategy,
    LogMessageWaitStrategy,
    PortWaitStrategy,
)

SERVE = ["sh", "-c", "mkdir -p /www; echo served >/www/index.html; echo serving on 80; exec httpd -f -h /www"]
PROJECT = """
services:
  web: {image: busybox, command: [sh, -c, "echo up; exec httpd -f"], ports: ["127.0.0.1::80"], stop_grace_period: 0s}
"""
COMPOSE = Path(sys.prefix, "bin/docker-compose")
SOON = timedelta(milliseconds=50)


@pytest.fixture(autouse=True)
def pointed(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """The library finds the daemon as users tell it, by the environment."""
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    yield daemon
    warnings.simplefilter("ignore", ResourceWarning)  # docker-py leaves its sockets to the collector


def test_a_published_port_is_known_at_once_and_answers() -> None:
    ready = LogMessageWaitStrategy(re.compile("serving on [0-9]+")).with_poll_interval(SOON)
    with DockerContainer("busybox").with_command(SERVE).with_exposed_ports(80).waiting_for(ready) as web:
        address = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(80)}/"
        HttpWaitStrategy(80).for_status_code(200).with_poll_interval(SOON).wait_until_ready(web)
        PortWaitStrategy(80).with_poll_interval(SOON).wait_until_ready(web)
        with urllib.request.urlopen(address, timeout=10) as page:
            assert page.read() == b"served\n"


def test_environment_volumes_tmpfs_files_in_and_out_exec_and_logs(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # the user in there is not root
    (tmp_path / "seed").write_text("seed\n")
    (tmp_path / "env").write_text("FROM_FILE=yes\n")
    made = (
        DockerContainer("busybox")
        .with_command(["sh", "-c", "cat /seed/seed /given; echo bad >&2; exec sleep 600"])
        .with_env("ONE", "1")
        .with_env_file(tmp_path / "env")
        .with_volume_mapping(tmp_path, "/seed", "ro")
        .with_tmpfs_mount("/fast", "size=1m")
        .with_copy_into_container(b"given\n", "/given", 0o644)
        .with_kwargs(mem_limit="64m", user="1000", hostname="here")
    )
    with made as box:
        LogMessageWaitStrategy("bad").with_poll_interval(SOON).wait_until_ready(box)
        assert box.get_logs() == (b"seed\ngiven\n", b"bad\n")
        code, output = box.exec(["sh", "-c", "echo $ONE $FROM_FILE; hostname; id -u; df -k /fast | tail -n 1; exit 3"])
        assert code == 3 and output.split()[:4] == [b"1", b"yes", b"here", b"1000"] and b"1024" in output
        box.copy_into_container(b"later", "/tmp/later")
        box.copy_from_container("/tmp/later", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b"later"
        info = box.get_container_info()
        assert info is not None and info.HostConfig is not None and info.HostConfig.Memory == 64 << 20
        box.reload()
        assert box.status == "running" and info.State is not None and info.State.Pid > 0


def test_wait_strategies_see_health_status_and_files() -> None:
    check = {"test": ["CMD", "test", "-e", "/tmp/made"], "interval": 100_000_000, "timeout": 5_000_000_000}
    made = DockerContainer("busybox").with_command("sh -c 'touch /tmp/made; sleep 600'").with_kwargs(healthcheck=check)
    with made.waiting_for(HealthcheckWaitStrategy().with_poll_interval(SOON)) as box:
        ContainerStatusWaitStrategy().with_poll_interval(SOON).wait_until_ready(box)
        assert box.get_wrapped_container().attrs["State"]["Health"]["Status"] == "healthy"


def test_a_file_that_appears_on_the_host(tmp_path: Path) -> None:
    made = DockerContainer("busybox").with_command("sh -c 'touch /v/made; sleep 600'").with_volume_mapping(tmp_path, "/v", "rw")
    tmp_path.chmod(0o777)
    with made.waiting_for(FileExistsWaitStrategy(tmp_path / "made").with_poll_interval(SOON)):
        assert (tmp_path / "made").exists()


def test_two_containers_find_each_other_on_a_network() -> None:
    with Network() as network:
        web = DockerContainer("busybox").with_command(SERVE).with_network(network).with_network_aliases("web")
        asks = DockerContainer("busybox").with_command("sleep 600").with_network(network)
        with web.waiting_for(LogMessageWaitStrategy("serving").with_poll_interval(SOON)), asks:
            assert asks.exec("wget -q -O - http://web/") == (0, b"served\n")
        name = network.name
    assert name not in [one.name for one in DockerClient().client.networks.list()]


def test_what_ends_tells_its_code_and_nothing_stays(daemon: Daemon) -> None:
    ended = DockerContainer("busybox").with_command("sh -c 'exit 5'")
    ended.start()
    assert ended.wait() == 5
    ended.stop()
    assert daemon.ok("GET", "/containers/json?all=1") == []


@pytest.mark.skipif(not COMPOSE.exists(), reason="needs docker compose v2 (tools/compose)")
def test_a_compose_project_by_dockers_own_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cli-plugins").mkdir()
    (tmp_path / "cli-plugins/docker-compose").symlink_to(COMPOSE)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "compose.yaml").write_text(PROJECT)
    with DockerCompose(tmp_path) as project:
        assert int(project.get_service_port("web", 80) or 0) > 0
        out, _, code = project.exec_in_container(["echo", "inside"], "web")
        assert (out, code) == ("inside\n", 0)
        assert "web-1  | up" in project.get_logs()[0]
