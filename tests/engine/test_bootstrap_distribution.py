"""Which mirror and keyring of the host's a distribution is made from, and that nothing of the host's gets into it."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from sampan.engine.images import distribution
from sampan.errors import Broken, Unsupported

SOURCES = """Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /KEYS/debian-archive-keyring.gpg

Types: deb
URIs: http://packages.example/thing
Suites: stable
Components: main
"""
UBUNTU = "deb [arch=amd64 signed-by=/KEYS/ubuntu.gpg] http://mirror.example/ubuntu noble main universe # near\n"


@pytest.fixture
def host(tmp_path: Path) -> distribution.Host:
    """A Debian with programs of its own."""
    for folder in ("etc/apt/sources.list.d", "keys", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    (tmp_path / "keys/debian-archive-keyring.gpg").touch()
    text = SOURCES.replace("/KEYS", str(tmp_path / "keys"))
    (tmp_path / "etc/apt/sources.list.d/debian.sources").write_text(text)
    return distribution.Host(tmp_path / "etc", tmp_path / "keys", str(tmp_path / "bin"))


def lines(host: distribution.Host, name: str, suite: str) -> list[str]:
    return [
        one.line(found, keyring).replace(str(host.keyrings), "/KEYS")
        for one, found, keyring in distribution.sources(host, name, suite)
    ]


def program(host: distribution.Host, name: str, script: str) -> None:
    path = Path(host.path) / name
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)


def test_the_hosts_own_mirror_is_used_with_its_keyring(host: distribution.Host) -> None:
    assert distribution.default_suite(host, "debian") == "bookworm"
    assert lines(host, "debian", "bookworm") == [
        "deb [signed-by=/KEYS/debian-archive-keyring.gpg] http://mirror.example/debian bookworm main contrib",
        "deb [signed-by=/KEYS/debian-archive-keyring.gpg] http://mirror.example/debian bookworm-updates main contrib",
    ]
    assert lines(host, "debian", "trixie") == [
        "deb [signed-by=/KEYS/debian-archive-keyring.gpg] http://mirror.example/debian trixie main contrib"
    ]


def test_ubuntu_needs_a_mirror_and_a_keyring(host: distribution.Host) -> None:
    with pytest.raises(Unsupported, match="no Ubuntu mirror configured.*install ubuntu-keyring"):
        lines(host, "ubuntu", distribution.default_suite(host, "ubuntu"))
    (host.etc / "apt/sources.list").write_text(UBUNTU.replace("/KEYS", str(host.keyrings)))
    assert distribution.default_suite(host, "ubuntu") == "noble"
    with pytest.raises(Unsupported, match="cannot be verified.*install ubuntu-keyring"):
        lines(host, "ubuntu", "noble")
    (host.keyrings / "ubuntu.gpg").touch()
    assert lines(host, "ubuntu", "noble") == ["deb [signed-by=/KEYS/ubuntu.gpg] http://mirror.example/ubuntu noble main universe"]
    assert len(lines(host, "debian", "bookworm")) == 2


def test_a_host_with_neither_program_says_so(host: distribution.Host) -> None:
    with pytest.raises(Unsupported, match="neither mmdebstrap nor debootstrap"), distribution.made(host, "debian", "bookworm", 0):
        pass


MAKES = """
echo "$@" > {folder}/arguments
for root; do case $root in */root) break;; esac; done
mkdir -p $root/etc/apt $root/proc $root/var/log
mount -t tmpfs none $root/proc
echo $$ | tee $root/var/log/bootstrap.log $root/etc/hostname > /dev/null
echo here > $root/etc/issue
echo working
"""


def test_debootstrap_does_it_where_there_is_no_mmdebstrap(host: distribution.Host, tmp_path: Path) -> None:
    """With the same mirror and keyring; what it mounts is gone with it; the same again is the same tar."""
    program(host, "debootstrap", MAKES.format(folder=tmp_path))
    (Path(host.path) / "unshare").symlink_to("/usr/bin/unshare")
    made = []
    for _ in range(2):
        with distribution.made(host, "debian", "bookworm", 1000) as (tar, name):
            assert name == "debootstrap"
            made.append(b"".join(iter(tar.read, b"")))
    words = (tmp_path / "arguments").read_text().split()
    root = words[-2]
    assert [one for one in words if one != root] == [
        "--variant=minbase", "--force-check-gpg", f"--keyring={host.keyrings}/debian-archive-keyring.gpg",
        "--components=main,contrib", "bookworm", "http://mirror.example/debian",
    ]  # fmt: skip
    assert made[0] == made[1]
    with tarfile.open(fileobj=io.BytesIO(made[0])) as tar:
        files = {entry.name.rstrip("/") for entry in tar}
    assert {"etc/issue", "etc/apt/sources.list", "proc", "var/log"} <= files
    assert not {"etc/hostname", "var/log/bootstrap.log"} & files
    assert not Path(root).exists() and root not in Path("/proc/self/mountinfo").read_text()


def test_a_program_that_fails_gives_no_image(host: distribution.Host) -> None:
    program(host, "mmdebstrap", "echo part; echo 'E: no such suite' >&2; exit 3")
    with (
        pytest.raises(Broken, match="mmdebstrap failed with status 3: E: no such suite"),
        distribution.made(host, "debian", "bookworm", 0) as (tar, _),
    ):
        while tar.read(1 << 20):
            pass


def test_nothing_of_this_host_or_moment_stays_in_what_debootstrap_made(tmp_path: Path) -> None:
    for name in ("etc/apt", "var/log", "dev", "var/cache/apt/archives", "debootstrap", "usr/bin"):
        (tmp_path / name).mkdir(parents=True)
    for name in (
        "etc/hostname",
        "etc/resolv.conf",
        "var/log/bootstrap.log",
        "var/cache/apt/archives/a.deb",
        "debootstrap/log",
        "usr/bin/a",
    ):
        (tmp_path / name).write_text("x")
    os.utime(tmp_path / "usr/bin/a", (5, 5))
    (tmp_path / "usr/bin/b").symlink_to("/etc/hostname")
    distribution.tidy(tmp_path, ["deb http://mirror.example/debian bookworm main"], 1000)
    left = {str(path.relative_to(tmp_path)): path.lstat().st_mtime for path in tmp_path.rglob("*")}

    assert not {"etc/hostname", "etc/resolv.conf", "var/log/bootstrap.log", "var/cache/apt/archives", "debootstrap"} & set(left)
    assert left["usr/bin/a"] == 5 and {left[name] for name in left if name != "usr/bin/a"} == {1000}
    assert (tmp_path / "etc/apt/sources.list").read_text() == "deb http://mirror.example/debian bookworm main\n"
