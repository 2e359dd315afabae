"""Images as people build them, from the distribution's, PyPI's and npm's own packages.

The base and the compiler are always built; the rest takes minutes, and wants SAMPAN_REAL_BUILDS=1.  What this host says about
mirrors, proxies and certificates is read from it and handed into the builds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import ROOT, Daemon
from support.tiers import running

PROJECTS = Path(__file__).parent / "projects"
COMPOSE = ROOT / ".venv/bin/docker-compose"
CERTIFICATES = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
slow = pytest.mark.skipif(not os.environ.get("SAMPAN_REAL_BUILDS"), reason="takes minutes: needs SAMPAN_REAL_BUILDS=1")
pytestmark = pytest.mark.timeout(900)


def mirror() -> str:
    """Return why this host's Debian mirror cannot be used, or nothing."""
    if shutil.which("mmdebstrap") is None:
        return "needs mmdebstrap"
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Component: main"], capture_output=True, text=True, check=False
    )
    repositories = told.stdout.split()
    if not repositories:
        return "needs the lists of apt (apt-get update)"
    try:
        urllib.request.urlopen(repositories[0], timeout=10).close()
    except urllib.error.HTTPError:
        return ""  # it answers
    except OSError as error:
        return f"needs this host's Debian mirror, which does not answer: {error}"
    return ""


def settings() -> list[str]:
    """Return build arguments for what this host's pip, npm and proxies are set to."""
    found = {name: os.environ[name] for name in ("http_proxy", "https_proxy", "no_proxy") if os.environ.get(name)}
    for name, command in (("PIP_INDEX_URL", "pip config get global.index-url"), ("NPM_CONFIG_REGISTRY", "npm config get registry")):
        if shutil.which(command.split()[0]):
            told = subprocess.run(command.split(), capture_output=True, text=True, check=False).stdout.strip()
            if told.startswith("http"):
                found[name] = told
    return [word for name, value in found.items() for word in ("--build-arg", f"{name}={value}")]


@pytest.fixture(scope="module")
def base() -> Iterator[Daemon]:
    """A daemon with Debian as `real-base`, the packages' lists in it."""
    if reason := mirror():
        pytest.skip(reason)
    with running() as made:
        made.sampan("image", "bootstrap", "-t", "real-debian", "debian", timeout=600)
        build(made, "base", "real-base")
        yield made


def build(daemon: Daemon, project: str, tag: str) -> None:
    daemon.sampan("build", *settings(), "--secret", f"id=ca,src={CERTIFICATES}", "-t", tag, str(PROJECTS / project), timeout=600)


def ask(daemon: Daemon, image: str, path: str) -> bytes:
    """Run a service and return what it answers to a request from its own namespace, asked for until it listens."""
    container = daemon.docker("run", "-d", image).stdout.decode().strip()
    try:
        words = f"until wget -qO- http://127.0.0.1:8080{path}; do usleep 100000; done"
        return daemon.docker("run", "--rm", "--network", f"container:{container}", "busybox", "sh", "-c", words).stdout
    finally:
        daemon.docker("rm", "-f", container)


def test_a_compiler_from_packages_builds_a_program_for_scratch(base: Daemon) -> None:
    build(base, "compiler", "real-compiler")

    assert base.docker("run", "--rm", "real-compiler").stdout == b"made by a compiler in a container\n"
    assert len(base.ok("GET", "/images/real-compiler/json")["RootFS"]["Layers"]) == 1


@slow
def test_a_python_service_with_pip_and_a_cache_mount(base: Daemon) -> None:
    build(base, "python", "real-python")

    assert ask(base, "real-python", "/boats/sampan") == b'{"boat": "sampan"}'
    assert base.docker("run", "--rm", "real-python", "sh", "-c", "ls /tmp/ca.crt || id -un").stdout == b"nobody\n"


@slow
def test_a_node_app_with_npm(base: Daemon) -> None:
    build(base, "node", "real-node")

    assert ask(base, "real-node", "/") == b"172800000\n"


@slow
@pytest.mark.skipif(not COMPOSE.exists(), reason="needs compose 2 (tools/compose .venv)")
def test_nginx_php_and_mariadb_answer_together(base: Daemon) -> None:
    for part in ("nginx", "php", "db"):
        build(base, f"lnmp/{part}", f"real-{part}")

    def compose(*words: str) -> str:
        done = subprocess.run(
            [COMPOSE, "-p", "smplnmp", *words], cwd=PROJECTS / "lnmp", env={**os.environ, "DOCKER_HOST": base.host},
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        compose("up", "-d", "--wait")
        where = compose("port", "nginx", "80").strip()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{where}/", timeout=30) as reply:
            assert reply.read() == b"junk\nsampan\n"
    finally:
        compose("down", "-v", "-t", "3")
    assert base.docker("volume", "ls", "-q").stdout == b""
