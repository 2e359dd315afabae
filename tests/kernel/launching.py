"""A small harness: a root file system of busybox, a spawner, and containers made the way the engine makes them."""

from __future__ import annotations

import os
import select
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sampan import messages
from sampan.errors import StepFailed
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.mount import clone_tree, set_attributes
from sampan.kernel.process import Clone, pidfd_open, pidfd_signal, unshare
from sampan.launch.channel import Channel
from sampan.launch.client import Spawner
from sampan.launch.filters import Filters
from sampan.launch.host import Host
from sampan.launch.nursery import Nursery
from sampan.launch.start import Launch, Meanwhile, Started, start
from sampan.oci.runtime import Capabilities, IdMapping, Linux, Mount, Namespace, Process, Root, Spec

BASE = 6_553_600
DEFAULT_CAPS = tuple(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)
MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/does-not-exist")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
MOUNTS = (
    Mount(destination="/proc", type="proc", options=("nosuid", "noexec", "nodev")),
    Mount(destination="/dev", type="tmpfs", options=("nosuid", "strictatime", "mode=755", "size=65536k")),
    Mount(
        destination="/dev/pts",
        type="devpts",
        options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    Mount(destination="/sys", type="sysfs", options=("nosuid", "noexec", "nodev", "ro")),
    Mount(destination="/sys/fs/cgroup", type="cgroup", options=("ro", "nosuid", "noexec", "nodev")),
    Mount(destination="/dev/mqueue", type="mqueue", options=("nosuid", "noexec", "nodev")),
    Mount(destination="/dev/shm", type="tmpfs", options=("nosuid", "noexec", "nodev", "mode=1777", "size=67108864")),
)
ENV = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)


def make_rootfs(place: Path) -> Path:
    """Return a root file system with a static busybox."""
    root = place / "rootfs"
    for folder in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "home/ann"):
        (root / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for name in [
        "sh",
        "cat",
        "ls",
        "id",
        "env",
        "sleep",
        "stat",
        "readlink",
        "mount",
        "mkdir",
        "touch",
        "hostname",
        "echo",
        "true",
        "false",
        "kill",
        "ps",
        "head",
        "wc",
        "tty",
        "stty",
        "grep",
        "ip",
        "dd",
        "mknod",
        "chroot",
        "unshare",
        "tr",
        "seq",
        "pwd",
        "test",
        "printf",
        "sysctl",
    ]:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001:Ann:/home/ann:/bin/sh\n99999999999:x:0:0::/:\n"
    )
    (root / "etc/group").write_text("root:x:0:\nann:x:1001:\nwheel:x:10:root,ann\naudio:x:29:ann\n")
    return root


def identity_userns(base: int = BASE) -> Fd:
    """Return a user namespace that maps 65536 ids from `base`."""
    reading, writing = os.pipe()
    done_reading, done_writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        unshare(Clone.NEWUSER)
        os.write(writing, b"x")
        os.close(done_writing)
        os.read(done_reading, 1)
        os._exit(0)
    os.read(reading, 1)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text(f"0 {base} 65536\n")
    found = open_fd(f"/proc/{pid}/ns/user", os.O_RDONLY)
    for fd in (reading, writing, done_reading, done_writing):
        os.close(fd)
    os.waitpid(pid, 0)
    return found


class Box:
    """A container as a test sees it.  answer: Started, or the StepFailed of a start that failed."""

    control: Channel  # of one that runs

    def __init__(self, name: str, state: Path, stream: socket.socket) -> None:
        self.name, self.state = name, state
        self.stream: socket.socket | None = stream
        self.pidfd: Fd | None = None
        self.answer: Any = None
        self.inbox: list[tuple[Any, list[Fd]]] = []

    def hear(self, kind: Any, timeout: float = 20.0) -> Any:
        """Return the next message, which must be of `kind`; its descriptors go to self.fds."""
        ready, _, _ = select.select([self.control], [], [], timeout)
        assert ready, f"no {kind} from the keeper"
        message, self.fds = self.control.receive()
        assert isinstance(message, kind), message
        return message

    def output(self) -> bytes:
        """Return all that comes out until the end, without frames."""
        raw = b""
        assert self.stream is not None
        while data := self.stream.recv(65536):
            raw += data
        return raw

    def exited(self) -> messages.Exited:
        found = self.hear(messages.Exited)
        self.control.send(messages.Release())
        return found

    def exec(self, *args: str, stdin: bool = False, terminal: bool = False, **fields: Any) -> socket.socket:
        """Start a process in the container; return its stdio socket."""
        ours, theirs = socket.socketpair()
        process = Process(
            args=args,
            env=fields.pop("env", ENV),
            terminal=terminal,
            cwd=fields.pop("cwd", "/"),
            capabilities=Capabilities(bounding=DEFAULT_CAPS, permitted=DEFAULT_CAPS, effective=DEFAULT_CAPS),
        )
        with theirs:
            self.control.send(
                messages.Exec(
                    exec_id=fields.pop("exec_id", "e1"),
                    process=process,
                    open_stdin=stdin,
                    attachments=(messages.Attachment(fd=0, stdin=stdin),),
                    **fields,
                ),
                [Fd(theirs.fileno())],
            )
        return ours


class Boxes:
    """Makes containers; its owner closes it."""

    def __init__(self, place: Path, spawner: Spawner) -> None:
        self.place, self.spawner = place, spawner
        self.rootfs = make_rootfs(place)
        for entry in [self.rootfs, *self.rootfs.rglob("*")]:
            os.lchown(entry, 0, 0)
        self.host, self.filters = Host.look(), Filters()
        self.nursery = Nursery(spawner.breed, self.host)
        self.nursery.fill()
        self.made: list[Box] = []
        self.keepers: list[int] = []

    def start(
        self,
        *args: str,
        userns: bool = True,
        terminal: bool = False,
        stdin: bool = False,
        expect: Any = Started,
        meanwhile: Callable[[Fd], None] = lambda network: None,
        process: dict[str, Any] | None = None,
        linux: dict[str, Any] | None = None,
        spec: dict[str, Any] | None = None,
        root: Root = Root(),
        mounts: tuple[Mount, ...] = MOUNTS,
        trees: tuple[Fd, ...] = (),
        **launch: Any,
    ) -> Box:
        """Start a container; its stdio is joined to box.stream.  meanwhile: what the daemon does while init builds."""
        name = f"box{len(self.made)}"
        state = self.place / name
        state.mkdir()
        kinds = ["mount", "pid", "network", "ipc", "uts", "cgroup", *(["user"] if userns else [])]
        maps = (IdMapping(container_id=0, host_id=BASE, size=65536),) if userns else ()
        process_fields: dict[str, Any] = {
            "args": args,
            "env": ENV,
            "terminal": terminal,
            "capabilities": Capabilities(bounding=DEFAULT_CAPS, permitted=DEFAULT_CAPS, effective=DEFAULT_CAPS),
            **(process or {}),
        }
        linux_fields: dict[str, Any] = {
            "namespaces": tuple(Namespace(type=kind) for kind in kinds),
            "uid_mappings": maps,
            "gid_mappings": maps,
            "masked_paths": MASKED,
            "readonly_paths": READ_ONLY,
            **(linux or {}),
        }
        wanted = Spec(
            process=Process(**process_fields),
            root=root,
            hostname="box",
            mounts=mounts,
            linux=Linux(**linux_fields),
            **(spec or {}),
        )
        out, inner = socket.socketpair()
        tree = clone_tree(str(self.rootfs))
        if userns:
            with identity_userns() as namespace:
                set_attributes(tree, userns=namespace)
        box = Box(name, state, out)
        self.made.append(box)
        attachments = (messages.Attachment(fd=0, stdin=stdin),)
        wish = Launch(
            id=name, spec=wanted, state_dir=str(state), attachments=attachments, open_stdin=stdin, stdin_once=stdin,
            **launch,
        )  # fmt: skip
        with tree, inner:
            self.began = time.perf_counter()
            try:
                fds, both = [Fd(inner.fileno()), tree, *trees], Meanwhile(lambda: tree, meanwhile)
                box.answer = start(self.nursery, self.filters, self.host, wish, fds, both)
            except StepFailed as error:
                box.answer = error
        assert isinstance(box.answer, expect), box.answer
        if isinstance(box.answer, Started):
            box.pidfd, box.control = box.answer.pidfd, box.answer.keeper
            self.keepers.append(box.answer.keeper_pid)
        return box

    def run(self, script: str, **fields: Any) -> tuple[int, str]:
        """Run a shell script to its end; return status and everything it wrote, streams joined."""
        box = self.start("/bin/sh", "-c", script, **fields)
        text = unframe(box.output()) if not fields.get("terminal") else box.output()
        return box.exited().status, text.decode()

    def close(self) -> None:
        for box in self.made:
            if box.pidfd is not None:
                try:
                    pidfd_signal(box.pidfd, 9)
                except ProcessLookupError:
                    pass
                box.pidfd.close()
                try:
                    box.control.send(messages.Release())
                except OSError:
                    pass
                box.control.close()
            if box.stream is not None:
                box.stream.close()
        self.nursery.close()
        self.wait_gone()  # while the spawner is there to reap them
        self.spawner.close()
        self.filters.close()

    def wait_gone(self) -> None:
        """Wait until every keeper has left."""
        for keeper in self.keepers:
            try:
                with pidfd_open(keeper) as pidfd:
                    assert select.select([pidfd], [], [], 20)[0], "a keeper stays"
            except ProcessLookupError:
                pass


def unframe(raw: bytes) -> bytes:
    """Return the payloads of a multiplexed stream."""
    found = b""
    while raw:
        size = int.from_bytes(raw[4:8], "big")
        assert raw[0] in (1, 2) and raw[1:4] == b"\0\0\0" and len(raw) >= 8 + size
        found += raw[8 : 8 + size]
        raw = raw[8 + size :]
    return found
