"""A container's processes, from the keeper's side: start, exec, end, and the undoing of each."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from sampan import messages
from sampan.cgroups import Doors, Group
from sampan.errors import SampanError, StepFailed
from sampan.kernel.fds import Fd, open_fd, pipe
from sampan.kernel.process import Clone
from sampan.launch import init
from sampan.launch.birth import (
    KINDS,
    PATIENCE,
    Born,
    Namespaces,
    failure,
    give_birth,
    hear,
    host_uid,
    let_go,
    namespaces_of,
    write_maps,
    write_proc_file,
)
from sampan.launch.channel import Channel
from sampan.launch.loop import Loop
from sampan.launch.prepared import Prepared, refuse_labels
from sampan.launch.streams import Log, Stdio
from sampan.logs import json_file
from sampan.oci.runtime import Process


def exit_status(pidfd: Fd) -> int:
    """Reap the process; return its exit code, or 128 + signal.  255 when somebody else reaped it."""
    try:
        seen = os.waitid(os.P_PIDFD, pidfd.fileno(), os.WEXITED)
    except ChildProcessError:
        return 255
    if seen is None:
        return 255
    return seen.si_status if seen.si_code == os.CLD_EXITED else 128 + seen.si_status


class Running:
    """One process with its stdio."""

    def __init__(self, born: Born, stdio: Stdio) -> None:
        self.pid = born.pid
        self.pidfd = born.pidfd
        self.stdio = stdio
        self.over = False

    def finish(self) -> None:
        """It has ended and been reaped: drain its output."""
        self.over = True
        self.stdio.finish()

    def close(self) -> None:
        self.stdio.close()
        self.pidfd.close()


class Container:
    """Owns the Launch's descriptors, the control group and the first process."""

    def __init__(self, loop: Loop, request: messages.Launch, fds: list[Fd], prepared: Prepared) -> None:
        self._loop = loop
        self._request = request
        self._spec = request.spec
        self._fds = fds
        self._prepared = prepared
        self._group: Group | None = None
        self._undo = ExitStack()
        self._first: Running | None = None
        self._enter: tuple[tuple[Fd, Clone], ...] | None = None

    @property
    def first(self) -> Running:
        if self._first is None:
            raise StepFailed("start", 0, "the container has not started")
        return self._first

    # Birth.

    def start(self, control: Channel, meanwhile: Callable[[], None]) -> tuple[str, ...]:
        """Bring the first process to execve; return warnings.  Raises; `undo` cleans up then.

        `meanwhile` is done while init builds the root file system on the other processor.
        """
        request, spec, prepared = self._request, self._spec, self._prepared
        if prepared.error:
            raise StepFailed("config", 0, prepared.error)
        wanted = namespaces_of(spec.linux, self._fds)
        place = self._place(wanted)
        group = self._group = prepared.host.make_group(spec.linux.cgroups_path, spec.linux.resources)
        if group is not None:
            self._undo.callback(_remove, group)
        stdio = Stdio(
            self._loop,
            terminal=spec.process.terminal,
            log=_open_log(request, self._fds),
            stdin_once=request.stdin_once,
        )
        self._undo.callback(stdio.close)
        inner = self._pipes(stdio, spec.process, request.open_stdin)
        new_userns = bool(wanted.make & Clone.NEWUSER)
        job = init.Job(
            spec.process, request.user, request.group_add, inner, prepared.program, prepared.host.last_cap,
            enter_as_root=place.in_userns, reaper=None if request.reaper is None else self._fds[request.reaper],
        )  # fmt: skip
        born = give_birth(wanted, job, place, group.doors() if group is not None else Doors())
        self._undo.callback(born.pidfd.close)
        self._undo.callback(born.kill)
        if new_userns:
            write_maps(born.pid, spec.linux)
        born.channel.send(messages.Go(stage="maps"))
        if request.wait_for_network:
            with open_fd(f"/proc/{born.pid}/ns/net", os.O_RDONLY) as network:
                control.send(messages.Created(pid=born.pid, keeper_pid=os.getpid()), [born.pidfd, network])
        meanwhile()
        warnings = self._hear_built(born, stdio, spec.process, inner, control if request.wait_for_network else None)
        let_go(born)
        self._first = Running(born, stdio)
        for wish in request.attachments:
            stdio.attach(Fd(self._fds[wish.fd].take()), wish)
        for fd in self._fds:
            fd.close()
        stdio.start()
        return (*warnings, *(group.warnings if group is not None else ()))

    def _place(self, wanted: Namespaces) -> init.Place:
        linux = self._spec.linux
        kinds = {namespace.type for namespace in linux.namespaces}
        own = frozenset(namespace.type for namespace in linux.namespaces if namespace.fd is None)
        joins_user = any(kind is Clone.NEWUSER for _, kind in wanted.join)
        return init.Place(
            spec=self._spec, steps=self._prepared.steps, trees=self._fds, rootfs=self._fds[self._request.rootfs],
            folder=self._request.state_dir, in_userns="user" in kinds,
            own_netns="network" in own or (joins_user and "network" in kinds),
            own_namespaces=own if not joins_user else own | {"user"}, controllers=self._prepared.host.controllers,
        )  # fmt: skip

    def _pipes(self, stdio: Stdio, process: Process, open_stdin: bool) -> tuple[Fd, Fd, Fd] | None:
        """Make what the process's 0, 1, 2 will be; the outer ends go to `stdio`."""
        if process.terminal:
            return None
        if open_stdin:
            in_reading, in_writing = pipe()
        else:
            in_reading, in_writing = open_fd("/dev/null", os.O_RDONLY), None
        out_reading, out_writing = pipe()
        error_reading, error_writing = pipe()
        stdio.set_pipes(in_writing, out_reading, error_reading)
        return in_reading, out_writing, error_writing

    def _hear_built(
        self,
        born: Born,
        stdio: Stdio,
        process: Process,
        inner: tuple[Fd, Fd, Fd] | None,
        proceed_from: Channel | None,
    ) -> tuple[str, ...]:
        """Wait until init has built (and the daemon said Proceed); give the process its stdio.  Return warnings."""
        message, fds = hear(born.channel) if proceed_from is None else _hear_both(proceed_from, born.channel)
        if not isinstance(message, messages.Built):
            raise failure(message)
        if fds:
            stdio.set_terminal(fds[0])
        warnings = list(message.warnings)
        owner = host_uid(born.pid, message.uid)
        if inner is not None:
            for number, fd in enumerate(inner):
                # So that a program of another user can open /dev/stdout again; /dev/null is the host's.
                if owner is not None and (number or stdio.takes_input):
                    os.fchown(fd.fileno(), owner, -1)
                fd.close()
        if process.oom_score_adj is not None:
            try:
                write_proc_file(f"/proc/{born.pid}/oom_score_adj", str(process.oom_score_adj))
            except PermissionError:
                warnings.append(f"oom_score_adj stays as it is: the host may not lower it to {process.oom_score_adj}")
        return tuple(warnings)

    # Exec.

    def _namespaces_to_enter(self) -> tuple[tuple[Fd, Clone], ...]:
        """Return the namespaces that are not the host's, opened at the first exec; /proc/PID is ours until we reap it."""
        if self._enter is None:
            found = []
            for name, kind in _NS_FILES:
                path = f"/proc/{self.first.pid}/ns/{name}"
                if os.stat(path).st_ino != os.stat(f"/proc/self/ns/{name}").st_ino:
                    found.append((open_fd(path, os.O_RDONLY), kind))
            self._enter = tuple(found)
        return self._enter

    def exec(self, request: messages.Exec, fds: Sequence[Fd]) -> Running:
        """Start another process in the container.  Raises StepFailed, OSError; nothing stays then."""
        process = request.process
        refuse_labels(process)
        program = b"" if request.privileged else self._prepared.program
        enter = self._namespaces_to_enter()
        with ExitStack() as undo:
            stdio = Stdio(self._loop, terminal=process.terminal)
            undo.callback(stdio.close)
            inner = self._pipes(stdio, process, request.open_stdin)
            job = init.Job(
                process, request.user, request.group_add, inner, program, self._prepared.host.last_cap,
                enter_as_root=any(kind is Clone.NEWUSER for _, kind in enter),
            )  # fmt: skip
            doors = self._group.doors() if self._group is not None else Doors()
            born = give_birth(Namespaces(Clone.NONE, enter), job, None, doors)
            undo.callback(born.pidfd.close)
            undo.callback(born.kill)
            born.channel.send(messages.Go(stage="maps"))
            self._hear_built(born, stdio, process, inner, None)
            let_go(born)
            for wish in request.attachments:
                stdio.attach(Fd(fds[wish.fd].take()), wish)
            undo.pop_all()
        stdio.start()
        return Running(born, stdio)

    # End.

    def undo(self) -> None:
        """A start that failed: nothing may stay."""
        self._undo.close()
        for fd in self._fds:
            fd.close()

    def end(self) -> bool:
        """The first process has ended: kill what shared no pid namespace with it; return whether memory ran out."""
        if self._group is None:
            return False
        killed = self._group.oom_killed()
        self._group.kill()
        return killed

    def release(self) -> None:
        """Remove the control group."""
        if self._group is not None:
            _remove(self._group)
            self._group = None


_NS_FILES = (
    ("user", KINDS["user"]), ("mnt", KINDS["mount"]), ("pid", KINDS["pid"]), ("net", KINDS["network"]),
    ("ipc", KINDS["ipc"]), ("uts", KINDS["uts"]), ("cgroup", KINDS["cgroup"]),
)  # fmt: skip


def _remove(group: Group) -> None:
    try:
        group.remove()
    except (OSError, SampanError):
        pass  # the engine's sweep finds it by its name


def _open_log(request: messages.Launch, fds: Sequence[Fd]) -> Log | None:
    target = request.log
    if target.driver == "none" or target.fd is None:
        return None
    if target.driver != "json-file":
        raise StepFailed("log", 0, f"no log driver {target.driver!r}")
    return json_file.Writer(fds[target.fd].take(), target.name, target.options)


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
                raise failure(heard[0])
        if control.fileno() in ready:
            message, _ = control.receive()
            if isinstance(message, messages.Abort):
                raise StepFailed("network", 0, message.text or "the start was given up")
            if message is None:
                raise StepFailed("network", 0, "the daemon has gone")
            proceed = proceed or isinstance(message, messages.Proceed)
    return heard
