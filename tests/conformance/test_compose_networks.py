"""compose, unchanged: networks, aliases, static addresses, names between services."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.daemon import Daemon

pytestmark = pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose")

PROJECT = """
version: "3.3"
services:
  web:
    image: busybox
    command: sleep 600
    networks:
      front: {aliases: [www]}
      back: {ipv4_address: 10.72.0.50}
  db:
    image: busybox
    command: sleep 600
    networks: [back]
networks:
  front: {}
  back:
    internal: true
    ipam: {config: [{subnet: 10.72.0.0/24}]}
"""


def test_services_find_each_other_on_their_networks(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text(PROJECT)

    def compose(*words: str) -> bytes:
        done = subprocess.run(
            ["docker-compose", "-H", daemon.host, "-p", "smptproject", *words], cwd=tmp_path, capture_output=True, check=False,
            env={**os.environ, "COMPOSE_INTERACTIVE_NO_CLI": "1"}, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    try:
        compose("up", "-d")
        assert b"10.72.0.50" in compose("exec", "-T", "db", "nslookup", "web")
        assert b"Name:\tdb" in compose("exec", "-T", "web", "nslookup", "db")
        assert b"Name:\twww" in compose("exec", "-T", "web", "nslookup", "www")
    finally:
        compose("down", "-t", "0")
    assert "smptproject" not in daemon.docker("network", "ls").stdout.decode()
