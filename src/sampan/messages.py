"""What daemon, spawner, keeper and init say to each other.

Every message is one SEQPACKET packet (unix(7)); descriptors go beside it (SCM_RIGHTS).  launch/channel.py sends and
receives: a long body travels in a memfd, which is then the packet's last descriptor.

    daemon                    spawner             keeper              midwife                  init
      |  Breed + both ends       |  fork ----------->|  fork ----------->|  clone3 ------------->|  (pid, mount, ipc, uts, net;
      |------------------------->|  the same         |  the same         |                       |   userns); the keeper's child
      |  Born(pid) + pidfd       |                   |<-------------- pid|                       |
      |<---------------------------------------------------------------- |  exits                |
      |  keeper and init wait: what is above is done ahead of need, where it can be
      |  maps written; Task + fds                    |                                           |
      |----------------------------------------------------------------------------------------->|  planned
      |  control groups made, root file system mounted; Go("group") + doors, root, trees
      |----------------------------------------------------------------------------------------->|  root attached, container's root,
      |                                              |                                           |  joins; mounts, masks, pivot
      |  (makes the veth pair, sets addresses)       |                                    Built  |
      |<-----------------------------------------------------------------------------------------|
      |  Go("exec")                                  |                                           |
      |----------------------------------------------------------------------------------------->|  privileges, execve
      |                                              |                              Failed | EOF |
      |<-----------------------------------------------------------------------------------------|
      |  Handed + fds                                |
      |--------------------------------------------->|  sleeps until something happens
      |  Attach + fd, Exec + fds, Resize, Signal, Query
      |--------------------------------------------->|
      |  ExecStarted | ExecFailed, ExecExited, Exited, Status
      |<---------------------------------------------|
      |  Release (the daemon has recorded the exit)  |
      |--------------------------------------------->|  removes cgroups, keeper.sock; exits

The usual Breed (birth.EARLY, birth.NOW) needs no midwife: the keeper clones init itself, and init says Born.

Go("exec") comes before Built where the daemon knows the uid without the container's passwd file.

The daemon does the start itself, in a thread.  A daemon that dies before Handed takes init with it: the keeper kills what it was
never given.  An exec is born of the keeper itself, with the same Task, Built and Go.

The first connection to the keeper is one that the daemon made, and whose other end went with Breed.  A later daemon connects to
`<state_dir>/keeper.sock`; the keeper greets every new connection with Status + pidfd, and the newest connection is the
one that counts.  When a container ends, the keeper says so and waits for Release; with no daemon connected, or when that one
goes before it has recorded the end, the keeper writes `<state_dir>/exit` (an `Exited`, JSON, atomically), removes the cgroups and
leaves: the file is what the next daemon finds.
"""

from __future__ import annotations

import msgspec

from sampan.oci.runtime import Process, Spec


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="m", tag=True):
    """Base of every message."""


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A stream socket (socketpair) joined to a process's stdio; its descriptor is number `fd` of the message.

    The keeper writes output to it, framed (8-byte head, engine-api.md 2.2) unless the process has a terminal, and reads
    input from it when `stdin`; half-close of the daemon's side is the end of input; the keeper closes after the last byte.
    """

    fd: int
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True


class LogTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Where output is kept.  driver and options: logs/options.py; the folder is the descriptor number `fd` of the message.

    attributes: what goes with every record.  tag: the program's name for syslog.  tls: the settings of engine/syslog_tls.py;
    without them a syslog-address's host is a number already.
    """

    driver: str = "json-file"
    fd: int | None = None
    name: str = ""  # file name inside the folder
    options: dict[str, str] = {}
    attributes: dict[str, str] = {}
    tag: str = ""
    tls: str = ""


# daemon -> spawner -----------------------------------------------------------------------------------------------


class Breed(Message, frozen=True, kw_only=True):
    """Make a keeper and an init that wait.  Descriptors: the keeper's end, init's end, then what the numbers are indexes of.

    make: clone flags.  join: namespaces (descriptor, clone flag), in this order.  early: nobody waits for it yet.
    folder, tasks: the doors of the control group that it is born in (cgroups.Doors).
    """

    make: int
    early: bool = False
    join: tuple[tuple[int, int], ...] = ()
    folder: int | None = None
    tasks: tuple[int, ...] = ()


class MakeUserns(Message, frozen=True, kw_only=True):
    """Make a user namespace that maps 0..size-1 to `base` up, for mounts; answered on the socket `control`."""

    base: int
    size: int
    control: int = 0


# spawner -> daemon -----------------------------------------------------------------------------------------------


class UsernsMade(Message, frozen=True, kw_only=True):
    """Descriptor: the user namespace.  Without one, `code` (errno) says why not."""

    code: int = 0


# keeper -> daemon ------------------------------------------------------------------------------------------------


class Failed(Message, frozen=True, kw_only=True):
    """A step of the way to execve failed; who says it ends."""

    step: str
    code: int  # errno, or 0
    text: str


class ExecStarted(Message, frozen=True, kw_only=True):
    """Descriptor: pidfd of the new process."""

    exec_id: str
    pid: int


class ExecFailed(Message, frozen=True, kw_only=True):
    exec_id: str
    step: str
    code: int
    text: str


class ExecExited(Message, frozen=True, kw_only=True):
    exec_id: str
    status: int  # exit code, or 128 + signal


class Exited(Message, frozen=True, kw_only=True):
    """The container's first process has ended and its output is drained and in the log."""

    status: int  # exit code, or 128 + signal
    oom_killed: bool
    finished_at: int  # nanoseconds since the epoch
    error: str = ""
    lost_lines: int = 0  # lines of output that its log did not take


class Status(Message, frozen=True, kw_only=True):
    """A keeper's greeting to a daemon that has just connected, and the answer to Query.  Descriptor: pidfd of init, if it runs."""

    id: str
    pid: int
    keeper_pid: int
    started_at: int
    exited: Exited | None = None
    execs: dict[str, int] = {}  # exec id -> pid, the running ones
    exec_statuses: dict[str, int] = {}  # exec id -> exit code, those that ended lately
    exec_notes: dict[str, bytes] = {}  # exec id -> the note of its Exec, for both


class Refused(Message, frozen=True, kw_only=True):
    """A request could not be carried out; the container is as it was."""

    request: str
    text: str


# daemon -> keeper ------------------------------------------------------------------------------------------------


class Attach(Message, frozen=True, kw_only=True):
    """Join a client.  gate: number of a stream socket; with one, output waits (a megabyte, then the program) until "+" comes on it.

    First the keeper writes the time of now on the gate, in ns, eight bytes: what it has logged is not later, and the client's
    first output follows on it, a line that has not ended yet included.  A gate that closes without a word ends the attachment.
    """

    attachment: Attachment
    gate: int = -1


class Exec(Message, frozen=True, kw_only=True):
    """Start another process in the container.  note: given back in Status, for a daemon that does not know the exec."""

    exec_id: str
    note: bytes = b""
    process: Process
    open_stdin: bool = False
    privileged: bool = False
    attachments: tuple[Attachment, ...] = ()
    user: str | None = None
    group_add: tuple[str, ...] = ()


class Resize(Message, frozen=True, kw_only=True):
    """Set a terminal's size; exec_id empty means the container's own."""

    exec_id: str = ""
    height: int
    width: int


class Signal(Message, frozen=True, kw_only=True):
    """Send a signal; exec_id empty means the container's first process.  group: to an exec's whole process group."""

    exec_id: str = ""
    number: int
    group: bool = False


class Query(Message, frozen=True, kw_only=True):
    """Ask for Status."""


class Release(Message, frozen=True, kw_only=True):
    """The daemon has recorded the exit: clean up and leave."""


# daemon -> keeper, once ------------------------------------------------------------------------------------------------


class Handed(Message, frozen=True, kw_only=True):
    """The program runs: the container is the keeper's now.  The numbers are indexes into the message's descriptors.

    Before the body goes one byte: how many of the first descriptors wake the keeper, which sleeps on them with the message
    unread; 0 means at once.
    group: the control group's path, "" for none.  filter: a memfd with the compiled seccomp filter, for execs; None: unconfined.
    mounts: the mount namespace, held so that the kernel takes it apart after the container's end has been told, not before.
    stdin, stdout, stderr: the outer ends of the pipes; master: the terminal's.
    socket: inode and change time of keeper.sock, so that the keeper never removes its successor's.
    """

    id: str
    state_dir: str
    socket: tuple[int, int]
    pid: int
    started_at: int
    group: str
    terminal: bool
    stdin_once: bool
    log: LogTarget
    attachments: tuple[Attachment, ...]
    pidfd: int
    mounts: int
    listener: int
    filter: int | None = None
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    master: int | None = None


# daemon or keeper <-> init ---------------------------------------------------------------------------------------


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What only a container's first process needs.

    trees: indexes of its start's descriptors, as the spec names them, in the order in which they are sent.
    folder: where the root is attached for a moment.  in_userns: in a user namespace, new or joined.
    controllers: v1 hierarchies as (folder, mount options), () on v2.
    """

    spec: Spec
    trees: tuple[int, ...]
    folder: str
    in_userns: bool
    own_netns: bool
    own_namespaces: tuple[str, ...]
    controllers: tuple[tuple[str, str], ...]


class Task(Message, frozen=True, kw_only=True):
    """What a newborn process is to become; with a place it is the container's first one, otherwise an exec.

    Descriptors: stdio for 0, 1, 2 when `pipes`, then the reaper when `reaper`.
    program: the compiled seccomp filter, b"" for none.  enter_as_root: it is in a user namespace, where it is nobody yet.
    """

    process: Process
    user: str | None
    group_add: tuple[str, ...]
    pipes: bool
    program: bytes
    last_cap: int
    enter_as_root: bool
    reaper: bool = False
    place: Place | None = None


class Born(Message, frozen=True, kw_only=True):
    """On init's connection, from the midwife or init itself.  Descriptor: pidfd of init, which tells the pids where they are 0."""

    pid: int = 0
    keeper_pid: int = 0


class Built(Message, frozen=True, kw_only=True):
    """Root file system and identity are ready.  Descriptor: the terminal's master, if there is a terminal."""

    uid: int
    gid: int
    warnings: tuple[str, ...] = ()


class Go(Message, frozen=True, kw_only=True):
    """stage is "group" (enter the control group, build the root file system) or "exec" (network ready, start the program).

    Descriptors with "group": the group's v1 files, `tasks` of them, the root file system, the place's trees.
    """

    stage: str
    tasks: int = 0


ToSpawner = Breed | MakeUserns
FromKeeper = ExecStarted | ExecFailed | ExecExited | Exited | Status | Refused
ToKeeper = Attach | Exec | Resize | Signal | Query | Release
AnyMessage = (
    Breed | MakeUserns | UsernsMade | Failed | ExecStarted | ExecFailed | ExecExited | Exited | Status | Refused
    | Attach | Exec | Resize | Signal | Query | Release | Handed | Task | Born | Built | Go
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def to_bytes(message: Message) -> bytes:
    """Return the message's body (msgpack)."""
    return _encoder.encode(message)


def from_bytes(body: bytes) -> AnyMessage:
    """Return the message of a body.  Raises msgspec.DecodeError or ValidationError on anything that is none."""
    return _decoder.decode(body)
