"""cp, diff, export and commit: the docker client and our own command, side by side on one daemon."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import SAMPAN, Daemon

CLIENTS = ("docker", "sampan")
SETUP = (
    "mkdir -p /d/sub /e; echo one >/d/f; echo two >/d/sub/g; ln -s /d /l; ln -s d/f /lf; ln -s /no/where /gone; chmod 751 /d/sub;"
    "ln /d/f /d/hard; touch -t 202001020304 /d/f; exec sleep 600"
)


def client(daemon: Daemon, name: str, *words: str, cwd: Path | None = None, data: bytes | None = None) -> tuple[int, bytes, str]:
    program = str(SAMPAN) if name == "sampan" else "docker"
    command = [program, "-H", daemon.host, *words]
    done = subprocess.run(command, capture_output=True, cwd=cwd, input=data, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def tree(folder: Path) -> dict[str, tuple[str, object]]:
    """Return what is below a folder: by path, mode in words and content, target or nothing."""
    found: dict[str, tuple[str, object]] = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        what: object = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (stat.filemode(about.st_mode), what)
    return found


@pytest.fixture
def container(daemon: Daemon) -> Iterator[str]:
    made = daemon.create("sh", "-c", SETUP, name="cp")
    daemon.ok("POST", f"/containers/{made}/start")
    daemon.docker("exec", made, "sh", "-c", "until [ -e /d/hard ]; do usleep 10000; done")
    yield made


OUT = [
    *(("cp", f"cp:{source}", target)
      for source in ("/d", "/d/.", "d/f", "/d/f/", "/l", "/l/", "/gone", "/nope", "/d/../d/f")
      for target in ("there", "new", "new/", "file", "no/way", "link")),
    ("cp", "-L", "cp:/l", "new"), ("cp", "-L", "cp:/l", "there"), ("cp", "-L", "cp:/lf", "there"), ("cp", "-L", "cp:/gone", "new"),
    ("cp", "cp:/d", "cp:/e"), ("cp", "a", "b"), ("cp", "", "cp:/"), ("cp", "nope:/d", "new"), ("cp", "-a", "cp:/d/f", "new"),
]  # fmt: skip


@pytest.mark.parametrize("words", OUT, ids=" ".join)
def test_what_comes_out_is_the_same_with_both(daemon: Daemon, container: str, tmp_path: Path, words: tuple[str, ...]) -> None:
    results = []
    for name in CLIENTS:
        place = tmp_path / name
        (place / "there").mkdir(parents=True)
        (place / "file").write_text("old")
        (place / "link").symlink_to("there")
        code, output, error = client(daemon, name, *words, cwd=place)
        results.append((bool(code), output, tree(place), error))

    assert results[0][:3] == results[1][:3], (results[0][3], results[1][3])


SOURCES = ("dir", "dir/.", "file", "file/", "link", "link/", "dangling", "nope", "dir/../file")
TARGETS = ("/e", "/new", "/new/", "/d/f", "/l", "/no/way", "e/x", "/gone")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_what_goes_in_is_the_same_with_both(daemon: Daemon, tmp_path: Path, source: str, target: str) -> None:
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "dir/f").write_text("content")
    (tmp_path / "dir/sub/g").write_text("more")
    (tmp_path / "file").write_text("file")
    for name, to in (("link", "dir"), ("filelink", "file"), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(to)
    shape = io.BytesIO()
    with tarfile.open(fileobj=shape, mode="w") as tar:
        for name, kind, link in (
            ("d", b"5", ""),
            ("e", b"5", ""),
            ("d/f", b"0", ""),
            ("l", b"2", "/d"),
            ("lf", b"2", "d/f"),
            ("gone", b"2", "/no/x"),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = kind, link, 0o755
            tar.addfile(entry)
    results = []
    for name in CLIENTS:
        made = daemon.create("true", name=f"in-{name}")
        daemon.ok("PUT", f"/containers/{made}/archive?path=/", shape.getvalue())
        code, output, error = client(daemon, name, "cp", source, f"in-{name}:{target}", cwd=tmp_path)
        with tarfile.open(fileobj=io.BytesIO(daemon.ok("GET", f"/containers/{made}/archive?path=/"))) as tar:
            found = {m.name: (m.type, m.mode, m.size, m.linkname, m.uid) for m in tar if not m.name.startswith("/bin")}
        results.append((bool(code), output, found, error))
        daemon.ok("DELETE", f"/containers/{made}?force=1")

    assert results[0][:3] == results[1][:3], (results[0][3], results[1][3])


@pytest.mark.parametrize("name", CLIENTS)
def test_a_tar_through_standard_input_and_output(daemon: Daemon, container: str, name: str) -> None:
    _, data, _ = client(daemon, name, "cp", "cp:/d", "-")

    assert client(daemon, name, "cp", "-", "cp:/e", data=data)[0] == 0

    assert client(daemon, name, "exec", "cp", "cat", "/e/d/sub/g")[1] == b"two\n"
    assert client(daemon, name, "cp", "-", "cp:/d/f", data=data)[0] == 1


@pytest.mark.parametrize("name", CLIENTS)
def test_a_hundred_megabytes_survive_the_way_in_and_out(daemon: Daemon, container: str, tmp_path: Path, name: str) -> None:
    block = os.urandom(1 << 20)
    with open(tmp_path / "big", "wb") as file:
        for number in range(100):
            file.write(number.to_bytes(4, "big") + block)

    assert client(daemon, name, "cp", str(tmp_path / "big"), "cp:/big")[0] == 0
    assert client(daemon, name, "cp", "cp:/big", str(tmp_path / "back"))[0] == 0

    assert subprocess.run(["cmp", tmp_path / "big", tmp_path / "back"], check=False).returncode == 0


def test_diff_export_and_commit_are_the_same_with_both(daemon: Daemon, container: str, tmp_path: Path) -> None:
    both = [client(daemon, name, "diff", "cp") for name in CLIENTS]
    assert both[0] == both[1] and b"A /d/sub/g\n" in both[0][1]

    exports = [client(daemon, name, "export", "cp")[1] for name in CLIENTS]
    assert exports[0] == exports[1]
    for name in CLIENTS:
        assert client(daemon, name, "export", "-o", "out.tar", "cp", cwd=tmp_path)[0] == 0
        assert (tmp_path / "out.tar").read_bytes() == exports[0]
        assert client(daemon, name, "export", "-o", "no/out.tar", "cp", cwd=tmp_path)[0] == 1
        assert client(daemon, name, "export", "nope")[0] == client(daemon, name, "diff", "nope")[0] == 1
        code, output, _ = client(daemon, name, "commit", "-m", "why", "-a", "me", "-c", "ENV A=b", "-p=false", "cp", f"made:{name}")
        image = daemon.ok("GET", f"/images/made:{name}/json")
        assert (code, output.decode().strip(), image["Comment"], image["Author"]) == (0, image["Id"], "why", "me")
        assert image["Config"]["Env"] == ["A=b"]
        assert client(daemon, name, "commit", "-c", "NO such", "cp")[0] == 1
