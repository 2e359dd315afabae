"""The keeper's half of starting a process: namespaces, id maps, and the conversation with init drawn in messages.py."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from dataclasses import dataclass

from sampan import messages
from sampan.cgroups import Doors
from sampan.errors import StepFailed
from sampan.kernel.fds import Fd, keep_only
from sampan.kernel.process import Clone, clone, pidfd_signal, setns
from sampan.launch import init
from sampan.launch.channel import Channel
from sampan.oci.runtime import IdMapping, Linux

KINDS = {
    "user": Clone.NEWUSER, "mount": Clone.NEWNS, "pid": Clone.NEWPID, "network": Clone.NEWNET, "ipc": Clone.NEWIPC,
    "uts": Clone.NEWUTS, "cgroup": Clone.NEWCGROUP, "time": Clone.NEWTIME,
}  # fmt: skip
_JOIN_ORDER = (
    "user",
    "mount",
    "pid",
    "network",
    "ipc",
    "uts",
    "cgroup",
    "time",
)  # the user namespace gives the rights
PATIENCE = 60.0  # seconds that a step of init may take: a dead NFS server must not hold the keeper for ever


@dataclass
class Born:
    """A process that waits to be let go on; this side owns its pidfd and the channel."""

    pid: int
    pidfd: Fd
    channel: Channel

    def kill(self) -> None:
        """Kill and reap it, whatever it is doing."""
        try:
            pidfd_signal(self.pidfd, 9)
            os.waitid(os.P_PIDFD, self.pidfd.fileno(), os.WEXITED)
        except (ProcessLookupError, ChildProcessError):
            pass
        self.channel.close()


@dataclass(frozen=True)
class Namespaces:
    """What to make (clone flags) and what to join (descriptor, type)."""

    make: Clone
    join: tuple[tuple[Fd, Clone], ...]


def namespaces_of(linux: Linux, fds: Sequence[Fd]) -> Namespaces:
    """Return what the config asks for.  The control group namespace is left to init.  Raises StepFailed."""
    make, join, seen = Clone.NONE, [], set()
    for wanted in linux.namespaces:
        if wanted.type not in KINDS or wanted.type in seen:
            raise StepFailed("namespaces", 0, f"namespace {wanted.type!r} is unknown or named twice")
        seen.add(wanted.type)
        if wanted.fd is not None:
            join.append((_JOIN_ORDER.index(wanted.type), fds[wanted.fd], KINDS[wanted.type]))
        elif wanted.type != "cgroup":
            make |= KINDS[wanted.type]
    if not make & Clone.NEWNS:
        raise StepFailed("namespaces", 0, "a container needs a mount namespace of its own")
    join.sort(key=lambda item: item[0])
    return Namespaces(make, tuple((fd, kind) for _, fd, kind in join))


def give_birth(wanted: Namespaces, job: init.Job, place: init.Place | None, doors: Doors) -> Born:
    """Make the process in the control group behind `doors`; it waits for Go("maps").  Raises StepFailed or OSError."""
    ours, theirs = Channel.pair()
    try:
        if wanted.join:
            return _through_namespaces(wanted, job, place, doors, (ours, theirs))
        pid, pidfd = clone(wanted.make, cgroup=doors.folder)
        if pid == 0:
            _keep_own(wanted, job, place, theirs, doors)
            init.run(job, place, theirs, doors)
        if pidfd is None:
            raise StepFailed("clone", 0, "the kernel gave no pidfd")
        return Born(pid, pidfd, ours)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        doors.close()


def _through_namespaces(
    wanted: Namespaces, job: init.Job, place: init.Place | None, doors: Doors, ends: tuple[Channel, Channel]
) -> Born:
    """Join from a process in between, so that the keeper itself stays outside; its child gets the keeper as parent."""
    ours, theirs = ends
    middle, watch = clone(cgroup=doors.folder)
    if middle == 0:
        _keep_own(wanted, job, place, theirs, doors)
        try:
            doors.enter()
            for fd, kind in wanted.join:
                setns(fd, kind)
            pid, pidfd = clone(wanted.make | Clone.PARENT)
            if pid == 0:
                init.run(job, place, theirs, doors)
            theirs.send(messages.Born(pid=pid), [pidfd] if pidfd is not None else [])
        except OSError as error:
            theirs.send(messages.Failed(step="namespaces", code=error.errno or 0, text=str(error)))
        finally:
            os._exit(0)
    theirs.close()
    if watch is not None:
        watch.close()
    message, fds = hear(ours)
    os.waitpid(middle, 0)
    if isinstance(message, messages.Born) and fds:
        return Born(message.pid, fds[0], ours)
    raise failure(message)


def _keep_own(wanted: Namespaces, job: init.Job, place: init.Place | None, theirs: Channel, doors: Doors) -> None:
    """Close what is the keeper's: no host folder or socket may be open in a process that enters (row 18)."""
    keep = [fd for fd, _ in wanted.join] + list(job.stdio or ()) + doors.tasks
    if job.reaper is not None:
        keep.append(job.reaper)
    if place is not None:
        keep += [place.rootfs, *place.trees]
    keep_only([0, 1, 2, theirs.fileno(), *(fd.fileno() for fd in keep if not fd.closed)])


def write_maps(pid: int, linux: Linux) -> None:
    """Write the id maps of a fresh user namespace, from outside, as the host's root (user_namespaces(7))."""
    for name, mappings in (("uid_map", linux.uid_mappings), ("gid_map", linux.gid_mappings)):
        write_proc_file(f"/proc/{pid}/{name}", "".join(f"{_line(mapping)}\n" for mapping in mappings))


def _line(mapping: IdMapping) -> str:
    return f"{mapping.container_id} {mapping.host_id} {mapping.size}"


def write_proc_file(path: str, text: str) -> None:
    """Write in one write(2), which these files insist on."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def host_uid(pid: int, uid: int) -> int | None:
    """Return what the container's `uid` is outside, None when it has no number there."""
    fd = os.open(f"/proc/{pid}/uid_map", os.O_RDONLY | os.O_CLOEXEC)
    try:
        table = os.read(fd, 65536)
    finally:
        os.close(fd)
    for line in table.splitlines():
        inside, outside, size = (int(word) for word in line.split())
        if inside <= uid < inside + size:
            return outside + uid - inside
    return None


def hear(channel: Channel) -> tuple[messages.AnyMessage | None, list[Fd]]:
    """Return the next message from init.  Raises StepFailed when it takes too long."""
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    if not poller.poll(PATIENCE * 1000):
        raise StepFailed("init", 110, f"no sign of life for {PATIENCE:.0f} seconds")
    return channel.receive()


def failure(message: messages.AnyMessage | None) -> StepFailed:
    """Return the error that an answer other than the expected one means."""
    if isinstance(message, messages.Failed):
        return StepFailed(message.step, message.code, message.text)
    return StepFailed("init", 0, "the process died before it could start the program")


def let_go(born: Born) -> None:
    """Say Go("exec") and return once execve has succeeded: the close-on-exec channel ends.  Raises StepFailed."""
    born.channel.send(messages.Go(stage="exec"))
    message, _ = hear(born.channel)
    if message is not None:
        raise failure(message)
    born.channel.close()
