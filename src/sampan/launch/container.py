"""A container's processes, from the keeper's side: the first one as it was handed over, execs, and the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from sampan import messages
from sampan.cgroups import Doors, Group
from sampan.errors import SampanError
from sampan.kernel.fds import Fd
from sampan.kernel.process import Clone, setns
from sampan.launch import birth, newborn
from sampan.launch.host import Host, read_filter, refuse_labels
from sampan.launch.log_target import open_log
from sampan.launch.loop import Loop
from sampan.launch.namespaces import KINDS
from sampan.launch.pipes import Pipes
from sampan.launch.streams import Stdio


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

    def __init__(self, pid: int, pidfd: Fd, stdio: Stdio) -> None:
        self.pid = pid
        self.pidfd = pidfd
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
    """Owns the first process with its stdio, the control group, and what execs need."""

    def __init__(self, loop: Loop, handed: messages.Handed, fds: list[Fd], host: Host) -> None:
        self._loop = loop
        self._host = host
        self._filter = None if handed.filter is None else fds[handed.filter]
        self._group_path = handed.group
        self._group: Group | None = None
        self._enter: int | None = None
        stdio = Stdio(loop, terminal=handed.terminal, log=partial(open_log, loop, handed.log, fds), stdin_once=handed.stdin_once)
        if handed.master is not None:
            stdio.set_terminal(fds[handed.master])
        elif handed.stdout is not None and handed.stderr is not None:
            stdio.set_pipes(fds[handed.stdin] if handed.stdin is not None else None, fds[handed.stdout], fds[handed.stderr])
        self.first = Running(handed.pid, fds[handed.pidfd], stdio)
        for wish in handed.attachments:
            stdio.attach(fds[wish.fd], wish)
        stdio.start()

    @property
    def group(self) -> Group | None:
        """The control group, None when the container has none."""
        if self._group is None and self._group_path and self._host.hierarchy is not None:
            self._group = self._host.hierarchy.open(self._group_path)
        return self._group

    # Exec.

    def _namespaces_to_enter(self) -> int:
        """Return which namespaces are not the host's, as clone flags, found at the first exec; /proc/PID is ours until we reap it.

        The pid namespace is not among them: from then on every child of the keeper's is born in it (setns(2)), which saves
        each exec a process in between.
        """
        if self._enter is None:
            found = 0
            for name, kind in _NS_FILES:
                if os.stat(f"/proc/{self.first.pid}/ns/{name}").st_ino != os.stat(f"/proc/self/ns/{name}").st_ino:
                    found |= kind
            if found & Clone.NEWPID:
                setns(self.first.pidfd, Clone.NEWPID)
            self._enter = found & ~Clone.NEWPID
        return self._enter

    def exec(self, request: messages.Exec, fds: Sequence[Fd]) -> Running:
        """Start another process in the container.  Raises StepFailed, OSError; nothing stays then."""
        process = request.process
        refuse_labels(process)
        program = b"" if request.privileged else read_filter(self._filter)
        enter = self._namespaces_to_enter()
        with ExitStack() as undo:
            pipes = None if process.terminal else Pipes(takes_input=request.open_stdin)
            inner = pipes.inner if pipes is not None else []
            stdio = Stdio(self._loop, terminal=process.terminal)
            undo.callback(stdio.close)
            if pipes is not None:
                stdio.set_pipes(pipes.outer.get("stdin"), pipes.outer["stdout"], pipes.outer["stderr"])
            for fd in inner:
                undo.callback(fd.close)
            born = birth.give_birth_inside(self.first.pidfd, enter, self.group.doors() if self.group is not None else Doors())
            undo.callback(born.pidfd.close)
            undo.callback(born.kill)
            task = messages.Task(
                process=process, user=request.user, group_add=request.group_add, pipes=bool(inner), program=program,
                last_cap=self._host.last_cap, enter_as_root=bool(enter & Clone.NEWUSER),
            )  # fmt: skip
            born.channel.send(task, inner)
            newborn.adjust_oom(born.pid, process.oom_score_adj)
            uid, lent = newborn.known_uid(request.user, process), inner[0 if request.open_stdin else 1 :]
            if uid is not None:
                self._let_go(born, uid, lent)
            message, terminal = newborn.hear(born.channel)
            for fd in terminal:
                stdio.set_terminal(fd)
            told = newborn.built(message)
            if uid is None:
                self._let_go(born, told.uid, lent)
            for fd in inner:
                fd.close()
            newborn.executed(born.channel)
            for wish in request.attachments:
                stdio.attach(Fd(fds[wish.fd].take()), wish)
            undo.pop_all()
        stdio.start()
        return Running(born.pid, born.pidfd, stdio)

    def _let_go(self, born: birth.Born, uid: int, lent: Sequence[Fd]) -> None:
        newborn.give_stdio(self.first.pid, uid, lent)
        newborn.let_go(born.channel)

    # End.

    def end(self) -> bool:
        """The first process has ended: kill what shared no pid namespace with it; return whether memory ran out.

        The control group goes here, before anybody is told of the end: the next start may take its name.
        """
        if self.group is None:
            return False
        killed = self.group.oom_killed()
        gone = self.group.remove_empty()
        if not gone:
            self.group.kill()
            gone = self.group.remove_empty()
        if gone:
            self._group, self._group_path = None, ""
        return killed

    def release(self) -> None:
        """Remove the control group, if `end` could not yet."""
        if self.group is not None:
            try:
                self.group.remove()
            except (OSError, SampanError):
                pass  # the engine's sweep finds it by its name
            self._group, self._group_path = None, ""


_NS_FILES = (
    ("user", KINDS["user"]), ("mnt", KINDS["mount"]), ("pid", KINDS["pid"]), ("net", KINDS["network"]),
    ("ipc", KINDS["ipc"]), ("uts", KINDS["uts"]), ("cgroup", KINDS["cgroup"]),
)  # fmt: skip
