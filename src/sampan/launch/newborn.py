"""The conversation with a process on its way to execve: id maps, Built, Go (messages.py draws it)."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence

from sampan import messages
from sampan.errors import StepFailed
from sampan.kernel.fds import Fd
from sampan.launch.channel import Channel
from sampan.oci.runtime import IdMapping, Linux, Process

PATIENCE = 60.0  # seconds that a step of init may take: a dead NFS server must not hold its starter for ever


def write_maps(pid: int, linux: Linux) -> None:
    """Write the id maps of a fresh user namespace, from outside, as the host's root (user_namespaces(7))."""
    for name, mappings in (("uid_map", linux.uid_mappings), ("gid_map", linux.gid_mappings)):
        _write_proc_file(f"/proc/{pid}/{name}", "".join(f"{_line(mapping)}\n" for mapping in mappings))


def _line(mapping: IdMapping) -> str:
    return f"{mapping.container_id} {mapping.host_id} {mapping.size}"


def _write_proc_file(path: str, text: str) -> None:
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


def known_uid(user: str | None, process: Process) -> int | None:
    """Return the uid that a process will have, None while only the container's passwd file knows: its init says it in Built."""
    if user is None:
        return process.user.uid
    name = user.partition(":")[0]
    if not name:
        return 0
    return int(name) if name.isascii() and name.isdigit() and len(name) <= 10 else None


def give_stdio(pid: int, uid: int, stdio: Sequence[Fd]) -> None:
    """Give the container's `uid` the ends of pipes, so that its program can open /dev/stdout again; pid: whose id maps count."""
    owner = host_uid(pid, uid)
    if owner is not None:
        for fd in stdio:
            os.fchown(fd.fileno(), owner, -1)


def built(message: messages.AnyMessage | None) -> messages.Built:
    """Return init's word that all is built.  Raises StepFailed when it says something else."""
    if not isinstance(message, messages.Built):
        raise failure(message)
    return message


def adjust_oom(pid: int, value: int | None) -> list[str]:
    """Set oom_score_adj; return a warning where the host may not lower it (no CAP_SYS_RESOURCE)."""
    if value is None:
        return []
    try:
        _write_proc_file(f"/proc/{pid}/oom_score_adj", str(value))
    except PermissionError:
        return [f"oom_score_adj stays as it is: the host may not lower it to {value}"]
    return []


def failure(message: messages.AnyMessage | None) -> StepFailed:
    """Return the error that an answer other than the expected one means."""
    if isinstance(message, messages.Failed):
        return StepFailed(message.step, message.code, message.text)
    return StepFailed("init", 0, "the process died before it could start the program")


def last_words(channel: Channel) -> StepFailed | None:
    """Return why init has failed, if it has said so or is dead; None too once the program runs and the channel is closed."""
    if channel.fileno() < 0:
        return None
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    while poller.poll(0):
        message, fds = channel.receive()
        for fd in fds:
            fd.close()
        if message is None or isinstance(message, messages.Failed):
            return failure(message)
    return None


def let_go(channel: Channel) -> None:
    """Say Go("exec"): nothing more is wanted of this side.  It may be said before Built, by who knows the uid already."""
    channel.send(messages.Go(stage="exec"))


def executed(channel: Channel) -> None:
    """Return once execve has succeeded: the close-on-exec channel ends.  Raises StepFailed."""
    message, _ = hear(channel)
    if message is not None:
        raise failure(message)
    channel.close()
