"""docker-py, unchanged, against Sampan: the same flows as the docker client's."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Iterator

import pytest

from support.daemon import Daemon, busybox_rootfs

docker = pytest.importorskip("docker")


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=daemon.host, version="auto")
    yield made
    made.close()
    warnings.simplefilter("ignore", ResourceWarning)  # docker-py leaves hijacked sockets to the collector


def test_ping_version_info(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.50"
    assert client.info()["OSType"] == "linux"


def test_run_returns_the_output(client: docker.DockerClient) -> None:
    assert client.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"


def test_run_that_fails_raises_with_the_exit_code(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)

    assert caught.value.exit_status == 3
    assert caught.value.stderr == b"bad\n"


def test_the_life_of_a_container(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "sleep 600", detach=True, name="py", hostname="here", environment={"A": "b"})

    assert [c.name for c in client.containers.list()] == ["py"]
    assert container.exec_run("hostname") == (0, b"here\n")
    assert container.exec_run(["sh", "-c", "echo $A; exit 4"]) == (4, b"b\n")
    code, (out, err) = container.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
    assert (code, out, err) == (0, b"o\n", b"e\n")
    container.kill()
    assert container.wait()["StatusCode"] == 137
    container.restart(timeout=0)
    container.reload()
    assert container.status == "running"
    container.remove(force=True)
    with pytest.raises(docker.errors.NotFound):
        container.reload()


def test_logs_stream_and_attach(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", ["sh", "-c", "read a; echo got $a"], stdin_open=True, detach=True)
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    container.start()
    raw = getattr(stream, "_sock", stream)
    raw.sendall(b"this\n")
    assert container.wait()["StatusCode"] == 0
    assert b"".join(container.logs(stream=True)) == b"got this\n"
    raw.close()
    stream.close()


def test_images_load_tag_save_remove(client: docker.DockerClient) -> None:
    client.images.get("busybox").tag("py", "1")
    data = b"".join(client.images.get("py:1").save(named="py:1"))
    client.images.remove("py:1")
    client.images.load(data)
    assert client.images.get("py:1").history()
    client.images.remove("py:1")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("py:1")


def test_a_missing_image_is_image_not_found(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.ImageNotFound):
        client.api.create_container("nosuch:1", "true")


def test_import_from_data(client: docker.DockerClient) -> None:
    client.api.import_image_from_data(io.BytesIO(busybox_rootfs()).getvalue(), repository="pyimp", tag="1")
    assert client.containers.run("pyimp:1", ["echo", "x"], remove=True) == b"x\n"
    client.images.remove("pyimp:1")


def test_events_decode(client: docker.DockerClient) -> None:
    events = client.events(decode=True, filters={"type": "container"})
    client.containers.run("busybox", "true", remove=True, name="evt")
    seen = []
    for event in events:
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            break
    events.close()
    assert seen[0] == "create"
    assert "die" in seen


def test_networks(client: docker.DockerClient) -> None:
    assert {"bridge", "host", "none"} <= {network.name for network in client.networks.list()}


def test_volumes(client: docker.DockerClient) -> None:
    volume = client.volumes.create("pyvol", labels={"a": "b"})
    client.containers.run(
        "busybox", ["sh", "-c", "echo kept >/v/file"], volumes={"pyvol": {"bind": "/v", "mode": "rw"}}, remove=True
    )
    shown = client.containers.run("busybox", ["cat", "/v/file"], volumes={"pyvol": {"bind": "/v", "mode": "ro"}}, remove=True)

    assert shown == b"kept\n"
    assert [one.name for one in client.volumes.list(filters={"label": "a=b"})] == ["pyvol"]
    volume.remove()
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get("pyvol")


def test_stats_and_update(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "600"], detach=True, mem_limit="64m")
    samples = container.stats(decode=True)
    first, second = next(samples), next(samples)
    samples.close()

    assert second["preread"] == first["read"] and second["memory_stats"]["limit"] == 64 << 20
    assert container.stats(stream=False)["pids_stats"]["current"] == 1
    assert container.update(mem_limit="32m") == {"Warnings": None}
    container.reload()
    assert container.attrs["HostConfig"]["Memory"] == 32 << 20


def test_df_prune_and_events(client: docker.DockerClient) -> None:
    client.images.prune()  # what other tests left untagged
    before = int(time.time())
    client.containers.run("busybox", ["true"], name="gone", volumes={"pyv": {"bind": "/v"}})
    usage = client.df()

    assert [one["Names"] for one in usage["Containers"]] == [["/gone"]] and usage["LayersSize"] > 0
    assert next(one for one in usage["Volumes"] if one["Name"] == "pyv")["UsageData"]["RefCount"] == 1
    assert len(client.containers.prune()["ContainersDeleted"]) == 1
    assert client.volumes.prune(filters={"all": True})["VolumesDeleted"] == ["pyv"]
    assert client.images.prune()["ImagesDeleted"] is None
    events = client.events(since=before, until=int(time.time()) + 1, decode=True, filters={"container": "gone"})
    told = [one["Action"] for one in events]
    assert told[0] == "create" and told[-1] == "destroy" and {"start", "die"} <= set(told)
