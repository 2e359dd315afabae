"""docker build (DOCKER_BUILDKIT=0), docker-py and the sampan command, against the builder."""

from __future__ import annotations

import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import docker
import docker.errors
import pytest

from support.builds import web
from support.daemon import SAMPAN, Daemon

sys.path.insert(0, str(Path(__file__).parent))
from terminal import Terminal

LARGE = 40 << 20
PIECE = bytes(range(256)) * 4096  # a mebibyte


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nARG V=1\nCOPY src /src/\nRUN cat /src/a > /out && echo $V >> /out\nCMD cat /out\n"
    )
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a").write_text("A\n")
    (tmp_path / "src/skip").write_text("no")
    (tmp_path / ".dockerignore").write_text("src/skip\n")
    return tmp_path


@pytest.fixture(autouse=True)
def _pruned(daemon: Daemon) -> Iterator[None]:
    daemon.ok("POST", "/build/prune?all=1")
    yield
    daemon.ok("POST", "/build/prune?all=1")


def classic(daemon: Daemon, *words: str, check: bool = True, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": "/nonexistent"}
    done = subprocess.run(
        ["docker", "-H", daemon.host, "build", *words], capture_output=True, input=input, env=environment, check=False
    )
    assert not check or done.returncode == 0, done.stderr.decode()
    return done


def test_docker_build_tags_and_runs(daemon: Daemon, folder: Path) -> None:
    done = classic(daemon, "-t", "web:1", "--build-arg", "V=2", str(folder))

    assert b"Successfully tagged web:1\n" in done.stdout
    assert daemon.docker("run", "--rm", "web:1").stdout == b"A\n2\n"
    assert daemon.docker("run", "--rm", "web:1", "ls", "/src").stdout == b"a\n"


def test_docker_build_without_a_plugin_needs_no_setting(daemon: Daemon, folder: Path) -> None:
    """Word for word: the client finds no buildx and takes the classic builder; told to use BuildKit, it says that it cannot."""
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_BUILDKIT"} | {
        "DOCKER_CONFIG": "/nonexistent"
    }
    if subprocess.run(["docker", "buildx", "version"], capture_output=True, env=environment, check=False).returncode == 0:
        pytest.skip("needs a docker client without the buildx plugin")
    done, told = (
        subprocess.run(
            ["docker", "-H", daemon.host, "build", "-t", "plain:1", str(folder)], capture_output=True, env=env, check=False
        )
        for env in (environment, {**environment, "DOCKER_BUILDKIT": "1"})
    )

    assert done.returncode == 0 and b"Successfully tagged plain:1\n" in done.stdout, done
    assert told.returncode == 1 and told.stderr, told


def test_docker_build_fails_with_the_commands_exit_code(daemon: Daemon) -> None:
    done = classic(daemon, "-", check=False, input=b"FROM busybox\nRUN exit 42\n")

    assert done.returncode == 42
    assert b"The command '/bin/sh -c exit 42' returned a non-zero code: 42" in done.stderr


def test_docker_build_takes_a_dockerfile_from_elsewhere_and_writes_the_id(daemon: Daemon, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "Other"
    other.write_text("FROM busybox\nCOPY src/a /x\n")
    done = classic(daemon, "-q", "-f", str(other), "--iidfile", str(tmp_path / "iid"), str(folder))

    assert done.stdout.decode().strip() == (tmp_path / "iid").read_text().strip()


def test_docker_build_compressed_and_with_a_target(daemon: Daemon, folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM busybox AS a\nENV A=1\nFROM a\nRUN exit 1\n")
    classic(daemon, "--compress", "--target", "a", "-t", "target", "--label", "l=v", str(folder))

    assert daemon.ok("GET", "/images/target/json")["Config"]["Labels"] == {"l": "v"}


def test_docker_builder_prune(daemon: Daemon, folder: Path) -> None:
    classic(daemon, "-t", "pruned", str(folder))
    daemon.docker("rmi", "pruned")
    environment = {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": "/nonexistent"}
    done = subprocess.run(["docker", "-H", daemon.host, "builder", "prune", "-f"], capture_output=True, env=environment, check=True)

    assert b"Total reclaimed space:" in done.stdout


def test_docker_py_builds_and_raises(daemon: Daemon, folder: Path) -> None:
    client = docker.DockerClient(base_url=f"unix://{daemon.sock}", version="auto")
    try:
        image, log = client.images.build(path=str(folder), tag="py:1", buildargs={"V": "3"}, rm=True)
        assert image.tags == ["py:1"]
        assert any("Step 1/5" in one.get("stream", "") for one in log)
        assert client.containers.run("py:1", remove=True) == b"A\n3\n"
        with pytest.raises(docker.errors.BuildError, match="returned a non-zero code: 9"):
            client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 9\n"))
        with pytest.raises(docker.errors.APIError, match="unknown instruction: RUM"):
            client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUM x\n"))
    finally:
        client.close()


def test_sampan_build_is_plain_off_a_terminal(daemon: Daemon, folder: Path) -> None:
    done = daemon.sampan("build", "-t", "own:1", "--build-arg", "V=4", str(folder))

    assert b"Step 1/5 : FROM busybox\n" in done.stdout
    assert daemon.docker("run", "--rm", "own:1").stdout == b"A\n4\n"
    assert daemon.docker("run", "--rm", "own:1", "ls", "/src").stdout == b"a\n"


def test_sampan_build_draws_its_steps_on_a_terminal(daemon: Daemon, folder: Path) -> None:
    (folder / "Dockerfile").write_text(
        "FROM busybox AS side\nRUN until test -e /x; do echo beside; sleep 9; done\nFROM busybox\n"
        "RUN echo begun; sleep 1000\nCOPY --from=side /x /\n"
    )
    with Terminal(str(SAMPAN), "-H", daemon.host, "build", str(folder), rows=24, columns=100) as terminal:
        terminal.wait_for("· 3/5 : RUN until".encode())
        terminal.wait_for(b"5 : RUN echo begun; sleep 1000  1.")  # the clock goes on while nothing is said
        terminal.type(b"\x03")
        assert terminal.end() != 0


def test_sampan_build_quiet_iidfile_and_stdin(daemon: Daemon, tmp_path: Path) -> None:
    done = subprocess.run(
        [SAMPAN, "-H", daemon.host, "build", "-q", "--iidfile", str(tmp_path / "iid"), "-"], input=b"FROM busybox\nENV A=1\n",
        capture_output=True, check=True,
    )  # fmt: skip

    assert done.stdout.decode().strip() == (tmp_path / "iid").read_text()


def test_sampan_build_fails_as_its_command(daemon: Daemon, folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM busybox\nRUN exit 5\n")
    done = daemon.sampan("build", str(folder), check=False)

    assert (done.returncode, b"non-zero code: 5" in done.stderr) == (5, True)


def test_sampan_build_shows_where_a_dockerfile_is_wrong(daemon: Daemon, folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY --chwon=1 a b\n")
    done = daemon.sampan("build", str(folder), check=False)

    assert done.returncode == 1
    assert b"Dockerfile:2:6\n  2 | COPY --chwon=1 a b\n    |      ^" in done.stderr


def test_sampan_build_secrets_explain_and_check(daemon: Daemon, folder: Path) -> None:
    (folder / "token").write_text("s3cret")
    (folder / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=secret,id=t test $(cat /run/secrets/t) = s3cret\nCOPY src/a /a\n"
    )
    daemon.sampan("build", "--secret", f"id=t,src={folder}/token", "-t", "s", str(folder))
    (folder / "src/a").write_text("changed")
    explained = daemon.sampan("build", "--secret", f"id=t,src={folder}/token", "-t", "s", "--explain", str(folder))
    checked = daemon.sampan("build", "--check", str(folder))

    assert b"Not cached: file a changed" in explained.stdout
    assert explained.stdout.count(b"Using cache") == 1
    assert b"no warnings found" in checked.stdout


def test_sampan_build_sends_named_contexts(daemon: Daemon, folder: Path, tmp_path: Path) -> None:
    other, packed = tmp_path / "other", tmp_path / "packed.tar"
    other.mkdir()
    (other / "keep").write_text("kept")
    (other / "skip").write_text("no")
    (other / ".dockerignore").write_text("skip\n")
    with tarfile.open(packed, "w") as tar:
        tar.add(other / "keep", "in-tar")
    daemon.sampan("build", "-o", f"type=oci,dest={tmp_path}/oci.tar", "-t", "layered:2", str(folder))
    with tarfile.open(tmp_path / "oci.tar") as tar:
        tar.extractall(tmp_path / "layout", filter="data")
    (folder / "Dockerfile").write_text(
        "FROM base\nCOPY --from=other . /other/\nCOPY --from=packed . /packed/\nRUN ls -A /other /packed && cat /out\n"
    )
    done = daemon.sampan(
        "build", "--build-context", f"other={other}", "--build-context", f"packed={packed}",
        "--build-context", f"base=oci-layout://{tmp_path}/layout:2", str(folder),
    )  # fmt: skip
    wrong = daemon.sampan("build", "--build-context", "other=/no/such", str(folder), check=False)

    assert b"/other:\n.dockerignore\nkeep\n\n/packed:\nin-tar\nA\n1\n" in done.stdout
    assert (wrong.returncode, wrong.stderr) == (1, b'build context other: path "/no/such" not found\n')


def test_sampan_build_keeps_its_cache_in_a_folder(daemon: Daemon, folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    where = ("--cache-from", f"type=local,src={cache}", "--cache-to", f"type=local,dest={cache},mode=max")
    first = daemon.sampan("build", *where, "-t", "kept", str(folder))
    daemon.sampan("rmi", "-f", "kept")
    daemon.sampan("builder", "prune", "-af")
    second = daemon.sampan("build", *where, str(folder))
    elsewhere = daemon.sampan("build", "--cache-to", f"type=local,dest={folder}", str(folder), check=False)

    assert b"no cache is there" in first.stderr
    assert second.stdout.count(b"Using cache of the client's cache") == 2
    assert sorted(path.name for path in cache.iterdir()) == ["blobs", "index.json", "oci-layout"]
    assert b"is neither empty nor a cache: it is left alone" in elsewhere.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("cache.")] == []


def test_sampan_build_outputs(daemon: Daemon, folder: Path, tmp_path: Path) -> None:
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY src/a /dir/a\n")
    daemon.sampan("build", "-o", str(tmp_path / "out"), str(folder))
    daemon.sampan("build", "-o", f"type=tar,dest={tmp_path}/out.tar", str(folder))
    daemon.sampan("build", "-o", f"type=oci,dest={tmp_path}/oci.tar", str(folder))

    daemon.sampan(
        "build", "-t", "two:1", "-o", f"type=oci,dest={tmp_path}/layout,tar=false", "-o", f"type=docker,dest={tmp_path}/docker.tar",
        "-o", "type=docker,name=two:2", str(folder),
    )  # fmt: skip
    wrong = [
        daemon.sampan("build", "-o", output, str(folder), check=False).stderr
        for output in ("type=oci", "type=cloud", f"type=tar,dest={tmp_path}/no/such/x.tar", "type=local,dest=-", "type=registry")
    ]

    index = json.loads((tmp_path / "layout/index.json").read_text())
    assert index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == "1"
    with tarfile.open(tmp_path / "docker.tar") as tar:
        names = tar.extractfile("manifest.json")
        assert names is not None
        assert json.load(names)[0]["RepoTags"] == ["two:1", "two:2"]
    assert wrong == [
        b"output of type oci needs dest=\n", b"unknown output type 'cloud': local, tar, oci, docker, image, registry\n",
        f'invalid output path: directory "{tmp_path}/no/such" does not exist\n'.encode(), b"output of type local needs a folder\n",
        b"nothing to push: the image has no name (-t, or name= of the output)\n",
    ]  # fmt: skip
    assert (tmp_path / "out/dir/a").read_text() == "A\n"
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert "dir/a" in tar.getnames()
    with tarfile.open(tmp_path / "oci.tar") as tar:
        assert "index.json" in tar.getnames()
    assert daemon.docker("ps", "-aq").stdout == b""


class _Large(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(LARGE))
        self.end_headers()
        for _ in range(LARGE >> 20):
            self.wfile.write(PIECE)


def test_nothing_that_is_copied_is_held_in_memory_whole(daemon: Daemon, folder: Path, tmp_path: Path) -> None:
    """A large file by every way in and out: sent, copied, unpacked, fetched, mounted, kept, exported; the peaks stay below it."""
    with tarfile.open(folder / "large.tar", "w") as tar:
        entry = tarfile.TarInfo("unpacked")
        entry.size = LARGE
        tar.addfile(entry, cast("BinaryIO", _Repeated()))
    with (folder / "large").open("wb") as file:
        file.writelines(PIECE for _ in range(LARGE >> 20))

    def build(*words: str) -> int:
        """Build and return the peak of the command's memory, in bytes."""
        done = subprocess.Popen([str(SAMPAN), "-H", daemon.host, "build", *words, str(folder)], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(done.pid, 0)
        done.returncode = os.waitstatus_to_exitcode(status)
        assert done.returncode == 0
        return usage.ru_maxrss << 10

    def peak() -> int:
        found = Path(f"/proc/{daemon.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
        return int(found) << 10

    (folder / "Dockerfile").write_text("FROM busybox\nCOPY src /src/\n")
    out = [f"type=local,dest={tmp_path}/o", f"type=oci,dest={tmp_path}/i"]
    ways = [word for one in out for word in ("-o", one)]
    usual = build(*ways)
    with web(_Large) as port:
        (folder / "Dockerfile").write_text(
            f"FROM busybox AS s\nCOPY large /a\nADD large.tar /b/\nADD http://127.0.0.1:{port}/large /c\nFROM s AS m\n"
            "RUN --mount=from=s,target=/s --mount=target=/ctx,rw cat /s/a > /d && cat /ctx/large > /ctx/e\n"
            "FROM scratch\nCOPY --from=m /a /b/unpacked /c /d /\n"
        )
        Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")
        before = peak()
        took = build(*ways, "--cache-to", f"type=local,mode=max,dest={tmp_path}/c")

    assert {(tmp_path / "o" / name).stat().st_size for name in ("a", "unpacked", "c", "d")} == {LARGE}
    assert took - usual < LARGE // 2, (took, usual)
    assert peak() - before < LARGE, (peak(), before)  # buffers take 24 MiB of it, however large the file


class _Repeated:
    def read(self, size: int) -> bytes:
        return (PIECE * (size // len(PIECE) + 1))[:size]


def test_sampan_build_verifies_that_it_is_reproducible(daemon: Daemon, folder: Path) -> None:
    same = daemon.sampan("build", "--verify", str(folder))
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY src/a /a\nRUN cat /proc/sys/kernel/random/uuid > /u\n")
    other = daemon.sampan("build", "--verify", str(folder), check=False)

    assert b"Verified: both builds gave sha256:" in same.stdout
    assert other.returncode == 1
    assert b"not reproducible" in other.stderr
    assert b"layers 3 differ" in other.stderr


def test_sampan_build_shows_its_plan(daemon: Daemon, folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM busybox AS a\nRUN false\nFROM busybox AS un\nFROM busybox\nCOPY --from=a /x /x\n")
    shown = daemon.sampan("build", "--plan", str(folder)).stdout.decode()

    assert shown == "a: from busybox\n  RUN false\n2: from busybox after a (target)\n  COPY --from=a /x /x\nun: not needed\n"


def test_sampan_builder_history(daemon: Daemon, folder: Path) -> None:
    daemon.sampan("build", "-t", "told-of", str(folder))
    daemon.ok("POST", "/build/prune")  # waits for what is written in the background
    listed = daemon.sampan("builder", "history", "--format", "{{.ID}} {{.Name}} {{.Outcome}} {{.Steps}}").stdout.decode()
    build, name, outcome, steps = listed.splitlines()[0].split()
    shown = daemon.sampan("builder", "history", build).stdout.decode()
    said = daemon.sampan("builder", "history", "--log", build).stdout
    daemon.sampan("builder", "history", "--rm", build)

    assert (name, outcome, steps) == ("told-of", "done", "5")
    assert "done      " in shown
    assert "RUN cat /src/a > /out && echo $V >> /out" in shown
    assert b"Step 1/5 : FROM busybox\n" in said
    assert build not in daemon.sampan("builder", "history").stdout.decode()


def test_sampan_builder_prune(daemon: Daemon, folder: Path) -> None:
    daemon.sampan("build", "-q", str(folder))
    done = daemon.sampan("builder", "prune", "-af")

    assert b"Deleted build cache objects:\n" in done.stdout
    assert b"Total reclaimed space: " in done.stdout


def test_sampan_build_sends_only_what_changed(daemon: Daemon, folder: Path) -> None:
    """Many files are told first: what the daemon has is not sent again, what is gone is gone, what changed is new."""
    many = folder / "many"
    many.mkdir()
    for number in range(300):
        (many / f"{number}.txt").write_text(str(number))
    (many / "link").symlink_to("1.txt")
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY many /m/\nRUN ls /m | wc -l; cat /m/7.txt /m/link\n")
    first = daemon.sampan("build", str(folder))
    again = daemon.sampan("build", str(folder))
    (many / "7.txt").write_text("changed")
    (many / "8.txt").unlink()
    (many / "9.txt").unlink()
    (many / "9.txt").mkdir()
    other = daemon.sampan("build", str(folder))

    assert b"301\n71" in first.stdout
    assert again.stdout.count(b"Using cache") == 2
    assert b"300\nchanged1" in other.stdout
    assert len(list((daemon.data_root / "build/synced").iterdir())) == 1
    daemon.restart()
    assert daemon.sampan("build", str(folder)).stdout.count(b"Using cache") == 2


def test_an_unchanged_folder_costs_its_metadata_and_a_change_is_named(daemon: Daemon, folder: Path) -> None:
    for name in ("left", "right"):
        (folder / name).mkdir()
        for number in range(1200):
            (folder / name / str(number)).write_bytes(b"%d" % number * 4000)
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY . /m/\n")
    daemon.sampan("build", str(folder))

    def read() -> int:
        return int(Path(f"/proc/{daemon.pid}/io").read_text().split()[1])

    before = read()
    assert daemon.sampan("build", str(folder)).stdout.count(b"Using cache") == 1
    assert read() - before < 4 << 20  # of 36 MB
    (folder / "right/7").write_text("changed")
    assert b"Not cached: file right changed\n" in daemon.sampan("build", "--explain", str(folder)).stdout


def test_a_kept_context_is_its_builds_alone(daemon: Daemon) -> None:
    key = "a" * 64
    told = [["Dockerfile", 0o100644, 13, 5, ""]]
    first = daemon.ok("POST", f"/sampan/context?key={key}", told)

    assert first["Wanted"] == ["Dockerfile"]
    assert daemon.call("POST", f"/sampan/context?key={key}", told).status == 409
    for path in ("../x", "/x", "a/../b", "a//b", "", "a\0b"):
        answer = daemon.call("POST", f"/sampan/context?key={'b' * 64}", [[path, 0o100644, 1, 1, ""]])
        assert answer.status == 400, path
    assert daemon.call("POST", "/sampan/context?key=../../x", told).status == 400
    assert daemon.call("POST", f"/sampan/context?key={'c' * 64}", {"no": "list"}).status == 400
