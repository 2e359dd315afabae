"""Base images from this host's files: they run, they are the same each time, and nothing else gets in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.errors import InvalidRequest, NotFound
from sampan.files import elf
from support.daemon import Daemon
from support.places import Place, collect


def make(place: Place, recipe: str, tag: str) -> str:
    return str(place.run(collect(place.images.bootstrap(recipe, tag=tag)))[-1].status)


def test_the_libraries_are_those_that_the_loader_would_take() -> None:
    program = Path(shutil.which("ls") or "/bin/ls")
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    wanted = {Path(word).resolve() for line in told.splitlines() for word in line.split() if word.startswith("/")}
    assert wanted <= {path.resolve() for path in elf.closure([program])}


def test_the_same_programs_give_the_same_image(place: Place) -> None:
    assert make(place, "host sh ls", "one") == make(place, "host sh ls", "two") != make(place, "host sh", "three")
    image = place.images.resolve("one")
    assert place.images.resolve("two").id == image.id
    assert image.created == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "recipe", ["host", "host no-such-program", "host ../../etc/shadow", "venv", "venv relative", "venv /etc", "other x"]
)
def test_recipes_that_make_no_sense_are_refused(place: Place, recipe: str) -> None:
    with pytest.raises((InvalidRequest, NotFound)):
        make(place, recipe, "x")
    assert place.is_clean()


def test_programs_of_the_host_run_in_a_container(daemon: Daemon) -> None:
    daemon.sampan("image", "bootstrap", "-t", "tools:1", "host", "sh", "ls", "cat")
    try:
        code, output = daemon.run("sh", "-c", "ls /etc && cat /etc/group", image="tools:1")
        assert code == 0 and b"passwd" in output and b"nogroup" in output, output
    finally:
        daemon.call("DELETE", "/images/tools:1?force=1")


def test_a_virtual_environment_runs_in_a_container(daemon: Daemon, tmp_path: Path) -> None:
    home = Path("/var/tmp") / f"sampanvenv-{tmp_path.name}"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    try:
        site = next((home / "lib").glob("python3*/site-packages"))
        (site / "mine.py").write_text("print('from the venv')\n")
        daemon.sampan("image", "bootstrap", "-t", "venv:1", "venv", str(home), timeout=120)
        code, output = daemon.run(f"{home}/bin/python3", "-c", "import mine, json, ssl; print(json.dumps([1]))", image="venv:1")
        assert (code, output) == (0, b"from the venv\n[1]\n")
    finally:
        shutil.rmtree(home)
        daemon.call("DELETE", "/images/venv:1?force=1")
