"""The unpacker: a process of its own that takes layers apart, so that what a hostile one does to it is not done to the daemon.

    daemon (unpackers.py)                      unpacker, one layer at a time
      |  Job + folder + reading end of a pipe    |
      |----------------------------------------->|  limits for this job
      |  the stored layer, through the pipe      |  decompresses, hashes, unpacks below the folder
      |=========================================>|
      |                  Unpacked | Refused      |
      |<-----------------------------------------|  the next Job; ends when the daemon's end is closed

It holds no descriptor but these, has no network and only the capabilities that making files takes, may not gain any, and its
memory, its time and the size of a file are bounded (SECURITY.md row 54).  Decompressors are C: that is where a bomb or worse
would go off.  Nothing is flushed here; the daemon does that.
"""

from __future__ import annotations

import os
import resource
import socket

import msgspec

from sampan.errors import Broken, InvalidRequest
from sampan.files.compression import Compression, decompressed
from sampan.files.digests import CountingReader, HashingReader
from sampan.files.tar_apply import Applied, BadArchive, Budget, OverBudget, apply
from sampan.kernel import caps
from sampan.kernel.fds import Fd, receive_with_fds
from sampan.kernel.process import PR, Clone, prctl, set_name, unshare

SOCKET_FD = 3
MEMORY = 640 << 20  # bytes of address space: xz may take 256 MiB, zstd's window 128 MiB
SECONDS = 3600  # of processor time for one layer
_FILES = 256  # descriptors; a tree holds 64 folders open
_KEPT = caps.mask(
    ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_LINUX_IMMUTABLE", "CAP_MKNOD",
     "CAP_SETFCAP", "CAP_SYS_ADMIN")  # the last for trusted.overlay.opaque, xattr(7)
)  # fmt: skip


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A layer to unpack.  hashed: its digest is wanted, and nobody else computes it."""

    kind: str
    max_bytes: int
    max_entries: int
    hashed: bool


class Unpacked(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Done.  digest: of the plain tar, "" when it was not wanted."""

    digest: str
    size: int
    has_root: bool


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Not done.  kind: archive, budget, request, host (an errno) or broken."""

    kind: str
    text: str
    offset: int = 0
    entry: str = ""
    errno: int = 0


Reply = Unpacked | Refused


def main() -> None:
    """Serve one daemon until it closes its end."""
    connection = socket.socket(fileno=SOCKET_FD)
    set_name("sampan-unpack")
    _confine()
    while True:
        try:
            data, fds = receive_with_fds(connection)
        except ConnectionResetError:  # the daemon was killed before it had read the last answer (unix(7))
            return
        if not data:
            return
        folder, stream = fds
        with folder, stream:
            reply = _answer(msgspec.msgpack.decode(data, type=Job), folder, stream)
        try:
            connection.send(msgspec.msgpack.encode(reply), socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            return


def _confine() -> None:
    """Give up what unpacking does not take."""
    unshare(Clone.NEWNET)
    prctl(PR.SET_NO_NEW_PRIVS, 1)
    _, permitted, _ = caps.get()
    kept = permitted & _KEPT
    caps.drop_bounding(kept, caps.last_cap())
    caps.set_(kept, kept)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _limit(job: Job) -> None:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent.ru_utime + spent.ru_stime) + SECONDS, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    most = job.max_bytes + 1 if hard == resource.RLIM_INFINITY else min(job.max_bytes + 1, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))


def _answer(job: Job, folder: Fd, stream: Fd) -> Reply:
    try:
        _limit(job)
        return _unpack(job, folder, stream)
    except BadArchive as error:
        return Refused(kind="archive", text=_text(error.reason), offset=error.offset, entry=_text(error.entry))
    except OverBudget as error:
        return Refused(kind="budget", text=str(error))
    except InvalidRequest as error:
        return Refused(kind="request", text=_text(str(error)))
    except MemoryError:
        return Refused(kind="archive", text=f"unpacking takes more than {MEMORY >> 20} MiB of memory")
    except OSError as error:
        return Refused(kind="host", text=_text(str(error.strerror)), entry=_text(str(error.filename or "")), errno=error.errno or 0)
    except Exception as error:  # noqa: BLE001  (carried to the daemon, which says it)
        return Refused(kind="broken", text=_text(f"{type(error).__name__}: {error}"))


def _unpack(job: Job, folder: Fd, stream: Fd) -> Unpacked:
    plain = decompressed(_Pipe(stream.fileno()), Compression(job.kind))
    reader = HashingReader(plain) if job.hashed else CountingReader(plain)
    budget = Budget(max_bytes=job.max_bytes, max_entries=job.max_entries)
    result: Applied = apply(reader, folder, budget=budget)
    drain(reader, budget)
    return Unpacked(digest=reader.digest if isinstance(reader, HashingReader) else "", size=result.size, has_root=result.has_root)


class _Pipe:
    """A descriptor as a reader."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        return os.read(self._fd, min(size, 1 << 20))


def drain(reader: HashingReader | CountingReader, budget: Budget) -> None:
    """Read what is left of a layer's tar.  Raises OverBudget."""
    most = budget.max_bytes + (budget.max_entries << 10) + (1 << 20)  # headers and padding count too
    while reader.read(1 << 20):
        if reader.count > most:
            raise OverBudget(f"archive is larger than {most} bytes")


def raised(refused: Refused) -> Exception:
    """Return a refusal as what the unpacker met."""
    match refused.kind:
        case "archive":
            return BadArchive(refused.text, offset=refused.offset, entry=refused.entry)
        case "budget":
            return OverBudget(refused.text)
        case "request":
            return InvalidRequest(refused.text)
        case "host":
            return OSError(refused.errno, refused.text, refused.entry)
    return Broken(f"unpacking a layer failed: {refused.text}")


def _text(value: str) -> str:
    """Return what msgpack can carry, and not much of it."""
    return value[:1000].encode(errors="backslashreplace").decode()
