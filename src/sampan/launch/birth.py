"""Making processes in namespaces: a keeper's brood, and an exec's process.

A process's parent is whoever cloned it, and what a keeper writes to it keeps for as long as its container runs.  What a daemon
asks for nearly always is the same, so the keeper clones it with arguments made beforehand.  Anything else it leaves to a
midwife, a fork of itself that joins namespaces and clones init as the keeper's child (CLONE_PARENT).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple, NoReturn

from sampan import messages
from sampan.cgroups import Doors
from sampan.errors import StepFailed
from sampan.kernel.fds import Fd, keep_only
from sampan.kernel.process import PR, Clone, PreparedClone, clone, pidfd_open, pidfd_signal, prctl, setns
from sampan.launch import bare, init
from sampan.launch.channel import Channel, unpack
from sampan.launch.namespaces import USUAL

# What a daemon asks for nearly always, ahead of need and now: nothing in it varies, so that a keeper need not read it.
EARLY = messages.to_bytes(messages.Breed(make=USUAL, early=True))
NOW = messages.to_bytes(messages.Breed(make=USUAL))
_clone_usual = PreparedClone(USUAL)


class Born(NamedTuple):
    """An exec's process that waits to be told what it is; this side owns its pidfd and the channel."""

    pid: int
    pidfd: Fd
    channel: Channel

    def kill(self) -> None:
        """Kill it, whatever it is doing, and reap it."""
        try:
            pidfd_signal(self.pidfd, 9)
            os.waitid(os.P_PIDFD, self.pidfd.fileno(), os.WEXITED)
        except (ProcessLookupError, ChildProcessError):
            pass
        self.channel.close()


def bear(inits: bare.Socket, *, early: bool) -> int:
    """For a keeper: clone the usual init, which says Born itself; return its pid, 0 when there is none and the daemon knows."""
    try:
        pid = _clone_usual()
    except OSError as error:
        bare.send(inits, messages.to_bytes(messages.Failed(step="clone", code=error.errno or 0, text=str(error))), [])
        return 0
    if pid == 0:
        _live(Channel.adopt(Fd(inits.detach())), early=early, tell=True)
    return pid


def deliver(body: bytes, numbers: Sequence[int], tell: int) -> NoReturn:
    """Be the midwife: clone the init that the Breed in `body` asks for, say Born to the daemon and its pid to the keeper.

    numbers: the Breed's descriptors.  tell: where the keeper reads the pid.
    """
    inits, step = Channel.adopt(Fd(numbers[1])), "namespaces"
    try:
        fds = [Fd(number) for number in numbers]
        request = unpack(body, fds)
        assert isinstance(request, messages.Breed)
        join = [(fds[number], kind) for number, kind in request.join]
        doors = Doors([fds[number] for number in request.tasks], None if request.folder is None else fds[request.folder])
        keeper = os.getppid()
        if join:
            # No host folder or socket may be open in a process that enters (row 18).
            keep_only([0, 1, 2, tell, *numbers[1:]])
            doors.enter()
            for fd, kind in join:
                setns(fd, kind)
        step = "clone"
        pid, pidfd = clone(request.make | Clone.PARENT, cgroup=doors.folder)
        if pid == 0:
            _live(inits)
        assert pidfd is not None
        os.write(tell, b"%d" % pid)
        inits.send(messages.Born(pid=pid, keeper_pid=keeper), [pidfd])
    except OSError as error:
        inits.send(messages.Failed(step=step, code=error.errno or 0, text=str(error)))
    finally:
        os._exit(0)


def give_birth_inside(other: Fd, kinds: int, doors: Doors) -> Born:
    """Make a child that joins namespaces (clone flags) of `other`, a pidfd, by itself; it waits for its Task.  Consumes `doors`.

    The pid namespace must be the one of the caller's children already (setns(2): it takes effect with the next fork).
    Raises StepFailed or OSError.
    """
    ours, theirs = Channel.pair()
    with ExitStack() as undo:
        undo.callback(ours.close)
        try:
            pid, pidfd = clone(cgroup=doors.folder)
            if pid == 0:
                _join_and_live(theirs, other, kinds, doors)
        finally:
            theirs.close()
            doors.close()
        if pidfd is None:
            raise StepFailed("clone", 0, "the kernel gave no pidfd")
        undo.pop_all()
    return Born(pid, pidfd, ours)


def _live(theirs: Channel, *, early: bool = False, tell: bool = False) -> NoReturn:
    """In the child: hold nothing but the channel, and whatever happens never run on as a second midwife or keeper."""
    try:
        prctl(PR.SET_PDEATHSIG, 9)  # a keeper that never learns of it takes it along
        keep_only([0, 1, 2, theirs.fileno()])
        if tell:
            with pidfd_open(os.getpid()) as pidfd:  # which says its number to whoever gets it, in their own terms
                theirs.send(messages.Born(), [pidfd])
        init.run(theirs, early=early)
    except OSError as error:
        theirs.send(messages.Failed(step="descriptors", code=error.errno or 0, text=str(error)))
    finally:
        os._exit(127)


def _join_and_live(theirs: Channel, other: Fd, kinds: int, doors: Doors) -> NoReturn:
    try:
        # No host folder or socket may be open in a process that enters (row 18).
        keep_only([0, 1, 2, theirs.fileno(), other.fileno(), *(fd.fileno() for fd in doors.tasks)])
        doors.enter()
        if kinds:
            setns(other, kinds)  # all at once, Linux 5.8
        _live(theirs)
    except OSError as error:
        theirs.send(messages.Failed(step="namespaces", code=error.errno or 0, text=str(error)))
    finally:
        os._exit(127)
