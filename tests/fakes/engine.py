"""An engine without a kernel: two containers, an image, and socket pairs for attaches."""

from __future__ import annotations

import asyncio
import socket
from builtins import list as List
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, BinaryIO

from sampan.api.backend import Filters
from sampan.build.agents import Sessions
from sampan.build.options import Options
from sampan.build.prune import Wanted
from sampan.errors import Conflict, InvalidRequest, NotFound, NotModified, Unauthorized
from sampan.wire import archive as a
from sampan.wire import builds as b
from sampan.wire import containers as c
from sampan.wire import images as i
from sampan.wire import networks as n
from sampan.wire import registry as r
from sampan.wire import stats as st
from sampan.wire import system as s
from sampan.wire import usage as u
from sampan.wire import volumes as v
from sampan.wire.resources import UpdateBody, Updated

ID = "f" * 64
IMAGE = "sha256:" + "a" * 64


class FakeStream:
    """An attach; `far` is the keeper's end."""

    def __init__(self, tty: bool = False) -> None:
        self.tty = tty
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.was_detached = False
        self.closed = asyncio.Event()

    def fileno(self) -> int:
        return self.near.fileno()

    def close(self) -> None:
        self.near.close()
        self.closed.set()

    def detached(self) -> None:
        self.was_detached = True


class FakeWait:
    def __init__(self) -> None:
        self.future: asyncio.Future[c.WaitResult] = asyncio.get_running_loop().create_future()
        self.cancelled = False

    async def result(self) -> c.WaitResult:
        return await self.future

    def cancel(self) -> None:
        self.cancelled = True


class FakeLogs:
    tty = False

    def __init__(self, frames: list[bytes], follow: bool) -> None:
        self.frames = frames
        self.follow = follow
        self.closed = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        for frame in self.frames:
            yield frame
        if self.follow:
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed.set()


class FakeBytes:
    """Some bytes on their way out, the tar of a path or a whole root."""

    def __init__(self, pieces: list[bytes], stat: a.PathStat) -> None:
        self.stat = stat
        self.pieces = pieces
        self.closed = False

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece

    async def close(self) -> None:
        self.closed = True


class FakeContainers:
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.streams: list[FakeStream] = []
        self.waits: list[FakeWait] = []
        self.open_logs: list[FakeLogs] = []
        self.out: list[FakeBytes] = []
        self.changed: list[a.Change] = []
        self.tty = False
        self.error: BaseException | None = None

    def _find(self, ref: str) -> str:
        if self.error is not None:
            raise self.error
        if ref.lstrip("/") != "web" and not (ref and ID.startswith(ref)):
            raise NotFound(f"No such container: {ref}")
        return ID

    async def create(self, name: str | None, body: c.CreateBody, platform: str = "") -> c.Created:
        self.calls.append(("create", body))
        if body.image == "missing":
            raise NotFound("No such image: missing:latest")
        return c.Created(id=ID)

    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> list[c.ContainerSummary]:
        self.calls.append(("list", filters))
        return [
            c.ContainerSummary(
                id=ID,
                names=["/web"],
                image="busybox",
                image_id=IMAGE,
                command="sh",
                created=1700000000,
                state="running",
                status="Up 5 seconds",
                host_config=c.SummaryHostConfig(network_mode="bridge"),
                network_settings=c.SummaryNetworks(),
            )
        ]

    async def inspect(self, ref: str, *, size: bool = False) -> c.ContainerInspect:
        return c.ContainerInspect(
            id=self._find(ref),
            created="2026-11-24T02:00:54.16402812Z",
            path="sh",
            args=[],
            state=c.ContainerState(status="running", running=True, started_at="", finished_at=""),
            image=IMAGE,
            name="/web",
            host_config=c.HostConfig(),
            config=c.ContainerConfig(tty=self.tty),
            network_settings=c.NetworkSettings(networks={"mine": c.EndpointSettings(aliases=["a"])}),
        )

    async def path_stat(self, ref: str, path: str) -> a.PathStat:
        self._find(ref)
        if not path:
            raise InvalidRequest("bad parameter: path cannot be empty")
        return a.PathStat(name=path.rpartition("/")[2], size=4096, mode=2147484141, mtime="2026-11-24T02:00:54.16402812Z")

    async def copy_out(self, ref: str, path: str) -> FakeBytes:
        self.out.append(FakeBytes([b"a" * 512, b"b" * 512], await self.path_stat(ref, path)))
        return self.out[-1]

    async def copy_in(self, ref: str, path: str, tar: BinaryIO, *, keep_kinds: bool, as_user: bool) -> None:
        self._find(ref)
        body = await asyncio.to_thread(tar.read)
        self.calls.append(("copy_in", (path, body, keep_kinds, as_user)))

    async def export(self, ref: str) -> FakeBytes:
        return await self.copy_out(ref, "/")

    async def commit(self, ref: str, options: a.CommitOptions, body: c.ContainerConfig) -> a.Committed:
        self._find(ref)
        self.calls.append(("commit", (options, body)))
        return a.Committed(id=IMAGE)

    async def changes(self, ref: str) -> List[a.Change]:
        self._find(ref)
        return self.changed

    async def start(self, ref: str) -> None:
        self._find(ref)
        if ref == "web":
            raise NotModified("already running")

    async def stop(self, ref: str, *, timeout: int | None, signal: str = "") -> None:
        self._find(ref)
        self.calls.append(("stop", (timeout, signal)))

    async def restart(self, ref: str, *, timeout: int | None, signal: str = "") -> None:
        self._find(ref)

    async def kill(self, ref: str, *, signal: str = "") -> None:
        self._find(ref)
        self.calls.append(("kill", signal))

    async def rename(self, ref: str, name: str) -> None:
        self._find(ref)

    async def pause(self, ref: str) -> None:
        self._find(ref)

    async def unpause(self, ref: str) -> None:
        self._find(ref)

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        self._find(ref)
        if not force:
            raise Conflict(f'cannot remove container "{ref}": container is running')

    async def prune(self, filters: Filters) -> c.PruneResult:
        return c.PruneResult()

    async def resize(self, ref: str, *, height: int, width: int) -> None:
        self._find(ref)
        self.calls.append(("resize", (height, width)))

    async def top(self, ref: str, ps_args: str) -> s.Top:
        self._find(ref)
        return s.Top(titles=["PID"], processes=[["1"]])

    async def stats(self, ref: str, *, one_shot: bool) -> st.ContainerStats:
        self.calls.append(("stats", one_shot))
        return st.ContainerStats(name="/web", id=self._find(ref), read="now", cpu_stats=st.CpuStats(online_cpus=2))

    def stats_stream(self, ref: str) -> AsyncGenerator[st.ContainerStats, None]:
        found = self._find(ref)

        async def samples() -> AsyncGenerator[st.ContainerStats, None]:
            for number in range(2):
                yield st.ContainerStats(name="/web", id=found, num_procs=number)

        return samples()

    async def update(self, ref: str, body: UpdateBody) -> Updated:
        self._find(ref)
        self.calls.append(("update", body))
        return Updated()

    async def registered_wait(self, ref: str, condition: str) -> FakeWait:
        self._find(ref)
        self.waits.append(FakeWait())
        return self.waits[-1]

    async def attach(self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, stream: bool, logs: bool) -> FakeStream:
        self._find(ref)
        self.streams.append(FakeStream(self.tty))
        return self.streams[-1]

    async def logs(self, ref: str, options: s.LogOptions) -> FakeLogs:
        self._find(ref)
        self.calls.append(("logs", options))
        frames = [b"\x01\0\0\0\0\0\0\x03hi\n", b"\x02\0\0\0\0\0\0\x04err\n"]
        self.open_logs.append(FakeLogs(frames, options.follow))
        return self.open_logs[-1]


class FakeExecs:
    def __init__(self) -> None:
        self.streams: list[FakeStream] = []
        self.started = asyncio.Event()
        self.error: BaseException | None = None

    async def create(self, container: str, body: c.ExecCreate) -> c.ExecCreated:
        return c.ExecCreated(id=ID)

    async def prepare(self, exec_id: str) -> None:
        if exec_id != ID:
            raise NotFound(f"No such exec instance: {exec_id}")

    async def start(self, exec_id: str, body: c.ExecStart) -> FakeStream | None:
        if self.error is not None:
            raise self.error
        if body.detach:
            return None
        self.streams.append(FakeStream(body.tty))
        self.started.set()
        return self.streams[-1]

    async def resize(self, exec_id: str, *, height: int, width: int) -> None:
        await self.prepare(exec_id)

    async def inspect(self, exec_id: str) -> c.ExecInspect:
        await self.prepare(exec_id)
        return c.ExecInspect(
            id=ID,
            running=False,
            exit_code=0,
            process_config=c.ExecProcess(tty=False, entrypoint="sh", arguments=[]),
            open_stdin=False,
            open_stderr=True,
            open_stdout=True,
            container_id=ID,
        )


class FakeImages:
    def __init__(self) -> None:
        self.read = -1
        self.asked: tuple[str, str, str, str] | None = None
        self.error: BaseException | None = None

    async def list(self, *, all: bool, filters: Filters, shared_size: bool, manifests: bool = False) -> List[i.ImageSummary]:
        return [i.ImageSummary(created=1700000000, id=IMAGE, size=5, repo_tags=[] if all else ["busybox:latest"])]

    async def inspect(self, ref: str) -> i.ImageInspect:
        if ref not in ("busybox", "registry:5000/a/b:tag"):
            raise NotFound(f"No such image: {ref}")
        return i.ImageInspect(id=IMAGE, architecture="amd64", size=5)

    async def history(self, ref: str) -> List[i.HistoryItem]:
        return [i.HistoryItem()]

    async def provides(self, refs: List[str], texts: List[str]) -> None:
        raise NotFound(f"{refs} {texts}")

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        if not repo:
            raise InvalidRequest("invalid reference format")

    async def remove(self, ref: str, *, force: bool, prune: bool) -> List[i.Deleted]:
        await self.inspect(ref)
        return [i.Deleted(untagged=ref)]

    async def prune(self, filters: Filters) -> i.PruneResult:
        return i.PruneResult()

    async def load(self, tar: BinaryIO, *, quiet: bool, only: Sequence[str] = ()) -> AsyncIterator[i.Progress]:
        self.read = await asyncio.to_thread(_drain, tar)
        if self.error is not None:
            raise self.error
        yield i.Progress(stream="Loaded image: <busybox>\n")

    async def import_(
        self, tar: BinaryIO, *, repo: str, tag: str, message: str, changes: List[str], platform: str
    ) -> AsyncIterator[i.Progress]:
        if self.error is not None:
            raise self.error
        self.read = await asyncio.to_thread(_drain, tar)
        yield i.Progress(status=IMAGE)

    async def import_from(
        self, source: str, *, repo: str, tag: str, message: str, changes: List[str], platform: str
    ) -> AsyncIterator[i.Progress]:
        yield i.Progress(status=f"Downloading from {source}")
        yield i.Progress(status=IMAGE)

    async def sbom(self, ref: str) -> bytes:
        return b'{"spdxVersion":"SPDX-2.3"}\n'

    async def bootstrap(self, recipe: str, *, tag: str) -> AsyncIterator[i.Progress]:
        if recipe != "busybox":
            raise InvalidRequest(f"unknown recipe {recipe!r}")
        yield i.Progress(status="done")

    async def check(self, *, repair: bool) -> List[s.Finding]:
        return [s.Finding(level="note" if repair else "error", subject="blob abc", text="is missing")]

    async def pull(self, image: str, *, tag: str, platform: str, auth: str) -> AsyncIterator[i.Progress]:
        self.asked = (image, tag, platform, auth)
        if image == "missing":
            raise NotFound("manifest for missing:latest not found: manifest unknown: manifest unknown")
        yield i.Progress(status=f"Pulling from library/{image}", id=tag)
        yield i.Progress(status="Pulling fs layer", id="a" * 12, progress_detail=i.ProgressDetail())
        if image == "broken":
            raise InvalidRequest("filesystem layer verification failed")

    async def push(self, image: str, *, tag: str, auth: str) -> AsyncIterator[i.Progress]:
        self.asked = (image, tag, "", auth)
        yield i.Progress(status=f"The push refers to repository [{image}]")
        yield i.Progress(progress_detail=i.ProgressDetail(), aux={"Tag": tag, "Digest": IMAGE, "Size": 527})

    async def distribution(self, ref: str, *, auth: str) -> r.Distribution:
        descriptor = r.OfDescriptor(media_type="application/vnd.oci.image.index.v1+json", digest=IMAGE, size=5)
        return r.Distribution(descriptor=descriptor, platforms=[r.OfPlatform(architecture="amd64", os="linux")])

    async def search(self, term: str, *, limit: int, filters: Filters, auth: str) -> List[r.SearchResult]:
        return [r.SearchResult(name=term, star_count=limit)]

    async def login(self, body: r.AuthConfig) -> r.AuthAnswer:
        if body.password != "right":
            raise Unauthorized("unauthorized: incorrect username or password")
        return r.AuthAnswer(identity_token="token")

    async def save(self, refs: List[str]) -> AsyncIterator[bytes]:
        await self.inspect(refs[0])
        yield b"tar"


def _drain(tar: BinaryIO) -> int:
    size = 0
    while data := tar.read(1 << 20):
        size += len(data)
    return size


class FakeNetworks:
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    async def create(self, body: n.NetworkCreate) -> n.NetworkCreated:
        self.calls.append(("create", body))
        return n.NetworkCreated(id=ID)

    async def remove(self, ref: str) -> None:
        await self.inspect(ref, verbose=False, scope="")

    async def audit(self) -> List[n.Reach]:
        return [n.Reach(container="web", network="bridge", address="0.0.0.0:80", port="80/tcp", reached_from=["all"])]

    async def repair(self) -> n.Repaired:
        return n.Repaired(done=["tables"])

    async def prune(self, filters: Filters) -> n.NetworksPruned:
        self.calls.append(("prune", filters))
        return n.NetworksPruned(networks_deleted=["old"])

    async def connect(self, ref: str, body: n.NetworkConnect) -> None:
        self.calls.append(("connect", body))

    async def disconnect(self, ref: str, body: n.NetworkDisconnect) -> None:
        self.calls.append(("disconnect", body))

    async def list(self, filters: Filters) -> List[n.Network]:
        return [await self.inspect("bridge", verbose=False, scope="")]

    async def inspect(self, ref: str, *, verbose: bool, scope: str) -> n.Network:
        if ref != "bridge":
            raise NotFound(f"network {ref} not found")
        return n.Network(name="bridge", id=ID, created="", driver="bridge", ipam=n.Ipam())


class FakeVolumes:
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    async def create(self, body: v.CreateBody) -> v.Volume:
        self.calls.append(("create", body))
        return v.Volume(name=body.name or ID, options=body.driver_opts, labels=body.labels)

    async def list(self, filters: Filters) -> v.VolumeList:
        self.calls.append(("list", filters))
        return v.VolumeList(volumes=[await self.inspect("data")])

    async def inspect(self, name: str) -> v.Volume:
        if name != "data":
            raise NotFound(f"get {name}: no such volume")
        return v.Volume(name=name, created_at="2026-11-24T02:00:54Z", mountpoint="/v/data/_data")

    async def remove(self, name: str, *, force: bool) -> None:
        if not force:
            raise Conflict(f"remove {name}: volume is in use - [{ID}]")

    async def prune(self, filters: Filters) -> v.PruneResult:
        self.calls.append(("prune", filters))
        return v.PruneResult(volumes_deleted=["data"], space_reclaimed=5)


class FakeSystem:
    def __init__(self) -> None:
        self.events_closed = asyncio.Event()

    async def info(self) -> s.Info:
        return s.Info(id="x", server_version="0.1.0", name="fake")

    async def version(self) -> s.Version:
        return s.Version(
            platform=s.Platform(name="Sampan"),
            version="0.1.0",
            api_version="1.50",
            min_api_version="1.24",
            arch="amd64",
            kernel_version="6",
        )

    async def jobs(self, *, all: bool) -> List[s.Job]:
        return []

    async def usage(self, kinds: tuple[str, ...]) -> u.DiskUsage:
        if "nonsense" in kinds:
            raise InvalidRequest("unknown object type: nonsense")
        self.kinds = kinds
        return u.DiskUsage(
            layers_size=2000, images=[i.ImageSummary(created=1, id=IMAGE, size=1500, shared_size=0, containers=1)], containers=[],
            volumes=[v.Volume(name="data", usage_data=v.UsageData(size=1_500_000, ref_count=0))], build_cache=[],
        )  # fmt: skip

    async def explain(self, ref: str) -> s.Explanation:
        return s.Explanation(id=ID, name=ref, sections={})

    async def doctor(self) -> List[s.Finding]:
        return [s.Finding(level="ok", subject="kernel", text="fine")]

    async def events(self, *, since: str, until: str, filters: Filters) -> AsyncIterator[s.EventMessage]:
        try:
            yield s.EventMessage(type="container", action="start", actor=s.Actor(id=ID), time=1, time_nano=1)
            if not until:
                await asyncio.Event().wait()
        finally:
            self.events_closed.set()


class FakeBuilder:
    """Says what it was asked for, as a stream."""

    def __init__(self) -> None:
        self.asked: list[tuple[Options, str, bytes]] = []
        self.pruned: list[Wanted] = []
        self.sessions = Sessions()
        self.summary = b.BuildSummary(
            id="a1" * 12, name="app", target="", started="2026-01-01T00:00:00Z", duration=1.5, outcome="done", error="",
            image="sha256:abc", steps=2, cached=1,
        )  # fmt: skip
        self.error: Exception | None = None

    async def build(self, tar: BinaryIO, options: Options, remote: str = "") -> AsyncIterator[i.Progress]:
        content = await asyncio.to_thread(tar.read)
        self.asked.append((options, remote, content))
        if self.error is not None:
            raise self.error
        yield i.Progress(stream="Successfully built abc\n")

    async def usage(self) -> List[u.CacheRecord]:
        return [u.CacheRecord(id="abc", type="regular", description="RUN true", size=1000, usage_count=2)]

    async def tell(self, key: str, upload: BinaryIO) -> i.ContextAnswer:
        return i.ContextAnswer(token=key, wanted=[(await asyncio.to_thread(upload.read)).decode()])

    async def exported(self, keys: List[str]) -> AsyncIterator[bytes]:
        yield " ".join(keys).encode()

    async def builds(self) -> List[b.BuildSummary]:
        return [self.summary]

    async def inspect(self, build: str) -> b.BuildDetails:
        return b.BuildDetails(summary=self.summary, steps=[b.BuildStep(text="RUN x", duration=0.5, outcome="done")])

    async def said(self, build: str) -> bytes:
        return build.encode()

    async def forget(self, build: str) -> None:
        self.asked.clear()

    async def prune(self, wanted: Wanted) -> i.BuildPruned:
        self.pruned.append(wanted)
        return i.BuildPruned(caches_deleted=["a"], space_reclaimed=7)


class FakeJob:
    id = "1"

    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.name = name

    def __enter__(self) -> FakeJob:
        self.log.append(f"+{self.name}")
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.log.append(f"-{self.name} {'OK' if error is None else 'ERR'}")


class FakeEngine:
    def __init__(self) -> None:
        self.containers = FakeContainers()
        self.execs = FakeExecs()
        self.images = FakeImages()
        self.networks = FakeNetworks()
        self.system = FakeSystem()
        self.volumes = FakeVolumes()
        self.builder = FakeBuilder()
        self.jobs: list[str] = []
        self.arguments: list[Mapping[str, str]] = []

    def job(self, name: str, arguments: Mapping[str, str]) -> FakeJob:
        self.arguments.append(arguments)
        return FakeJob(self.jobs, name)
