"""From Launch to the running program: what the daemon does, in a thread of its own choice (messages.py draws it).

The daemon is warm: a process forked for this work would copy a thousand pages first, for every container.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

import msgspec

from sampan import messages
from sampan.cgroups import Doors, Group
from sampan.errors import SampanError, StepFailed
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.process import Clone
from sampan.launch import log_target, newborn
from sampan.launch.channel import Channel
from sampan.launch.failures import failed
from sampan.launch.filters import Filters
from sampan.launch.host import Host, read_filter, refuse_labels, socket_identity
from sampan.launch.namespaces import Namespaces, namespaces_of
from sampan.launch.nursery import Brood, Nursery
from sampan.launch.pipes import Pipes
from sampan.oci.runtime import Process, Spec


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A container to be made.  The numbers are indexes into the descriptors that go with it.

    spec.mounts[].tree, spec.linux.namespaces[].fd: indexes too.
    open_stdin, stdin_once: Docker's OpenStdin and StdinOnce.
    reaper: the program that is to be process 1 and have the container's own as its child (launch/reaper.py), None without.
    user, group_add: who the process is, looked up inside the root file system; user None means process.user's numbers.
    """

    id: str
    spec: Spec
    state_dir: str
    log: messages.LogTarget = messages.LogTarget(driver="none")
    attachments: tuple[messages.Attachment, ...] = ()
    open_stdin: bool = False
    stdin_once: bool = False
    reaper: int | None = None
    user: str | None = None
    group_add: tuple[str, ...] = ()


class Started(NamedTuple):
    """A program that runs.  The caller owns pidfd and keeper, the connection to the container's keeper."""

    pid: int
    keeper_pid: int
    started_at: int  # nanoseconds since the epoch
    warnings: tuple[str, ...]
    pidfd: Fd
    keeper: Channel


class Meanwhile(NamedTuple):
    """What its caller does for a start while init is busy.

    mount: return the root file system, a detached mount, which is the start's from then on.
    connect: make the network in the namespace that it is lent.
    """

    mount: Callable[[], Fd]
    connect: Callable[[Fd], None]


def start(nursery: Nursery, filters: Filters, host: Host, launch: Launch, fds: Sequence[Fd], meanwhile: Meanwhile) -> Started:
    """Start a container, and return when its program runs.  Blocks; any thread.

    `fds` stay the caller's.  Raises StepFailed, or what `meanwhile` raises; then everything that was made is undone.
    """
    one = _Start(nursery, filters, host, launch, fds)
    try:
        return one.run(meanwhile)
    except StepFailed:
        raise
    except _Elsewhere as error:
        raise error.why from None
    except Exception as error:
        why = failed(error)
        raise StepFailed(why.step, why.code, why.text) from error


class _Elsewhere(Exception):
    """What Meanwhile raised, which goes to the caller as it is."""

    def __init__(self, why: Exception) -> None:
        super().__init__(str(why))
        self.why = why


class _Start:
    """One start."""

    def __init__(self, nursery: Nursery, filters: Filters, host: Host, launch: Launch, fds: Sequence[Fd]) -> None:
        self._nursery = nursery
        self._filters = filters
        self._host = host
        self._launch = launch
        self._spec = launch.spec
        self._fds = fds
        self._mine = ExitStack()  # descriptors of this side, whatever comes of it
        self._undo = ExitStack()  # what a failed start leaves otherwise
        self._outer: dict[str, Fd] = {}  # the keeper's ends of stdio and more, by Handed's names
        self._inner: list[Fd] = []
        self._socket = (0, 0)
        self._filter: Fd | None = None

    def run(self, meanwhile: Meanwhile) -> Started:
        with self._mine, self._undo:
            program = self._program()
            wanted = namespaces_of(self._spec.linux, self._fds)
            group, doors = self._make_group() if self._host.born_in_group or wanted.join else (None, Doors())
            brood = self._nursery.take(wanted, doors)
            try:
                warnings = self._make(brood, wanted, group, program, meanwhile)
                newborn.executed(brood.init)
                started_at = time.time_ns()
                self._hand_over(brood, started_at)
            except StepFailed:
                brood.end()  # before its group goes
                raise
            except BaseException as error:
                try:
                    why = newborn.last_words(brood.init)
                finally:
                    brood.end()
                if why is not None:
                    raise why from error  # what failed here failed because of that
                raise
            self._undo.pop_all()
        return Started(brood.pid, brood.keeper_pid, started_at, tuple(warnings), brood.pidfd, brood.keeper)

    def _make(self, brood: Brood, wanted: Namespaces, group: Group | None, program: bytes, meanwhile: Meanwhile) -> list[str]:
        """Make everything up to a process that becomes the program; return warnings."""
        spec = self._spec
        if wanted.make & Clone.NEWUSER:
            newborn.write_maps(brood.pid, spec.linux)
        self._give_task(brood, wanted, program)
        doors = Doors()
        if group is None:
            group, doors = self._make_group()
        self._send_root(brood, doors, meanwhile)
        with open_fd(f"/proc/{brood.pid}/ns/net", os.O_RDONLY) as network, _elsewhere():
            meanwhile.connect(network)
        self._outer["listener"] = self._own(Fd(self._listen().detach()))
        log_target.check(self._launch.log, self._fds)
        self._outer["mounts"] = self._own(open_fd(f"/proc/{brood.pid}/ns/mnt", os.O_RDONLY))
        warnings = newborn.adjust_oom(brood.pid, spec.process.oom_score_adj)
        warnings += self._built(brood)
        return warnings + (group.warnings if group is not None else [])

    def _own(self, fd: Fd) -> Fd:
        self._mine.callback(fd.close)
        return fd

    def _program(self) -> bytes:
        """Return the seccomp filter.  Raises StepFailed for a security label: a protection must never be silently missing."""
        try:
            refuse_labels(self._spec.process)
        except SampanError as error:
            raise StepFailed("config", 0, str(error)) from None
        profile = self._spec.linux.seccomp
        if profile is not None:
            self._filter = self._own(self._filters.compiled(profile))
        return read_filter(self._filter)

    def _make_group(self) -> tuple[Group | None, Doors]:
        group = self._host.make_group(self._spec.linux.cgroups_path, self._spec.linux.resources)
        if group is None:
            return None, Doors()
        self._undo.callback(_remove, group)
        doors = group.doors()
        self._mine.callback(doors.close)
        return group, doors

    def _send_root(self, brood: Brood, doors: Doors, meanwhile: Meanwhile) -> None:
        with _elsewhere():
            root = meanwhile.mount()
        with root:
            trees = [self._fds[number] for number in self._trees()]
            brood.init.send(messages.Go(stage="group", tasks=len(doors.tasks)), [*doors.tasks, root, *trees])

    def _trees(self) -> tuple[int, ...]:
        return tuple(mount.tree for mount in self._spec.mounts if mount.tree is not None)

    def _give_task(self, brood: Brood, wanted: Namespaces, program: bytes) -> None:
        launch, spec = self._launch, self._spec
        pipes = self._pipes(spec.process)
        place = self._place(wanted)
        task = messages.Task(
            process=spec.process, user=launch.user, group_add=launch.group_add, pipes=bool(pipes), program=program,
            last_cap=self._host.last_cap, enter_as_root=place.in_userns, reaper=launch.reaper is not None, place=place,
        )  # fmt: skip
        reaper = [self._fds[launch.reaper]] if launch.reaper is not None else []
        brood.init.send(task, [*pipes, *reaper])

    def _place(self, wanted: Namespaces) -> messages.Place:
        linux = self._spec.linux
        kinds = {namespace.type for namespace in linux.namespaces}
        own = {namespace.type for namespace in linux.namespaces if namespace.fd is None}
        joins_user = any(kind == Clone.NEWUSER for _, kind in wanted.join)
        spec = msgspec.structs.replace(self._spec, linux=msgspec.structs.replace(linux, seccomp=None))  # it has the program
        return messages.Place(
            spec=spec, trees=self._trees(), folder=self._launch.state_dir,
            in_userns="user" in kinds, own_netns="network" in own or (joins_user and "network" in kinds),
            own_namespaces=tuple(own | {"user"} if joins_user else own), controllers=self._host.controllers,
        )  # fmt: skip

    def _pipes(self, process: Process) -> list[Fd]:
        """Make what the process's 0, 1, 2 will be; the outer ends are the keeper's.  Nothing with a terminal."""
        if process.terminal:
            return []
        made = Pipes(takes_input=self._launch.open_stdin)
        for fd in (*made.inner, *made.outer.values()):
            self._own(fd)
        self._outer |= made.outer
        self._inner = made.inner
        return made.inner

    def _listen(self) -> socket.socket:
        """Make keeper.sock; its folder is root's alone (row 93), and the keeper asks who connects."""
        path = os.path.join(self._launch.state_dir, "keeper.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            _unlink(path)
            with open_fd(self._launch.state_dir, os.O_PATH | os.O_DIRECTORY) as folder:
                listener.bind(f"{folder.path}/keeper.sock")  # by descriptor: a path may have 107 bytes at most (unix(7))
            self._undo.callback(_unlink, path)
            os.chmod(path, 0o600)
            self._socket = socket_identity(path)
            listener.listen(8)
        except BaseException:
            listener.close()
            raise
        return listener

    def _built(self, brood: Brood) -> list[str]:
        """Wait until init has built, and let it go: before that, when it is known already whose its stdio will be.

        Return warnings.
        """
        uid = newborn.known_uid(self._launch.user, self._spec.process)
        if uid is not None:
            self._let_go(brood, uid)
        message, fds = newborn.hear(brood.init)
        for fd in fds:
            self._outer["master"] = self._own(fd)
        told = newborn.built(message)
        if uid is None:
            self._let_go(brood, told.uid)
        return list(told.warnings)

    def _let_go(self, brood: Brood, uid: int) -> None:
        newborn.give_stdio(brood.pid, uid, self._inner[0 if self._launch.open_stdin else 1 :])
        newborn.let_go(brood.init)

    def _hand_over(self, brood: Brood, started_at: int) -> None:
        """Give everything to the keeper.  Raises OSError when it has gone."""
        launch = self._launch
        fds: list[int | Fd] = []

        def place(fd: int | Fd) -> int:
            fds.append(fd)
            return len(fds) - 1

        # First those that wake the keeper.
        numbers = {"pidfd": place(brood.pidfd)}
        for name in ("listener", "stdout", "stderr", "master", "stdin", "mounts"):
            if name in self._outer:
                numbers[name] = place(self._outer[name])
        log = launch.log
        handed = messages.Handed(
            id=launch.id, state_dir=launch.state_dir, socket=self._socket, pid=brood.pid, started_at=started_at,
            group=self._spec.linux.cgroups_path, terminal=self._spec.process.terminal, stdin_once=launch.stdin_once,
            log=msgspec.structs.replace(log, fd=None if log.fd is None else place(self._fds[log.fd])),
            attachments=tuple(msgspec.structs.replace(one, fd=place(self._fds[one.fd])) for one in launch.attachments),
            filter=None if self._filter is None else place(self._filter), **numbers,
        )  # fmt: skip
        events = 0 if launch.attachments else 2 + sum(name in self._outer for name in ("stdout", "stderr", "master"))
        brood.keeper.send(handed, fds, lead=bytes([events]))


@contextmanager
def _elsewhere() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _Elsewhere(error) from error


def _remove(group: Group) -> None:
    with suppress(OSError, SampanError):  # the engine's sweep finds it by its name
        group.remove()


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
