"""Debian's docker-registry between us and others: what one wrote the other reads, digest for digest."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, UnixHttp
from support.images import config, docker_archive
from support.ready import started
from support.registry import Authority, DebianRegistry
from support.served import Served
from support.tars import archive, member

pytestmark = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


@pytest.fixture(scope="module")
def registry() -> Iterator[DebianRegistry]:
    with DebianRegistry() as made:
        yield made


@pytest.fixture(scope="module")
def dockerd() -> Iterator[str]:
    """A real dockerd; gives its address."""
    if shutil.which("dockerd") is None:
        pytest.skip("needs dockerd")
    work = Path(tempfile.mkdtemp(prefix="sampandockerd-", dir="/var/tmp"))
    host = f"unix://{work}/d.sock"
    process = started(
        ["dockerd", "--data-root", f"{work}/data", "--exec-root", f"{work}/exec", "--pidfile", f"{work}/pid", "-H", host,
         "--bridge", "none", "--iptables=false"], work / "log",
    )  # fmt: skip
    try:
        yield host
    finally:
        process.terminate()
        process.wait(30)
        subprocess.run(["umount", "-R", "-l", f"{work}/data"], capture_output=True, check=False)
        shutil.rmtree(work, ignore_errors=True)


def docker(host: str, *arguments: str) -> str:
    done = subprocess.run(["docker", "-H", host, *arguments], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def tool(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@contextmanager
def podman() -> Iterator[list[str]]:
    """Give podman's command with stores of its own."""
    work = tempfile.mkdtemp(prefix="smp", dir="/var/tmp")  # it takes no long names
    command = ["podman", "--root", f"{work}/root", "--runroot", f"{work}/run", "--storage-driver", "vfs"]
    try:
        yield command
    finally:
        subprocess.run([*command, "system", "reset", "-f"], capture_output=True, check=False)
        shutil.rmtree(work, ignore_errors=True)


def identity(daemon: Daemon, name: str) -> tuple[str, list[str]]:
    found = daemon.ok("GET", f"/images/{name}/json")
    return found["Id"], found["RepoDigests"]


def test_dockerd_reads_what_we_wrote_and_we_read_what_it_wrote(daemon: Daemon, registry: DebianRegistry, dockerd: str) -> None:
    ours, theirs = f"{registry.host}/ours:1", f"{registry.host}/theirs:1"
    daemon.docker("tag", "busybox", ours)
    daemon.docker("push", ours)
    docker(dockerd, "pull", ours)
    image, digests = identity(daemon, ours)
    seen = json.loads(docker(dockerd, "image", "inspect", ours))[0]
    assert seen["Id"] == image
    assert f"{registry.host}/ours@{registry.manifest('ours', '1')[0]}" in digests
    assert set(seen["RepoDigests"]) <= set(digests)

    docker(dockerd, "tag", ours, theirs)
    docker(dockerd, "push", theirs)
    daemon.docker("pull", theirs)
    assert identity(daemon, theirs)[0] == image
    daemon.docker("rmi", ours, theirs)


def test_an_image_of_dockerds_is_pulled_run_and_pushed_back_unchanged(
    daemon: Daemon, registry: DebianRegistry, dockerd: str
) -> None:
    name, back = f"{registry.host}/built:1", f"{registry.host}/back:1"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy("/bin/busybox", f"{folder}/busybox")
        Path(folder, "Dockerfile").write_text(
            'FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/echo\nENV A=b\nLABEL l=m\nCMD ["/bin/echo","built"]\n'
        )
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        subprocess.run(["docker", "-H", dockerd, "build", "-t", name, folder], env=environment, check=True, capture_output=True)
    docker(dockerd, "push", name)
    run = daemon.docker("run", "--rm", name)  # pulls, since it is not here
    assert run.stdout == b"built\n"
    assert b"Unable to find image" in run.stderr and b"Downloaded newer image" in run.stderr
    daemon.docker("tag", name, back)
    daemon.docker("push", back)
    assert registry.manifest("built", "1") == registry.manifest("back", "1")
    daemon.docker("rmi", name, back)


def messages(sock: str, method: str, path: str, body: bytes | None = None) -> list[dict[str, Any]]:
    """Return the progress messages of a request."""
    connection = UnixHttp(sock)
    connection.request(method, path, body, {"X-Registry-Auth": "e30=", "Content-Type": "application/x-tar"})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    assert reply.status == 200, content
    return [json.loads(line) for line in content.split(b"\r\n") if line.strip()]


@pytest.fixture(scope="module")
def compressed(shared_daemon: Daemon, registry: DebianRegistry, dockerd: str) -> str:
    """An image that dockerd made and pushed, Docker's manifest and gzipped layers, pulled by us; gives its name."""
    name = f"{registry.host}/compressed:1"
    subprocess.run(["docker", "-H", dockerd, "load"], input=shared_daemon.docker("save", "busybox").stdout, check=True)
    docker(dockerd, "tag", "busybox", name)
    docker(dockerd, "push", name)
    shared_daemon.docker("pull", name)
    return name


@pytest.mark.parametrize("image", ["busybox", "compressed"])
def test_archives_go_to_others_and_back(
    daemon: Daemon, registry: DebianRegistry, dockerd: str, compressed: str, tmp_path: Path, image: str
) -> None:
    """What we save dockerd, podman and skopeo read, and what they write of it we load: the same image every time."""
    name, saved = f"{registry.host}/{image}:archived", tmp_path / "saved.tar"
    daemon.docker("tag", compressed if image == "compressed" else "busybox", name)
    wanted = identity(daemon, name)[0]
    saved.write_bytes(daemon.docker("save", name).stdout)
    daemon.docker("rmi", name)
    written = {"ours": saved}

    docker(dockerd, "load", "-i", str(saved))
    assert json.loads(docker(dockerd, "image", "inspect", name))[0]["Id"] == wanted
    written["dockerd"] = tmp_path / "dockerd.tar"
    docker(dockerd, "save", "-o", str(written["dockerd"]), name)
    docker(dockerd, "rmi", name)

    if shutil.which("podman"):
        with podman() as command:
            tool(*command, "load", "-i", str(saved))
            assert f"sha256:{json.loads(tool(*command, 'image', 'inspect', name))[0]['Id']}" == wanted
            for kind in ("docker-archive", "oci-archive"):
                written[f"podman {kind}"] = tmp_path / f"podman-{kind}.tar"
                tool(*command, "save", "--format", kind, "-o", str(written[f"podman {kind}"]), name)

    if shutil.which("skopeo"):
        with tarfile.open(saved) as tar:
            index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
        target = f"docker://{registry.host}/skopeo-{image}:1"
        tool("skopeo", "copy", "--preserve-digests", "--dest-tls-verify=false", f"oci-archive:{saved}", target)
        assert registry.manifest(f"skopeo-{image}", "1")[0] == index["manifests"][0]["digest"]
        for kind in ("docker-archive", "oci-archive"):
            written[f"skopeo {kind}"] = tmp_path / f"skopeo-{kind}.tar"
            tool("skopeo", "copy", "--src-tls-verify=false", target, f"{kind}:{written[f'skopeo {kind}']}:{name}")

    for who, path in written.items():
        assert name in daemon.docker("load", "-i", str(path)).stdout.decode(), who
        assert identity(daemon, name)[0] == wanted, who
        daemon.docker("rmi", name)


def test_dockers_tree_has_the_platform_of_every_image(daemon: Daemon, compressed: str) -> None:
    """And ours has the same sizes."""
    trees = [daemon.docker("image", "ls", "--tree").stdout.decode(), daemon.sampan("images", "--tree").stdout.decode()]
    rows = [{line.split()[-4:][0]: line.split()[-3:] for line in tree.splitlines() if "linux/" in line} for tree in trees]
    assert rows[0] == rows[1] and len(rows[0]) == len(daemon.ok("GET", "/images/json")), trees


COUNTED = ("Downloading", "Extracting", "Pushing", "Loading layer")  # how often is a matter of time
PASSING = ("Waiting", "Verifying Checksum")  # dockerd leaves them out when its listener is slow


def drawn(found: list[dict[str, Any]]) -> tuple[list[Any], dict[str, list[str]], dict[str, set[str]]]:
    """Return what a client draws: lines without a layer, the steps of each layer in their order, the fields of each step."""
    lines: list[Any] = []
    layers: dict[str, list[str]] = {}
    fields: dict[str, set[str]] = {}
    for one in found:
        status = re.sub("sha256:[0-9a-f]{64}", "DIGEST", one.get("status", ""))
        fields.setdefault(status, set()).update(one)
        if "progressDetail" not in one or "id" not in one:
            lines.append((one.get("id"), status, one.get("stream"), list(one.get("aux", ()))))
        elif status in COUNTED:
            assert set(one["progressDetail"]) == {"current", "total"}
            assert re.fullmatch(r"\[=*> *\] +[0-9.]+[kM]?B(/[0-9.]+[kM]?B)?", one["progress"]) and one["progress"].index("]") == 52
        else:
            assert one["progressDetail"] == {}
            layers.setdefault(one["id"], []).append(status)
    return lines, layers, fields


def test_progress_is_told_as_dockerd_tells_it(daemon: Daemon, registry: DebianRegistry, dockerd: str) -> None:
    tars = [archive(member(f"f{number}", content=random.Random(number).randbytes(400_000))) for number in range(5)]
    name = f"{registry.host}/told"
    saved = docker_archive(config(*tars), *tars, tags=[f"{name}:1"])
    told: list[dict[str, Any]] = []
    for sock in (dockerd.removeprefix("unix://"), str(daemon.sock)):
        seen = {"load": drawn(messages(sock, "POST", "/images/load?quiet=0", saved))}
        for what in ("push", "push again"):
            seen[what] = drawn(messages(sock, "POST", f"/images/{name}/push?tag=1"))
        host = "unix://" + sock
        docker(host, "tag", f"{name}:1", f"{name}/mounted:1")
        seen["mount"] = drawn(messages(sock, "POST", f"/images/{name}/mounted/push?tag=1"))
        docker(host, "rmi", f"{name}:1", f"{name}/mounted:1")
        for what in ("pull", "pull again"):
            seen[what] = drawn(messages(sock, "POST", f"/images/create?fromImage={name}&tag=1"))
        docker(host, "rmi", f"{name}:1")
        shutil.rmtree(registry.folder / "data/docker/registry/v2/repositories")  # the other finds nothing there
        told.append(seen)
    theirs, ours = told
    begun, ended = "Pulling fs layer", ["Verifying Checksum", "Download complete", "Pull complete"]
    assert list(ours["pull"][1].values()) == [[begun, *ended]] * 3 + [[begun, "Waiting", *ended]] * 2
    for what, (lines, layers, fields) in theirs.items():
        assert ours[what][0] == lines, what
        steps = [[[one for one in layer if one not in PASSING] for layer in seen.values()] for seen in (ours[what][1], layers)]
        assert steps[0] == steps[1], what
        assert all(ours[what][2][status] == fields[status] for status in set(fields) & set(ours[what][2])), what


@needs("skopeo")
def test_skopeo_copies_ours_and_we_read_its_copies(daemon: Daemon, registry: DebianRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/sk:1"
    daemon.docker("tag", "busybox", name)
    daemon.docker("push", name)
    tool("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/layout:1")
    tool("skopeo", "copy", "--dest-tls-verify=false", "--dest-compress-format", "zstd", f"oci:{tmp_path}/layout:1",
         f"docker://{registry.host}/zstd:1")  # fmt: skip
    tool("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "v2s2", f"docker://{name}",
         f"docker://{registry.host}/v2s2:1")  # fmt: skip
    config = tool("skopeo", "inspect", "--tls-verify=false", "--config", "--raw", f"docker://{name}")
    assert json.loads(config)["architecture"]
    for other in ("zstd", "v2s2"):
        daemon.docker("pull", f"{registry.host}/{other}:1")
        assert daemon.docker("run", "--rm", f"{registry.host}/{other}:1", "echo", "hi").stdout == b"hi\n"
        daemon.docker("rmi", f"{registry.host}/{other}:1")
    daemon.docker("rmi", name)


@needs("umoci")
@pytest.mark.parametrize("image", ["busybox", "compressed"])
def test_umoci_reads_our_layout_and_we_read_what_it_changed(daemon: Daemon, compressed: str, tmp_path: Path, image: str) -> None:
    layout = tmp_path / "layout"
    layout.mkdir()
    tar = ["tar", "--format=ustar", "-C", str(layout)]
    daemon.docker("tag", compressed if image == "compressed" else "busybox", "umoci:latest")
    subprocess.run([*tar, "-x"], input=daemon.docker("save", "umoci").stdout, check=True)
    before = json.loads((layout / "index.json").read_text())["manifests"]
    assert tool("umoci", "list", "--layout", str(layout)).split() == ["latest"]
    tool("umoci", "unpack", "--image", f"{layout}:latest", str(tmp_path / "bundle"))
    assert (tmp_path / "bundle/rootfs/bin/busybox").stat().st_mode & 0o777 == 0o755

    (tmp_path / "made").write_text("by umoci\n")
    tool("umoci", "insert", "--image", f"{layout}:latest", "--tag", "changed", str(tmp_path / "made"), "/made")
    tool("umoci", "config", "--image", f"{layout}:changed", "--config.label", "from=umoci")
    index = json.loads((layout / "index.json").read_text())
    (changed,) = [one for one in index["manifests"] if one["digest"] != before[0]["digest"]]
    changed["annotations"]["io.containerd.image.name"] = "docker.io/library/umoci:changed"
    (layout / "index.json").write_text(json.dumps({**index, "manifests": [changed]}))
    (layout / "manifest.json").unlink()  # of what was there before
    daemon.docker("load", input=subprocess.run([*tar, "-c", "."], capture_output=True, check=True).stdout)
    manifest = json.loads((layout / "blobs" / changed["digest"].replace(":", "/")).read_text())
    assert identity(daemon, "umoci:changed")[0] == manifest["config"]["digest"]
    assert daemon.docker("run", "--rm", "umoci:changed", "cat", "/made").stdout == b"by umoci\n"
    assert daemon.ok("GET", "/images/umoci:changed/json")["Config"]["Labels"] == {"from": "umoci"}
    daemon.docker("rmi", "umoci:changed", "umoci:latest")


@needs("podman")
def test_podman_reads_ours_and_we_read_its(daemon: Daemon, registry: DebianRegistry) -> None:
    ours, theirs = f"{registry.host}/pod:1", f"{registry.host}/man:1"
    daemon.docker("tag", "busybox", ours)
    daemon.docker("push", ours)
    with podman() as command:
        tool(*command, "pull", "--tls-verify=false", ours)
        seen = json.loads(tool(*command, "image", "inspect", ours))[0]
        assert f"sha256:{seen['Id']}" == identity(daemon, ours)[0]
        assert seen["Digest"] == registry.manifest("pod", "1")[0]
        tool(*command, "push", "--tls-verify=false", "--format", "oci", ours, theirs)
        daemon.docker("pull", theirs)
        assert identity(daemon, theirs)[1] == [f"{registry.host}/man@{registry.manifest('man', '1')[0]}"]
        daemon.docker("rmi", ours, theirs)


def test_the_real_client_logs_in_pushes_and_pulls_with_a_password(daemon: Daemon, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    with DebianRegistry(password=True, tls=authority.issue("registry", "IP:127.0.0.1")) as registry:
        name = f"{registry.host}/secret:1"
        client = ["docker", "--config", str(tmp_path), "-H", daemon.host]

        def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
            return subprocess.run([*client, *arguments], input=stdin, capture_output=True, timeout=60, check=False)

        daemon.docker("tag", "busybox", name)
        assert b"no basic auth credentials" in run("push", name).stderr
        wrong = run("login", "-u", "user", "--password-stdin", registry.host, stdin=b"wrong")
        assert wrong.returncode == 1 and b"unauthorized" in wrong.stderr
        right = run("login", "-u", "user", "--password-stdin", registry.host, stdin=b"secret")
        assert right.returncode == 0 and b"Login Succeeded" in right.stdout, right
        assert run("push", name).returncode == 0
        assert run("rmi", name).returncode == 0
        pulled = run("pull", name)
        assert pulled.returncode == 0 and b"Status: Downloaded newer image" in pulled.stdout, pulled
        sampan = subprocess.run(
            [str(daemon.sampan.__globals__["SAMPAN"]), "-H", daemon.host, "pull", name], capture_output=True, check=False,
            env={**os.environ, "DOCKER_CONFIG": str(tmp_path)},
        )  # fmt: skip
        assert sampan.returncode == 0 and b"Image is up to date" in sampan.stdout, sampan
        daemon.docker("rmi", name)


def test_the_sampan_command_pulls_pushes_and_runs_what_is_missing(daemon: Daemon, registry: DebianRegistry) -> None:
    name = f"{registry.host}/cmd:1"
    daemon.sampan("tag", "busybox", name)
    assert f"1: digest: {registry_digest(daemon, registry, name)}" in daemon.sampan("push", name).stdout.decode()
    daemon.sampan("rmi", name)
    run = daemon.sampan("run", "--rm", name, "echo", "hi")
    assert run.stdout == b"hi\n" and b"Unable to find image" in run.stderr
    assert f"docker.io/library/{name}" not in daemon.sampan("pull", name).stdout.decode()
    daemon.sampan("rmi", name)
    never = daemon.sampan("run", "--rm", "--pull", "never", name, "true", check=False)
    assert never.returncode == 125 and b"No such image" in never.stderr
    always = daemon.sampan("run", "--rm", "--pull", "always", name, "true")
    assert b"Downloaded newer image" in always.stderr
    daemon.sampan("rmi", name)
    missing = daemon.sampan("pull", f"{registry.host}/none:1", check=False)
    assert missing.returncode == 1 and b"manifest unknown" in missing.stderr


def registry_digest(daemon: Daemon, registry: DebianRegistry, name: str) -> str:
    daemon.sampan("push", "-q", name)
    return registry.manifest("cmd", "1")[0]


@pytest.mark.parametrize("client", ["docker", "podman", "skopeo"])
def test_our_own_registry_serves_other_peoples_clients(daemon: Daemon, dockerd: str, client: str) -> None:
    if shutil.which(client) is None:
        pytest.skip(f"needs {client}")
    with Served() as registry:
        name, back = f"{registry.host}/team/base:1", f"{registry.host}/team/back:1"
        daemon.docker("tag", "busybox", name)
        daemon.docker("push", name)
        if client == "docker":
            docker(dockerd, "pull", name)
            docker(dockerd, "tag", name, back)
            docker(dockerd, "push", back)
        elif client == "skopeo":
            tool("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{name}", f"docker://{back}")
        else:
            with podman() as command:
                tool(*command, "pull", "--tls-verify=false", name)
                tool(*command, "push", "--tls-verify=false", name, back)
        daemon.docker("rmi", name)
        assert daemon.docker("run", "--rm", back, "echo", "back").stdout == b"back\n"
        assert identity(daemon, back)[0] == identity(daemon, "busybox")[0]
        daemon.docker("rmi", back)
