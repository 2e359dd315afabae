"""Making a process in namespaces: clone or join, id maps, and the conversation with init drawn in messages.py."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NoReturn

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
_JOIN_ORDER = tuple(KINDS)  # the user namespace gives the rights over the others
PATIENCE = 60.0  # seconds that a step of init may take: a dead NFS server must not hold the keeper for ever


@dataclass
class Born:
    """A process that waits to be told what it is; this side owns its pidfd and the channel."""

    pid: int
    pidfd: Fd
    channel: Channel
    helper: int = 0  # a process that has ended and waits for the caller's parent to reap it

    def kill(self) -> None:
        """Kill it, whatever it is doing, and reap it when it is the caller's child."""
        try:
            pidfd_signal(self.pidfd, 9)
            os.waitid(os.P_PIDFD, self.pidfd.fileno(), os.WEXITED)
        except (ProcessLookupError, ChildProcessError):
            pass
        self.channel.close()


@dataclass(frozen=True)
class Namespaces:
    """What to make (clone flags) and what to join (descriptor, type)."""

    make: int
    join: tuple[tuple[Fd, int], ...] = ()


def namespaces_of(linux: Linux, fds: Sequence[Fd]) -> Namespaces:
    """Return what the config asks for.  The control group namespace is left to init.  Raises StepFailed."""
    make, join, seen = 0, [], set()
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


def give_birth(wanted: Namespaces, doors: Doors, *, early: bool = False) -> Born:
    """Make a process that waits for its Task; its parent is the caller's parent.

    On cgroup v2, and wherever namespaces are joined, it is in the group of `doors` from the first, and these are closed;
    otherwise the caller sends `doors` after it with Go("group").  early: nobody waits for it yet.
    Raises StepFailed or OSError.
    """
    ours, theirs = Channel.pair()
    with ExitStack() as undo:
        undo.callback(ours.close)
        try:
            if wanted.join:
                born = _through_namespaces(wanted, doors, (ours, theirs))
            else:
                born = _clone(wanted.make | Clone.PARENT, doors, ours, lambda: _live(theirs, early=early))
        finally:
            theirs.close()
        undo.pop_all()
    return born


def give_birth_inside(enter: Sequence[tuple[Fd, int]], doors: Doors) -> Born:
    """Make a child that joins the namespaces by itself; it waits for its Task.  Consumes `doors`.

    The pid namespace must be the one of the caller's children already (setns(2): it takes effect with the next fork).
    Raises StepFailed or OSError.
    """
    ours, theirs = Channel.pair()
    with ExitStack() as undo:
        undo.callback(ours.close)
        try:
            born = _clone(Clone.NONE, doors, ours, lambda: _join_and_live(theirs, enter, doors))
        finally:
            theirs.close()
            doors.close()
        undo.pop_all()
    return born


def _clone(flags: int, doors: Doors, ours: Channel, child: Callable[[], NoReturn]) -> Born:
    pid, pidfd = clone(flags, cgroup=doors.folder)
    if pid == 0:
        child()
    if pidfd is None:
        raise StepFailed("clone", 0, "the kernel gave no pidfd")
    return Born(pid, pidfd, ours)


def _live(theirs: Channel, *, early: bool = False) -> NoReturn:
    """In the child: hold nothing but the channel, and whatever happens never run on as a second starter."""
    try:
        keep_only([0, 1, 2, theirs.fileno()])
        init.run(theirs, early=early)
    except OSError as error:
        theirs.send(messages.Failed(step="descriptors", code=error.errno or 0, text=str(error)))
    finally:
        os._exit(127)


def _join_and_live(theirs: Channel, enter: Sequence[tuple[Fd, int]], doors: Doors) -> NoReturn:
    try:
        # No host folder or socket may be open in a process that enters (row 18).
        keep_only([0, 1, 2, theirs.fileno(), *(fd.fileno() for fd, _ in enter), *(fd.fileno() for fd in doors.tasks)])
        doors.enter()
        for fd, kind in enter:
            setns(fd, kind)
    except OSError as error:
        theirs.send(messages.Failed(step="namespaces", code=error.errno or 0, text=str(error)))
        os._exit(127)
    _live(theirs)


def _through_namespaces(wanted: Namespaces, doors: Doors, ends: tuple[Channel, Channel]) -> Born:
    """Join from a process in between, so that the caller itself stays outside; that one's parent is the caller's too."""
    ours, theirs = ends
    middle, watch = clone(Clone.PARENT, cgroup=doors.folder)
    if middle == 0:
        try:
            # No host folder or socket may be open in a process that enters (row 18).
            keep_only([0, 1, 2, theirs.fileno(), *(fd.fileno() for fd, _ in wanted.join), *(fd.fileno() for fd in doors.tasks)])
            doors.enter()
            for fd, kind in wanted.join:
                setns(fd, kind)
            pid, pidfd = clone(wanted.make | Clone.PARENT)
            if pid == 0:
                _live(theirs)
            theirs.send(messages.Born(pid=pid), [pidfd] if pidfd is not None else [])
        except OSError as error:
            theirs.send(messages.Failed(step="namespaces", code=error.errno or 0, text=str(error)))
        finally:
            os._exit(0)
    theirs.close()
    doors.close()
    if watch is not None:
        watch.close()
    message, fds = hear(ours)
    if isinstance(message, messages.Born) and fds:
        return Born(message.pid, fds[0], ours, helper=middle)
    raise failure(message)


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


def built(born: Born, message: messages.AnyMessage | None, stdio: Sequence[Fd]) -> list[str]:
    """Take init's word that all is built: give the process its stdio, whose inner ends are closed; return warnings."""
    if not isinstance(message, messages.Built):
        raise failure(message)
    owner = host_uid(born.pid, message.uid)
    for fd in stdio:
        if owner is not None:  # so that a program of another user can open /dev/stdout again
            os.fchown(fd.fileno(), owner, -1)
    return list(message.warnings)


def adjust_oom(born: Born, value: int | None) -> list[str]:
    """Set oom_score_adj; return a warning where the host may not lower it (no CAP_SYS_RESOURCE)."""
    if value is None:
        return []
    try:
        write_proc_file(f"/proc/{born.pid}/oom_score_adj", str(value))
    except PermissionError:
        return [f"oom_score_adj stays as it is: the host may not lower it to {value}"]
    return []


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
