"""What daemon, spawner, keeper and init say to each other.

Every message is one SEQPACKET packet (unix(7)); descriptors go beside it (SCM_RIGHTS).  launch/channel.py sends and
receives: a long body travels in a memfd, which is then the packet's last descriptor.

    daemon           spawner            keeper             starter                    init
      |                |  fork ---------->|  fork ----------->|  clone3 --------------->|  (pid, mount, ipc, uts, net; userns)
      |                |                  |   all three wait for what comes next; init's parent is the keeper
      |  Launch + fds  |  the same        |                   |                         |
      |--------------->|------------------------------------->|  maps written; Task --->|
      |  Created(pid) + pidfd, netns fd                       |                         |  root attached, container's root
      |<------------------------------------------------------|  control groups made    |
      |  (makes the veth pair, sets addresses)                |  Go("group") + doors -->|  joins; mounts, masks, pivot
      |  Proceed                                              |<---------------- Built -|
      |------------------------------------------------------>|  Go("exec") ----------->|  privileges, execve
      |                                                       |<---------- Failed | EOF |
      |  Ready | Failed                   |                   |
      |<------------------------------------------------------|
      |                                   |<-- Handed + fds --|  exits
      |  Attach + fd, Exec + fds, Resize, Signal, Query
      |---------------------------------->|
      |  ExecStarted | ExecFailed, ExecExited, Exited, Status
      |<----------------------------------|
      |  Release (the daemon has recorded the exit)
      |---------------------------------->|  removes cgroups, keeper.sock; exits

The starter does what takes much memory and then leaves, so that the keeper stays small.  An exec is born of the keeper itself,
with the same Task, Built and Go.

The daemon's end of the first connection is passed inside Launch ("control").  A later daemon connects to
`<state_dir>/keeper.sock`; the keeper greets every new connection with Status + pidfd, and the newest connection is the
one that counts.  When a container ends, the keeper writes `<state_dir>/exit` (an `Exited`, JSON, atomically) before it
says so; with no daemon connected it then removes the cgroups and leaves: the file is what the next daemon finds.
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


class Launch(Message, frozen=True, kw_only=True):
    """Make a keeper, and through it a container.  The numbers are indexes into the message's descriptors.

    control: the keeper's end of a SEQPACKET pair whose other end the daemon keeps.
    rootfs: the detached mount of the root file system.
    filter: a memfd with the compiled seccomp filter; spec.linux.seccomp itself is not sent.  None: unconfined.
    spec.mounts[].tree, spec.linux.namespaces[].fd: indexes too.
    id_maps: whether spec.linux.uid_mappings are to be written (a user namespace of its own).
    wait_for_network: say Created and wait for Proceed before the program is started.
    open_stdin, stdin_once: Docker's OpenStdin and StdinOnce.
    reaper: the program that is to be process 1 and have the container's own as its child (launch/reaper.py), None without.
    user, group_add: who the process is, looked up inside the root file system; user None means process.user's numbers.
    """

    id: str
    spec: Spec
    control: int
    rootfs: int
    state_dir: str
    filter: int | None = None
    log: LogTarget = LogTarget(driver="none")
    attachments: tuple[Attachment, ...] = ()
    open_stdin: bool = False
    stdin_once: bool = False
    wait_for_network: bool = False
    reaper: int | None = None
    user: str | None = None
    group_add: tuple[str, ...] = ()


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


class Created(Message, frozen=True, kw_only=True):
    """The namespaces exist, nothing runs in them yet.  Descriptors: pidfd of init, its network namespace."""

    pid: int
    keeper_pid: int


class Ready(Message, frozen=True, kw_only=True):
    """The program has been started (execve succeeded).  Descriptor: pidfd of init."""

    pid: int
    keeper_pid: int
    started_at: int  # nanoseconds since the epoch
    warnings: tuple[str, ...] = ()


class Failed(Message, frozen=True, kw_only=True):
    """The start failed and everything the keeper made is undone."""

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


class Proceed(Message, frozen=True, kw_only=True):
    """The network is ready: start the program."""


class Abort(Message, frozen=True, kw_only=True):
    """Give the start up: kill init, undo, answer Failed."""

    text: str = ""


class Attach(Message, frozen=True, kw_only=True):
    attachment: Attachment


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


# starter -> keeper ------------------------------------------------------------------------------------------------


class Handed(Message, frozen=True, kw_only=True):
    """The program runs: the container is the keeper's now.  The numbers are indexes into the message's descriptors.

    Before the body goes one byte: how many of the first descriptors wake the keeper, which sleeps on them with the message
    unread; 0 means at once.
    group: the control group's path, "" for none.  filter: as in Launch, for execs.
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
    control: int
    pidfd: int
    helper: int  # the pid of a process to be reaped, 0 for none
    listener: int
    filter: int | None = None
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    master: int | None = None


# starter or keeper <-> init ---------------------------------------------------------------------------------------


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What only a container's first process needs.

    rootfs, trees: indexes of Launch's descriptors, as the spec names them; `trees` are sent in this order.
    folder: where the root is attached for a moment.  in_userns: in a user namespace, new or joined.
    controllers: v1 hierarchies as (folder, mount options), () on v2.
    """

    spec: Spec
    rootfs: int
    trees: tuple[int, ...]
    folder: str
    in_userns: bool
    own_netns: bool
    own_namespaces: tuple[str, ...]
    controllers: tuple[tuple[str, str], ...]


class Task(Message, frozen=True, kw_only=True):
    """What a newborn process is to become; with a place it is the container's first one, otherwise an exec.

    Descriptors: stdio for 0, 1, 2 when `pipes`, Launch's reaper when `reaper`, then the place's trees.
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
    """From the process between keeper and init that has joined the namespaces.  Descriptor: pidfd of init."""

    pid: int


class Built(Message, frozen=True, kw_only=True):
    """Root file system and identity are ready.  Descriptor: the terminal's master, if there is a terminal."""

    uid: int
    gid: int
    warnings: tuple[str, ...] = ()


class Go(Message, frozen=True, kw_only=True):
    """stage is "group" (enter the control group; descriptors: its v1 files) or "exec" (network ready, start the program)."""

    stage: str


ToSpawner = Launch | MakeUserns
FromKeeper = Created | Ready | Failed | ExecStarted | ExecFailed | ExecExited | Exited | Status | Refused
ToKeeper = Proceed | Abort | Attach | Exec | Resize | Signal | Query | Release
AnyMessage = (
    Launch | MakeUserns | UsernsMade | Created | Ready | Failed | ExecStarted | ExecFailed | ExecExited | Exited | Status | Refused
    | Proceed | Abort | Attach | Exec | Resize | Signal | Query | Release | Handed | Task | Born | Built | Go
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def to_bytes(message: Message) -> bytes:
    """Return the message's body (msgpack)."""
    return _encoder.encode(message)


def from_bytes(body: bytes) -> AnyMessage:
    """Return the message of a body.  Raises msgspec.DecodeError or ValidationError on anything that is none."""
    return _decoder.decode(body)
