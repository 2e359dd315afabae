"""A log's files on disk, found once and opened without following links; compressed ones are unpacked when they are read."""

from __future__ import annotations

import errno
import os
import stat
import struct
import zlib

from sampan.kernel.fds import Fd, memfd

MAX_FILES = 10_000
MAX_UNPACKED = 4 << 30  # bytes of one file: what nobody wrote is not unpacked
_CHUNK = 1 << 20
_FIELD = struct.Struct("<HBBHQQQ")  # of a gzip head: size of the field, "S", "I", 24, inode, mtime and size of what was compressed
_FIELD_HEAD = (_FIELD.size - 2, 0x53, 0x49, 24)


def gzip_head(fd: int) -> bytes:
    """Return the head (RFC 1952) of the compressed form of a file; its extra field says which file that was."""
    found = os.fstat(fd)
    field = _FIELD.pack(*_FIELD_HEAD, found.st_ino, found.st_mtime_ns, found.st_size)
    return bytes((0x1F, 0x8B, 8, 4, 0, 0, 0, 0, 0, 3)) + field


class LogFile:
    """One file, plain or compressed."""

    def __init__(self, fd: Fd, *, compressed: bool) -> None:
        self._fd = fd
        self._packed = compressed
        self._was: tuple[int, int, int] | None = None  # what a compressed one was
        if compressed:
            self._was = (0, 0, 0)
            head = os.pread(fd.fileno(), 10 + _FIELD.size, 0)
            if len(head) == 10 + _FIELD.size and head[3] & 4:
                field = _FIELD.unpack_from(head, 10)
                self._was = field[4:] if field[:4] == _FIELD_HEAD else self._was

    def inode(self) -> int:
        """Return its number; 0 for a compressed one."""
        return 0 if self._was else os.fstat(self._fd.fileno()).st_ino

    def same(self, other: LogFile) -> bool:
        """Return whether both are one log, compressed in between perhaps (an inode's number is used again once nobody has it)."""
        if self._was is None and other._was is None:
            return self.inode() == other.inode()
        return self._key() == other._key()

    def _key(self) -> tuple[int, int, int]:
        if self._was is not None:
            return self._was
        found = os.fstat(self._fd.fileno())
        return found.st_ino, found.st_mtime_ns, found.st_size

    def fileno(self) -> int:
        """Return a descriptor of the content; a compressed file is unpacked now."""
        if self._packed:
            plain = _unpacked(self._fd)
            self._fd.close()
            self._fd, self._packed = plain, False
        return self._fd.fileno()

    @property
    def size(self) -> int:
        return os.fstat(self.fileno()).st_size

    def close(self) -> None:
        self._fd.close()


def _unpacked(packed: Fd) -> Fd:
    """Return the content in a memfd; what is damaged ends there."""
    plain = memfd("sampan-log")
    unpacker = zlib.decompressobj(31)
    place = written = 0
    try:
        while written < MAX_UNPACKED and not unpacker.eof and (data := os.pread(packed.fileno(), _CHUNK, place)):
            place += len(data)
            while data and written < MAX_UNPACKED:
                piece = unpacker.decompress(data, _CHUNK)
                data = unpacker.unconsumed_tail
                written += len(piece)
                while piece:
                    piece = piece[os.write(plain.fileno(), piece) :]
    except zlib.error:
        pass
    except BaseException:
        plain.close()
        raise
    return plain


def open_one(folder: int | Fd | str, name: str) -> Fd:
    """Raises FileNotFoundError, OSError(ELOOP) for a symbolic link, OSError(EINVAL) for what is no regular file."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    at = None if isinstance(folder, str) else int(folder)
    fd = Fd(os.open(os.path.join(folder, name) if isinstance(folder, str) else name, flags, dir_fd=at))
    if not stat.S_ISREG(os.fstat(fd.fileno()).st_mode):
        fd.close()
        raise OSError(errno.EINVAL, "the log is not a regular file", name)
    return fd


def open_all(folder: int | Fd | str, name: str) -> list[LogFile]:
    """Open the files, oldest first.  One that is rotated or compressed while we open is found once, by its identity."""
    files = [LogFile(open_one(folder, name), compressed=False)]
    gap = False
    try:
        for number in range(1, MAX_FILES):
            found = None
            for suffix in ("", ".gz", ""):  # compressing: the plain file goes after the other has come, rotation moves both
                try:
                    found = LogFile(open_one(folder, f"{name}.{number}{suffix}"), compressed=bool(suffix))
                    break
                except FileNotFoundError:
                    continue
            if found is None:
                if gap:
                    break
                gap = True  # a rotation, which moves the oldest first, may be just here
                continue
            gap = False
            if any(found.same(file) for file in files[-2:]):
                found.close()
                continue
            files.append(found)
    except BaseException:
        for file in files:
            file.close()
        raise
    return files[::-1]


def inode_of(folder: Fd, name: str) -> int:
    """Return the inode behind a name, 0 when there is none."""
    try:
        return os.stat(name, dir_fd=folder.fileno(), follow_symlinks=False).st_ino
    except FileNotFoundError:
        return 0  # between the rename and the new file
