"""docker compose v2, unchanged: a project from `up` to `down -v`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon

COMPOSE = Path(sys.prefix, "bin/docker-compose")
pytestmark = pytest.mark.skipif(not COMPOSE.exists(), reason="needs docker compose v2 (tools/compose)")

PROJECT = """
services:
  db:
    image: busybox
    command: [sh, -c, "while ! test -e /tmp/go; do sleep 0.1; done; touch /data/ready; exec sleep 600"]
    healthcheck: {test: [CMD, test, -e, /data/ready], interval: 1s, retries: 60, start_interval: 100ms, start_period: 60s}
    volumes: [data:/data]
    stop_grace_period: 0s
  setup:
    image: busybox
    command: [sh, -c, "test -e /data/ready && cat /etc/app.conf /run/secrets/token >/data/made && echo set up"]
    depends_on: {db: {condition: service_healthy}}
    volumes: [data:/data]
    configs: [{source: app, target: /etc/app.conf}]
    secrets: [token]
  web:
    image: busybox
    command: [sh, -c, "cat /data/made; echo; exec sleep 600"]
    depends_on: {setup: {condition: service_completed_successfully}, db: {condition: service_started}}
    environment: {MODE: "${MODE:-test}"}
    volumes: [data:/data:ro]
    ports: ["127.0.0.1::80"]
    stop_grace_period: 0s
  debug:
    image: busybox
    profiles: [debug]
    command: sleep 600
    stop_grace_period: 0s
volumes: {data: {labels: {kept: by-nobody}}}
configs: {app: {content: "name=app"}}
secrets: {token: {file: ./token}}
"""
FAILING = """
services:
  bad: {image: busybox, command: "false"}
  sick:
    image: busybox
    command: sleep 600
    healthcheck: {test: "false", interval: 50ms, retries: 1}
    stop_grace_period: 0s
  after: {image: busybox, command: "true", depends_on: {bad: {condition: service_completed_successfully}}}
  later: {image: busybox, command: "true", depends_on: {sick: {condition: service_healthy}}}
"""


class Project:
    def __init__(self, daemon: Daemon, folder: Path, name: str, text: str) -> None:
        self.daemon, self.folder, self.name = daemon, folder, name
        (folder / "compose.yaml").write_text(text)
        (folder / "token").write_text("s3cret")

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [COMPOSE, "-p", self.name, *words], cwd=self.folder, capture_output=True, check=False, timeout=100,
            env={**os.environ, "DOCKER_HOST": self.daemon.host, **variables},
        )  # fmt: skip

    def __call__(self, *words: str, **variables: str) -> str:
        done = self.run(*words, **variables)
        assert done.returncode == 0, (words, done.stderr.decode())
        return done.stdout.decode()

    def states(self) -> dict[str, str]:
        shown = [json.loads(line) for line in self("ps", "-a", "--format", "json").splitlines()]
        return {one["Name"].removeprefix(self.name + "-"): one["State"] for one in shown}


@pytest.fixture
def project(daemon: Daemon, tmp_path: Path) -> Iterator[Project]:
    made = Project(daemon, tmp_path, "smpv2", PROJECT)
    yield made
    made("--profile", "debug", "down", "-v", "-t", "0")


def up(project: Project) -> None:
    """Bring it up, and let the database get ready only when what waits for it is seen to wait."""
    failed: list[str] = []
    started = threading.Thread(target=lambda: failed.extend(_output(project.run("up", "-d", "--wait", "web"))))
    events = subprocess.Popen(
        ["docker", "-H", project.daemon.host, "events", "--filter", "event=health_status", "--filter", "event=start",
         "--filter", "event=exec_start", "--since", f"{time.time():.9f}", "--format", "{{.Action}}"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert events.stdout is not None
    try:
        started.start()
        assert events.stdout.readline() == "start\n"
        assert events.stdout.readline().startswith("exec_start")  # it was asked, and is not healthy
        assert project.states() == {"db-1": "running", "setup-1": "created", "web-1": "created"}
        project("exec", "-T", "db", "touch", "/tmp/go")
        started.join(100)
    finally:
        events.kill()
        events.wait()
        events.stdout.close()
    assert failed == []


def _output(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    return [] if done.returncode == 0 else [done.stderr.decode()]


def test_dependencies_health_configs_secrets_and_volumes(project: Project) -> None:
    up(project)

    assert project.states() == {"db-1": "running", "setup-1": "exited", "web-1": "running"}
    assert project("exec", "-T", "web", "cat", "/data/made") == "name=apps3cret"
    tried = project("exec", "-T", "web", "sh", "-c", "echo $MODE; touch /data/x 2>&1 || true")
    assert tried.startswith("test\ntouch: /data/x: Read-only")
    assert "set up" in project("logs", "--no-log-prefix", "setup") and "web-1  | name=apps3cret" in project("logs", "web")
    assert project("port", "web", "80").startswith("127.0.0.1:")
    volume = project.daemon.ok("GET", "/volumes/smpv2_data")
    assert volume["Labels"]["kept"] == "by-nobody" and volume["Labels"]["com.docker.compose.project"] == "smpv2"


def test_scale_exec_by_index_cp_profiles_and_a_changed_service(project: Project) -> None:
    up(project)

    project("up", "-d", "--scale", "web=3", "web")
    names = {project("exec", "-T", "--index", str(index), "web", "hostname") for index in (1, 2, 3)}
    assert len(names) == 3
    project("cp", "token", "web:/tmp/token")  # to every one of them
    assert project("exec", "-T", "--index", "3", "web", "cat", "/tmp/token") == "s3cret"
    with tarfile.open(fileobj=io.BytesIO(project.run("cp", "db:/tmp/go", "-").stdout)) as tar:
        assert tar.getnames() == ["go"]
    assert "debug-1" not in project.states()
    project("--profile", "debug", "up", "-d", "debug")
    assert project.states()["debug-1"] == "running"
    before = set(project("ps", "-q", "web").split())
    project("up", "-d", "--scale", "web=1", "web", MODE="changed")
    assert project("exec", "-T", "web", "sh", "-c", "echo $MODE") == "changed\n"
    (after,) = project("ps", "-a", "-q", "web").split()  # which of them is left is compose's choice
    assert len(before) == 3 and after not in before


def test_every_verb_of_a_running_project_and_nothing_stays(project: Project) -> None:
    daemon = project.daemon
    up(project)

    project("pause", "db")
    assert project.states()["db-1"] == "paused"
    project("unpause", "db")
    assert "sleep 600" in project("top", "web")
    project("kill", "-s", "KILL", "web")
    assert daemon.ok("POST", "/containers/smpv2-web-1/wait")["StatusCode"] == 137
    project("start", "web")
    project("restart", "-t", "0", "web")
    assert project("run", "--rm", "-T", "--no-deps", "-e", "MODE=run", "web", "sh", "-c", "echo $MODE") == "run\n"
    assert "smpv2" in project("ls", "-q") and "busybox" in project("images")
    project("stop", "-t", "0", "web")
    project("rm", "-f", "web")
    assert set(project.states()) == {"db-1", "setup-1"}
    project("down", "-v")
    assert daemon.ok("GET", "/containers/json?all=1") == [] and daemon.ok("GET", "/volumes")["Volumes"] == []
    assert "smpv2_default" not in [one["Name"] for one in daemon.ok("GET", "/networks")]


def test_a_foreground_up_ends_with_the_code_of_the_service_that_was_asked_for(daemon: Daemon, tmp_path: Path) -> None:
    text = "services: {one: {image: busybox, command: [sh, -c, 'echo told; exit 7']}}"
    project = Project(daemon, tmp_path, "smpfg", text)
    try:
        done = project.run("up", "--exit-code-from", "one")
        assert done.returncode == 7 and b"one-1  | told" in done.stdout, done
    finally:
        project("down")


def test_what_depends_on_a_failed_or_sick_service_does_not_start(daemon: Daemon, tmp_path: Path) -> None:
    project = Project(daemon, tmp_path, "smpbad", FAILING)
    try:
        done = project.run("up", "-d", "after")
        assert done.returncode == 1 and b"didn't complete successfully: exit 1" in done.stderr, done
        done = project.run("up", "-d", "later")
        assert done.returncode == 1 and b"is unhealthy" in done.stderr, done
        states = project.states()
        assert states["after-1"] == states["later-1"] == "created"
    finally:
        project("down", "-v", "-t", "0")
