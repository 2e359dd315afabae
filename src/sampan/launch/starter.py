"""From Launch to Ready: what makes a container, and then leaves, so that its keeper stays small (messages.py draws it).

A starter is forked ahead of need, with its keeper as parent; where nothing speaks against it, init is cloned ahead too.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import ExitStack
from typing import NoReturn

import msgspec

from sampan import messages
from sampan.cgroups import Doors, Group
from sampan.errors import SampanError, StepFailed
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.process import Clone, set_name
from sampan.launch import birth, log_target
from sampan.launch.birth import PATIENCE, Born, Namespaces
from sampan.launch.channel import Channel
from sampan.launch.failures import failed
from sampan.launch.host import Host, read_filter, refuse_labels, socket_identity
from sampan.launch.pipes import Pipes
from sampan.launch.rehearsal import look_at
from sampan.oci.runtime import Process

USUAL = Clone.NEWUSER | Clone.NEWPID | Clone.NEWNS | Clone.NEWUTS | Clone.NEWIPC | Clone.NEWNET
_NO_PRIORITY = os.sched_param(0)

# What runs between Launch and Ready.
_MODULES = (
    "cgroups.files", "cgroups.group", "cgroups.hierarchy", "cgroups.place", "cgroups.plan", "kernel.calls", "kernel.fds",
    "kernel.process", "launch.birth", "launch.channel", "launch.host", "launch.log_target", "launch.pipes", "launch.starter",
    "logs.json_file", "logs.options", "messages",
)  # fmt: skip


def main(orders: Channel, keeper: Channel, host: Host) -> NoReturn:
    """Wait for a Launch, carry it out, hand the container to the keeper; never returns."""
    try:
        set_name("sampan-starter")
        _priority(0, os.SCHED_IDLE)  # what is made ahead is made when nobody else has work
        ahead = _ahead(host)
        look_at(_MODULES)
        _priority(0, os.SCHED_OTHER)
        message, fds = orders.receive()
        if ahead is not None:
            _priority(ahead.pid, os.SCHED_OTHER)
        if isinstance(message, messages.Launch):
            Starter(message, fds, keeper, host).run(ahead)
        elif ahead is not None:
            ahead.kill()
    finally:
        os._exit(0)


def _priority(pid: int, policy: int) -> None:
    """Choose a scheduling policy (sched(7)).  Leaving SCHED_IDLE takes CAP_SYS_NICE: a host without it never enters it."""
    try:
        os.sched_setscheduler(pid, policy, _NO_PRIORITY)
    except OSError:
        pass


def _ahead(host: Host) -> Born | None:
    """Clone an init before anybody asks.  Not on cgroup v2, where a process can be born in its group but not walk in."""
    if host.hierarchy is None or host.hierarchy.version != 1:
        return None
    try:
        return birth.give_birth(Namespaces(USUAL), Doors(), early=True)
    except (OSError, StepFailed):
        return None  # no user namespaces here, or too many: each container will hear it for itself


class Starter:
    """One start.  Owns the Launch's descriptors and everything made until it is handed over."""

    def __init__(self, request: messages.Launch, fds: list[Fd], keeper: Channel, host: Host) -> None:
        self._request = request
        self._spec = request.spec
        self._fds = fds
        self._keeper = keeper
        self._host = host
        self._control = Channel.adopt(fds[request.control])
        self._undo = ExitStack()
        self._outer: dict[str, Fd] = {}  # the keeper's ends of stdio and more, by Handed's names
        self._inner: list[Fd] = []
        self._socket = (0, 0)

    def run(self, ahead: Born | None) -> None:
        """Start the container and say Ready, or undo everything and say Failed."""
        try:
            born, warnings = self._start(ahead)
            started_at = time.time_ns()
            ready = messages.Ready(pid=born.pid, keeper_pid=os.getppid(), started_at=started_at, warnings=tuple(warnings))
            self._control.send(ready, [born.pidfd])
            self._hand_over(born, started_at)  # after Ready: the keeper may have an Exited to say at once
        except Exception as error:  # noqa: BLE001 - whatever it is, the daemon must hear of it, and nothing may stay
            self._undo.close()
            try:
                self._control.send(failed(error))
            except OSError:
                pass  # the daemon has gone too

    def _start(self, ahead: Born | None) -> tuple[Born, list[str]]:
        request, spec = self._request, self._spec
        program = self._program()
        wanted = birth.namespaces_of(spec.linux, self._fds)
        group: Group | None = None
        doors = Doors()
        born = self._fitting(ahead, wanted)
        if born is None:
            group, doors = self._make_group()
            born = self._bear(wanted, doors)
        if wanted.make & Clone.NEWUSER:
            birth.write_maps(born.pid, spec.linux)
        self._give_task(born, wanted, program)
        if request.wait_for_network:
            with open_fd(f"/proc/{born.pid}/ns/net", os.O_RDONLY) as network:
                self._control.send(messages.Created(pid=born.pid, keeper_pid=os.getppid()), [born.pidfd, network])
        if group is None:
            group, doors = self._make_group()
        born.channel.send(messages.Go(stage="group"), doors.tasks)
        doors.close()
        self._while_init_builds()
        warnings = self._built(born)
        birth.let_go(born)
        return born, warnings + (group.warnings if group is not None else [])

    def _program(self) -> bytes:
        """Return the seccomp filter.  Raises StepFailed for a security label: a protection must never be silently missing."""
        try:
            refuse_labels(self._spec.process)
        except SampanError as error:
            raise StepFailed("config", 0, str(error)) from None
        number = self._request.filter
        return read_filter(None if number is None else self._fds[number])

    def _fitting(self, ahead: Born | None, wanted: Namespaces) -> Born | None:
        """Return the init made ahead when it is what the config asks for; otherwise it is gone."""
        if ahead is not None and (wanted.join or wanted.make != USUAL):
            ahead.kill()
            ahead.pidfd.close()
            ahead = None
        return None if ahead is None else self._own(ahead)

    def _bear(self, wanted: Namespaces, doors: Doors) -> Born:
        return self._own(birth.give_birth(wanted, doors))

    def _own(self, born: Born) -> Born:
        self._undo.callback(born.pidfd.close)
        self._undo.callback(born.kill)
        return born

    def _make_group(self) -> tuple[Group | None, Doors]:
        group = self._host.make_group(self._spec.linux.cgroups_path, self._spec.linux.resources)
        if group is None:
            return None, Doors()
        self._undo.callback(_remove, group)
        return group, group.doors()

    def _give_task(self, born: Born, wanted: Namespaces, program: bytes) -> None:
        request, spec = self._request, self._spec
        pipes = self._pipes(spec.process)
        place = self._place(wanted)
        task = messages.Task(
            process=spec.process, user=request.user, group_add=request.group_add, pipes=bool(pipes), program=program,
            last_cap=self._host.last_cap, enter_as_root=place.in_userns, reaper=request.reaper is not None, place=place,
        )  # fmt: skip
        reaper = [self._fds[request.reaper]] if request.reaper is not None else []
        born.channel.send(task, [*pipes, *reaper, *(self._fds[number] for number in place.trees)])

    def _place(self, wanted: Namespaces) -> messages.Place:
        linux = self._spec.linux
        kinds = {namespace.type for namespace in linux.namespaces}
        own = {namespace.type for namespace in linux.namespaces if namespace.fd is None}
        joins_user = any(kind == Clone.NEWUSER for _, kind in wanted.join)
        trees = [self._request.rootfs, *(mount.tree for mount in self._spec.mounts if mount.tree is not None)]
        return messages.Place(
            spec=self._spec, rootfs=self._request.rootfs, trees=tuple(trees), folder=self._request.state_dir,
            in_userns="user" in kinds, own_netns="network" in own or (joins_user and "network" in kinds),
            own_namespaces=tuple(own | {"user"} if joins_user else own), controllers=self._host.controllers,
        )  # fmt: skip

    def _pipes(self, process: Process) -> list[Fd]:
        """Make what the process's 0, 1, 2 will be; the outer ends are the keeper's.  Nothing with a terminal."""
        if process.terminal:
            return []
        made = Pipes(takes_input=self._request.open_stdin)
        for fd in (*made.inner, *made.outer.values()):
            self._undo.callback(fd.close)
        self._outer |= made.outer
        self._inner = made.inner
        return made.inner

    def _while_init_builds(self) -> None:
        """Do what the keeper needs, on the other processor."""
        self._outer["listener"] = Fd(self._listen().detach())
        self._undo.callback(self._outer["listener"].close)
        log_target.check(self._request.log, self._fds)

    def _listen(self) -> socket.socket:
        path = os.path.join(self._request.state_dir, "keeper.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            _unlink(path)
            with open_fd(self._request.state_dir, os.O_PATH | os.O_DIRECTORY) as folder:
                # By descriptor: a socket's path may have 107 bytes at most (unix(7)).
                old = os.umask(0o177)
                try:
                    listener.bind(f"{folder.path}/keeper.sock")
                finally:
                    os.umask(old)
            self._undo.callback(_unlink, path)
            self._socket = socket_identity(path)
            listener.listen(8)
        except BaseException:
            listener.close()
            raise
        return listener

    def _built(self, born: Born) -> list[str]:
        """Wait until init has built and the daemon has said Proceed; give the process its stdio.  Return warnings."""
        if self._request.wait_for_network:
            message, fds = _hear_both(self._control, born.channel)
        else:
            message, fds = birth.hear(born.channel)
        for fd in fds:
            self._outer["master"] = fd
        warnings = birth.built(born, message, self._inner[0 if self._request.open_stdin else 1 :])
        for fd in self._inner:
            fd.close()
        return warnings + birth.adjust_oom(born, self._spec.process.oom_score_adj)

    def _hand_over(self, born: Born, started_at: int) -> None:
        """Give everything to the keeper.  Raises OSError when it has gone."""
        request = self._request
        fds: list[int | Fd] = []

        def place(fd: int | Fd) -> int:
            fds.append(fd)
            return len(fds) - 1

        # First those that wake the keeper.
        numbers = {"pidfd": place(born.pidfd), "control": place(self._control.fileno())}
        for name in ("listener", "stdout", "stderr", "master", "stdin"):
            if name in self._outer:
                numbers[name] = place(self._outer[name])
        log = request.log
        handed = messages.Handed(
            id=request.id, state_dir=request.state_dir, socket=self._socket, pid=born.pid, started_at=started_at,
            group=self._spec.linux.cgroups_path, terminal=self._spec.process.terminal, stdin_once=request.stdin_once,
            log=msgspec.structs.replace(log, fd=None if log.fd is None else place(self._fds[log.fd])),
            attachments=tuple(msgspec.structs.replace(one, fd=place(self._fds[one.fd])) for one in request.attachments),
            helper=born.helper,
            filter=None if request.filter is None else place(self._fds[request.filter]), **numbers,
        )  # fmt: skip
        events = 0 if request.attachments else 3 + sum(name in self._outer for name in ("stdout", "stderr", "master"))
        self._keeper.send(handed, fds, lead=bytes([events]))


def _hear_both(control: Channel, child: Channel) -> tuple[messages.AnyMessage | None, list[Fd]]:
    """Return init's word once the daemon has said Proceed too.  Raises StepFailed when either gives up."""
    poller = select.poll()
    poller.register(control.fileno(), select.POLLIN)
    poller.register(child.fileno(), select.POLLIN)
    heard: tuple[messages.AnyMessage | None, list[Fd]] | None = None
    proceed = False
    while heard is None or not proceed:
        ready = [fd for fd, _ in poller.poll(PATIENCE * 1000)]
        if not ready:
            raise StepFailed("network", 110, f"no word for {PATIENCE:.0f} seconds")
        if child.fileno() in ready:
            heard = child.receive()
            poller.unregister(child.fileno())
            if not isinstance(heard[0], messages.Built):
                raise birth.failure(heard[0])
        if control.fileno() in ready:
            message, _ = control.receive()
            if isinstance(message, messages.Abort):
                raise StepFailed("network", 0, message.text or "the start was given up")
            if message is None:
                raise StepFailed("network", 0, "the daemon has gone")
            proceed = proceed or isinstance(message, messages.Proceed)
    return heard


def _remove(group: Group) -> None:
    try:
        group.remove()
    except (OSError, SampanError):
        pass  # the engine's sweep finds it by its name


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
