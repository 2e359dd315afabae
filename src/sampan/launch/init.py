"""What runs in the container for a few milliseconds, between clone3 and execve of the program.

It inherits the spawner's frozen interpreter, imports nothing, opens nothing by a host's name after it has entered, and
either becomes the program or says why not (SECURITY.md A9).
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from sampan import messages
from sampan.cgroups import Doors
from sampan.errors import InvalidRequest, StepFailed
from sampan.files.users import LARGEST_ID, Identity, home_of, resolve
from sampan.kernel import idents
from sampan.kernel.fds import Fd, close_from, open_fd
from sampan.kernel.mount import new_mount
from sampan.kernel.paths import open_in
from sampan.kernel.process import PR, Clone, prctl, set_name, unshare
from sampan.kernel.pty import make_controlling, open_terminal, set_size
from sampan.launch.channel import Channel
from sampan.launch.rehearsal import rehearse
from sampan.oci.runtime import Spec
from sampan.runtime import ahead, apply
from sampan.runtime.identity import give_up_privileges, set_limits
from sampan.runtime.plan import Step, as_usual, plan
from sampan.runtime.program import DEFAULT_PATH, find
from sampan.runtime.sysctls import set_sysctls

_SIGNALS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGQUIT,
)  # fmt: skip


def run(channel: Channel, *, early: bool = False) -> NoReturn:
    """Wait for a Task and become its program; never returns.  The channel is all that is open besides 0, 1, 2."""
    try:
        _leave_the_keeper()
        ready: dict[str, Fd] = {}
        if early:
            ready = ahead.make()
            rehearse()
        task, fds = channel.receive()
        if not isinstance(task, messages.Task):
            os._exit(127)  # whoever made this process gave up; nobody listens
        _start(task, fds, channel, ready)
    except StepFailed as error:
        failed = messages.Failed(step=error.step, code=error.code, text=error.text)
    except InvalidRequest as error:
        failed = messages.Failed(step="user", code=errno.EINVAL, text=str(error))
    except OSError as error:
        name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
        text = f"{name}: {error.strerror}" if name else str(error.strerror)
        failed = messages.Failed(step="init", code=error.errno or 0, text=text)
    except BaseException as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
        failed = messages.Failed(step="init", code=0, text=f"{type(error).__name__}: {error}")
    try:
        channel.send(failed)
    finally:
        os._exit(127)


class Given(NamedTuple):
    """The Task's descriptors.  pipes: for 0, 1, 2, None with a terminal.  reaper: what is executed in the program's place."""

    pipes: tuple[Fd, Fd, Fd] | None
    reaper: Fd | None


class Ground(NamedTuple):
    """What Go("group") brings: the doors of the group, the root file system, and the place's trees by number."""

    doors: Doors
    root: Fd
    trees: Mapping[int, Fd]


def _given(task: messages.Task, fds: list[Fd]) -> Given:
    rest = iter(fds)
    pipes = (next(rest), next(rest), next(rest)) if task.pipes else None
    return Given(pipes, next(rest) if task.reaper else None)


def _ground(channel: Channel, place: messages.Place) -> Ground:
    told, fds = _wait(channel, "group")
    doors, root, *trees = Doors(tasks=fds[: told.tasks]), *fds[told.tasks :]
    return Ground(doors, root, dict(zip(place.trees, trees, strict=True)))


def _leave_the_keeper() -> None:
    os.setsid()
    set_name("sampan-init")
    prctl(PR.SET_DUMPABLE, 0)
    idents.join_fresh_session_keyring()


def _start(task: messages.Task, fds: list[Fd], channel: Channel, ready: dict[str, Fd]) -> None:
    given, place = _given(task, fds), task.place
    if place is not None:
        steps, ready = _plan(place.spec, ready)
        ground = _ground(channel, place)
        # Still the host's root in the eyes of its folders, which nobody else may pass; the container's root is nobody there.
        root = apply.enter(ground.root, place.folder)
    if task.enter_as_root:
        idents.set_groups([])
        idents.set_gid(0)
        idents.set_uid(0)
        prctl(PR.SET_DUMPABLE, 0)
    proc: Fd | None = None
    terminal: tuple[Fd, Fd] | None = None
    if place is not None:
        ground.doors.enter()
        terminal, proc = _build(place, steps, root, ground.trees, ready)
    with open_fd("/", os.O_PATH | os.O_DIRECTORY) as root:
        if place is None and task.process.terminal:
            with open_in(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY) as multiplexer:
                terminal = open_terminal(multiplexer)
        identity = _identity(root, task)
        warnings = set_limits(task.process)
        master = [terminal[0]] if terminal else []
        channel.send(messages.Built(uid=identity.uid, gid=identity.gid, warnings=tuple(warnings)), master)
        _wait(channel, "exec")
        if place is not None and proc is not None:
            set_sysctls(proc, place.spec.linux.sysctl, place.own_namespaces)
        _become(task, identity, root, terminal, given)


def _wait(channel: Channel, stage: str) -> tuple[messages.Go, list[Fd]]:
    message, fds = channel.receive()
    if not isinstance(message, messages.Go) or message.stage != stage:
        os._exit(127)  # the daemon gave up; nobody listens
    return message, fds


def _plan(spec: Spec, ready: dict[str, Fd]) -> tuple[tuple[Step, ...], dict[str, Fd]]:
    """Return the steps, and which of the mounts made ahead they use: all or none."""
    if ready and not as_usual(spec):
        ahead.drop(ready)
        ready = {}
    try:
        return plan(spec, ready=bool(ready)), ready
    except InvalidRequest as error:
        raise StepFailed("config", 0, str(error)) from None


def _build(
    place: messages.Place, steps: Sequence[Step], root: Fd, trees: Mapping[int, Fd], ready: dict[str, Fd]
) -> tuple[tuple[Fd, Fd] | None, Fd]:
    """Make the root file system and enter it; return the terminal, if any, and the private procfs."""
    spec = place.spec
    if "cgroup" in place.own_namespaces:
        unshare(Clone.NEWCGROUP)  # only now: its root is the group that we have just entered
    if spec.hostname and "uts" in place.own_namespaces:
        idents.set_hostname(spec.hostname)
    if spec.domainname and "uts" in place.own_namespaces:
        idents.set_domainname(spec.domainname)
    # Before any mount of the container's, and reachable by this descriptor only (row 4).
    proc = new_mount("proc") if spec.linux.sysctl else Fd(-1)
    state = apply.Walk(root, trees, place.in_userns, place.own_netns, place.controllers, systems=ready)
    apply.walk(steps, state)
    if state.terminal is None and spec.process.terminal:
        with open_in(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY) as multiplexer:
            state.terminal = open_terminal(multiplexer)
    return state.terminal, proc


def _identity(root: Fd, task: messages.Task) -> Identity:
    if task.user is not None:
        return resolve(root, task.user, task.group_add)
    user = task.process.user
    if not all(0 <= number <= LARGEST_ID for number in (user.uid, user.gid, *user.additional_gids)):
        raise InvalidRequest(f"user {user.uid}:{user.gid} is out of range 0-{LARGEST_ID}")
    groups = tuple(dict.fromkeys([user.gid, *user.additional_gids]))
    return Identity(user.uid, user.gid, groups, home_of(root, user.uid))


def _become(task: messages.Task, identity: Identity, root: Fd, terminal: tuple[Fd, Fd] | None, given: Given) -> None:
    process = task.process
    if terminal is not None:
        master, slave = terminal
        if process.console_size is not None:
            set_size(master, process.console_size.height, process.console_size.width)
        os.fchown(slave.fileno(), identity.uid, -1)
        make_controlling(slave)
        stdio = (slave, slave, slave)
    elif given.pipes is not None:
        stdio = given.pipes
    else:
        raise StepFailed("stdio", 0, "neither pipes nor a terminal")
    environment = list(process.env)
    if not any(entry.startswith("HOME=") and entry != "HOME=" for entry in environment):
        environment = [entry for entry in environment if entry != "HOME="] + [f"HOME={identity.home}"]
    path = next((entry[5:] for entry in reversed(environment) if entry.startswith("PATH=")), DEFAULT_PATH)
    _enter_folder(root, process.cwd)
    for target, fd in enumerate(stdio):
        os.dup2(fd.fileno(), target)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    arguments = [os.fsencode(argument) for argument in process.args]
    if not arguments or any(b"\0" in word for word in arguments) or any("\0" in entry for entry in environment):
        raise StepFailed("exec", errno.EINVAL, "the command is empty or holds a NUL")
    give_up_privileges(process, identity, task.program, task.last_cap)
    program = find(root, process.cwd, process.args[0], path)
    close_from(3, only_mark=True)
    # A container does not outlive its keeper; last, for a change of ids clears it (prctl(2)).
    prctl(PR.SET_PDEATHSIG, signal.SIGKILL)
    if given.reaper is not None:
        # A signal that process 1 neither handles nor blocks is lost: none may come between execve and its own blocking.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        _execute(given.reaper.fileno(), [b"sampan-init", os.fsencode(program), *arguments], environment, process.args[0])
    _execute(program, arguments, environment, process.args[0])


def _enter_folder(root: Fd, cwd: str) -> None:
    """Make the working directory if it is missing, go there, and see that it is inside (rows 17, CVE-2024-21626)."""
    if not cwd.startswith("/"):
        raise StepFailed("cwd", errno.EINVAL, f"working directory {cwd!r} is not an absolute path")
    try:
        with apply.open_target(root, cwd, directory=True) as folder:
            os.fchdir(folder.fileno())
        inside = os.getcwd()
    except OSError as error:
        raise StepFailed(
            "cwd",
            error.errno or 0,
            f'chdir to cwd ("{cwd}") set in config.json failed: {(error.strerror or "").lower()}',
        ) from None
    if not inside.startswith("/"):
        raise StepFailed("cwd", errno.ENOENT, f"working directory {cwd!r} is outside of the container")


def _execute(program: str | int, arguments: list[bytes], environment: list[str], name: str) -> None:
    pairs = {}
    for entry in environment:
        key, _, value = entry.partition("=")
        if key:
            pairs[os.fsencode(key)] = os.fsencode(value)
    try:
        os.execve(program, arguments, pairs)
    except OSError as error:
        reason = {errno.ENOENT: "no such file or directory", errno.EACCES: "permission denied"}.get(
            error.errno or 0, (error.strerror or "").lower()
        )
        raise StepFailed("exec", error.errno or 0, f'exec: "{name}": {reason}') from None
