"""A container's control group: one face, one class for each version.

Whoever creates a group owns it: `remove` is idempotent, kills what is left inside, and is the undo of `create`.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from sampan.cgroups import files
from sampan.cgroups.numbers import Stats, stats_v1, stats_v2
from sampan.cgroups.plan import Plan, plan_v1, plan_v2
from sampan.errors import Broken, InvalidRequest, Unsupported
from sampan.kernel import bpf
from sampan.kernel.fds import Fd, open_fd
from sampan.oci.runtime import Resources

PATIENCE = 10.0  # seconds for a group to become empty or frozen
_ENOTSUPP = 524  # the kernel's own, for memory.kmem.limit_in_bytes since 5.16


@dataclass
class Doors:
    """The ways into a group.  tasks: v1, one file a hierarchy, for `enter`; folder: v2, for clone3's CLONE_INTO_CGROUP."""

    tasks: list[Fd] = field(default_factory=list)
    folder: Fd | None = None

    def enter(self) -> None:
        """Move the calling process, which must be single-threaded, through `tasks`, and close them.  Raises OSError.

        The kernel judges by who opened the files (since 5.16), so a child that has given up its rights may still enter.
        """
        for task in self.tasks:
            os.write(task.fileno(), b"0")
        self.close()

    def close(self) -> None:
        for fd in (*self.tasks, *([self.folder] if self.folder is not None else [])):
            fd.close()
        self.tasks, self.folder = [], None


class Group(ABC):
    """A group that exists.  `paths` is controller -> folder; v2 has one folder, under the name ""."""

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths = paths
        self.warnings: list[str] = []
        self._set: list[tuple[str, str]] = []

    def add(self, pid: int) -> None:
        """Move a process into the group.  ProcessLookupError when it has gone."""
        for path in self.paths.values():
            files.write(f"{path}/cgroup.procs", str(pid))

    @abstractmethod
    def apply(self, resources: Resources) -> None:
        """Set limits, at creation or later.

        Raises Unsupported for a limit this host has no file for, InvalidRequest for values the kernel refuses.  What Docker
        only warns of is appended to `warnings`.
        """

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL to everything inside, frozen or not."""

    @abstractmethod
    def freeze(self) -> None:
        """Stop everything inside; thawed again when that cannot be completed (SECURITY.md row 106)."""

    @abstractmethod
    def thaw(self) -> None:
        """Let everything inside go on; does nothing when it is not frozen."""

    @abstractmethod
    def oom_killed(self) -> bool:
        """Return whether the kernel has killed a process of the group for want of memory."""

    def exists(self) -> bool:
        """Return whether the group is still there."""
        return any(os.path.isdir(path) for path in self.paths.values())

    @abstractmethod
    def oom_notice(self) -> Fd:
        """Return a descriptor that epoll(7) reports (EPOLLIN on v1, EPOLLPRI on v2) when memory has run out, or the group ends.

        Raises OSError, Unsupported where there is no memory controller.
        """

    @abstractmethod
    def stats(self) -> Stats:
        """Return the group's numbers."""

    @abstractmethod
    def memory_file(self) -> str:
        """Return the path of the file that tells the memory in use, "" when there is none."""

    @abstractmethod
    def doors(self) -> Doors:
        """Return what a process needs to be born in the group, or to walk in by itself; the caller owns it.

        Moving a process from outside (`add`) takes the kernel's cgroup_threadgroup_rwsem for writing, which waits for an
        RCU grace period: some 7 ms.  A single thread that moves itself, and clone3 into a group, do not need it
        (cgroup_procs_write_start in kernel/cgroup/cgroup.c).
        """

    def files_set(self) -> list[tuple[str, str]]:
        """Return every (path, value) that was written, in order."""
        return list(self._set)

    def pids(self) -> list[int]:
        """Return the processes inside, those of sub-groups too."""
        path = next(iter(self.paths.values()), "")
        found: set[int] = set()
        for folder, _, _ in os.walk(path) if path else ():
            found.update(int(word) for word in files.read_or(f"{folder}/cgroup.procs", "").split())
        return sorted(found - {0})  # 0: a process of a foreign pid namespace

    def remove_empty(self) -> bool:
        """Remove the group unless something is inside; return whether it has gone."""
        return all(_gone(path) for path in self.paths.values())

    def remove(self) -> None:
        """Remove the group; what is left inside is killed and waited for.  Does nothing when it has gone.

        Raises Broken when it cannot be emptied within PATIENCE.
        """
        left = [path for path in self.paths.values() if not _gone(path)]
        if not left:
            return
        deadline = time.monotonic() + PATIENCE
        self.thaw()
        while left:
            self.kill()
            self._wait_empty(deadline)
            left = [path for path in left if not _gone_with_children(path)]
            if left and time.monotonic() > deadline:
                raise Broken(f"control group {left[0]} cannot be emptied: processes {self.pids()[:10]}")

    def _wait_empty(self, deadline: float) -> None:
        """Wait until a process has ended, or a millisecond when all have and the kernel is still letting go."""
        poller = select.poll()
        held: list[int] = []
        for pid in self.pids()[:64]:
            try:
                held.append(os.pidfd_open(pid))
            except OSError:
                continue
            poller.register(held[-1], select.POLLIN)
        try:
            poller.poll(max(0.0, min(1.0, deadline - time.monotonic())) * 1000 if held else 1)
        finally:
            for fd in held:
                os.close(fd)

    def _write_plan(self, plan: Plan) -> None:
        self.warnings += plan.warnings
        for controller, name, value in plan.writes:
            self._limit(controller, name, value)
        for controller, name, value, warning in plan.optional:
            try:
                self._limit(controller, name, value)
            except (Unsupported, InvalidRequest):
                self.warnings.append(warning)

    def _limit(self, controller: str, name: str, value: str) -> None:
        folder = self.paths.get(controller, self.paths.get("", ""))
        if not folder:
            raise Unsupported(f"{name}: this host has no {controller} control group")
        path = f"{folder}/{name}"
        try:
            files.set_limit(path, value, name)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ERANGE, errno.ENODEV, errno.EOPNOTSUPP, _ENOTSUPP):
                raise InvalidRequest(f"{name}: the kernel refuses {value!r}: {os.strerror(error.errno)}") from None
            raise
        self._set.append((path, value))

    def _signal_all(self, number: int) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


class GroupV1(Group):
    """One folder in each v1 hierarchy."""

    def doors(self) -> Doors:
        made = Doors()
        try:
            for path in dict.fromkeys(self.paths.values()):
                made.tasks.append(open_fd(f"{path}/tasks", os.O_WRONLY | os.O_NOFOLLOW))
        except BaseException:
            made.close()
            raise
        return made

    def apply(self, resources: Resources) -> None:
        plan = plan_v1(resources)
        limit, swap = plan.memory
        if limit or swap:
            self._memory(limit or None, swap or None)
        self._write_plan(plan)

    def _memory(self, limit: int | None, swap: int | None) -> None:
        """Set memory and memory plus swap; the second may never be below the first, so the order depends on what is set."""
        wanted = [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", swap)]
        folder = self.paths.get("memory", "")
        if swap is not None and not os.path.exists(f"{folder}/memory.memsw.limit_in_bytes"):
            self.warnings.append("swap limit is not available; memory is limited without swap")
            wanted.pop()
        elif swap == -1 or (swap is not None and swap > files.number(f"{folder}/memory.memsw.limit_in_bytes")):
            wanted.reverse()  # growing: first the larger
        for name, value in wanted:
            if value is not None:
                try:
                    self._limit("memory", name, str(value))
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    raise InvalidRequest(f"{name}: {value} is less than the memory in use") from None

    def kill(self) -> None:
        # Freezing first keeps a fork bomb from outrunning the signals; a frozen task dies when it is thawed.
        state = f"{self.paths.get('freezer', '')}/freezer.state"
        frozen = False
        try:
            if self.pids():
                files.write(state, "FROZEN")
                frozen = True
        except OSError:
            pass
        try:
            self._signal_all(signal.SIGKILL)
        finally:
            if frozen:
                self.thaw()

    def freeze(self) -> None:
        state = f"{self.paths.get('freezer', '')}/freezer.state"
        deadline = time.monotonic() + PATIENCE
        try:
            while True:
                files.set_limit(state, "FROZEN", "freezer")  # again: a fork in between leaves FREEZING
                if files.read(state).strip() == "FROZEN":
                    return
                if time.monotonic() > deadline:
                    raise Broken(f"{state} stays {files.read(state).strip()}")
                time.sleep(0.001)
        except BaseException:
            self.thaw()
            raise

    def thaw(self) -> None:
        try:
            files.write(f"{self.paths.get('freezer', '')}/freezer.state", "THAWED")
        except FileNotFoundError:
            pass  # gone, or no freezer here

    def oom_killed(self) -> bool:
        return files.table(f"{self.paths.get('memory', '')}/memory.oom_control").get("oom_kill", 0) > 0

    def oom_notice(self) -> Fd:
        folder = self.paths.get("memory")
        if folder is None:
            raise Unsupported("this host has no memory control group")
        notice = Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        try:
            with open_fd(f"{folder}/memory.oom_control", os.O_RDONLY) as control:
                files.write(f"{folder}/cgroup.event_control", f"{notice.fileno()} {control.fileno()}")
        except BaseException:
            notice.close()
            raise
        return notice

    def stats(self) -> Stats:
        return stats_v1(self.paths)

    def memory_file(self) -> str:
        return f"{self.paths['memory']}/memory.usage_in_bytes" if "memory" in self.paths else ""


class GroupV2(Group):
    """One folder in the unified hierarchy."""

    @property
    def path(self) -> str:
        return self.paths[""]

    def apply(self, resources: Resources) -> None:
        self._write_plan(plan_v2(resources))
        if resources.devices:
            try:
                program = bpf.device_program(resources.devices)
            except ValueError as error:
                raise InvalidRequest(f"device rules: {error}") from None
            with open_fd(self.path, os.O_RDONLY | os.O_DIRECTORY) as folder:
                bpf.attach_device_program(folder, program)
            self._set.append((f"{self.path} (device program)", f"{len(resources.devices)} rules"))

    def kill(self) -> None:
        try:
            files.write(f"{self.path}/cgroup.kill", "1")
        except OSError:  # before Linux 5.14, or the group has gone
            self._signal_all(signal.SIGKILL)

    def freeze(self) -> None:
        try:
            files.set_limit(f"{self.path}/cgroup.freeze", "1", "freezer")
            self._wait_event("frozen", 1)
        except BaseException:
            self.thaw()
            raise

    def thaw(self) -> None:
        try:
            files.write(f"{self.path}/cgroup.freeze", "0")
        except FileNotFoundError:
            pass

    def _wait_event(self, name: str, value: int) -> None:
        """Wait for a line of cgroup.events; the kernel raises POLLPRI on it at every change."""
        deadline = time.monotonic() + PATIENCE
        with open_fd(f"{self.path}/cgroup.events", os.O_RDONLY) as events:
            poller = select.poll()
            poller.register(events.fileno(), select.POLLPRI)
            while f"{name} {value}" not in os.pread(events.fileno(), 4096, 0).decode().splitlines():
                rest = deadline - time.monotonic()
                if rest <= 0:
                    raise Broken(f"{self.path}/cgroup.events never says {name} {value}")
                poller.poll(rest * 1000)

    def oom_killed(self) -> bool:
        return files.table(f"{self.path}/memory.events").get("oom_kill", 0) > 0

    def oom_notice(self) -> Fd:
        return open_fd(f"{self.path}/memory.events", os.O_RDONLY)

    def stats(self) -> Stats:
        return stats_v2(self.path)

    def memory_file(self) -> str:
        return f"{self.path}/memory.current"

    def doors(self) -> Doors:
        return Doors(folder=open_fd(self.path, os.O_RDONLY | os.O_DIRECTORY))


def _gone(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


def _gone_with_children(path: str) -> bool:
    if _gone(path):
        return True
    return all(_gone(folder) for folder, _, _ in os.walk(path, topdown=False))
