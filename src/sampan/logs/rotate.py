"""A file that is kept small: name, name.1, name.2 ... (the oldest goes), rotated ones compressed if wished (name.1.gz).

A disk that is full does not stop the container: what cannot be written is counted in `lost`.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zlib

from sampan.kernel.fds import keep_only
from sampan.logs.files import gzip_head
from sampan.logs.options import Options

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CHUNK = 1 << 20


class RotatingFile:
    """Owns the folder's descriptor from here on; `close` ends it.  size: bytes of the current file."""

    def __init__(self, dir_fd: int, name: str, options: Options) -> None:
        """Raises OSError when the file cannot be opened or is not a regular one of its own."""
        self._folder, self._name, self._fd, self.size = dir_fd, name, -1, 0
        self._options = options
        self._compressor = 0  # the process that compresses name.1, if any
        self.lost = 0
        try:
            if not name or "/" in name or name in (".", ".."):
                raise OSError(errno.EINVAL, "not a file name", name)
            self._open()
        except BaseException:
            self.close()
            raise

    def last(self, size: int) -> bytes:
        """Return the last bytes of the current file."""
        return os.pread(self._fd, size, max(0, self.size - size))

    def read(self, size: int, place: int) -> bytes:
        return os.pread(self._fd, size, place)

    def cut(self, size: int) -> None:
        """Let everything after the first `size` bytes go."""
        os.ftruncate(self._fd, size)
        self.size = size

    def put(self, records: bytes, *, end: bytes = b"") -> int:
        """Append; return how many bytes are there: all of them, or what ends a record (with `end`) before the disk was full."""
        view, written = memoryview(records), 0
        try:
            while written < len(records):
                written += os.write(self._fd, view[written:])
        except OSError:
            kept = records.rfind(end, 0, written) + len(end) if end else 0
            try:
                os.ftruncate(self._fd, self.size + kept)  # no half record
                written = kept
            except OSError:
                pass
            self.size += written
            return kept
        self.size += written
        return written

    def full(self, more: int) -> bool:
        """Return whether `more` bytes belong into a new file."""
        return 0 < self._options.max_size < self.size + more

    @property
    def room(self) -> int:
        return max(0, self._options.max_size - self.size)

    def rotate(self) -> bool:
        """Go to a new file; a reader that has a file open keeps its inode.  Return False when that is not possible."""
        try:
            self._rotate()
        except OSError:
            return False
        return True

    def _rotate(self) -> None:
        self._wait_for_compressor()
        for number in range(self._options.max_file - 1, 0, -1):
            for suffix in ("", ".gz"):
                older = f"{self._name}.{number - 1}{suffix}" if number > 1 else self._name
                if number == 1 and suffix:
                    continue
                self._move(older, f"{self._name}.{number}{suffix}")
        if self._options.max_file == 1:
            os.unlink(self._name, dir_fd=self._folder)
        old = self._fd
        self._open()
        if self._options.compress and self._options.max_file > 1:
            self._compress(old)
        os.close(old)

    def _move(self, older: str, newer: str) -> None:
        try:
            os.rename(older, newer, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except FileNotFoundError:
            return
        # What the other suffix's file of that number held is older than what has come.
        other = newer[:-3] if newer.endswith(".gz") else f"{newer}.gz"
        try:
            os.unlink(other, dir_fd=self._folder)
        except FileNotFoundError:
            pass

    def _open(self) -> None:
        fd = os.open(self._name, _FLAGS, 0o640, dir_fd=self._folder)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(fd)
            raise OSError(errno.EINVAL, "the log is not a regular file of its own", self._name)
        self._fd, self.size = fd, found.st_size

    def _compress(self, old: int) -> None:
        """In a process of its own: the container's output waits for it only at the next rotation."""
        try:
            pid = os.fork()
        except OSError:
            return  # it stays as it is
        if pid:
            self._compressor = pid
            return
        try:
            keep_only([old, self._folder])
            compress(old, self._folder, f"{self._name}.1")
        finally:
            os._exit(0)

    def _wait_for_compressor(self) -> None:
        pid, self._compressor = self._compressor, 0
        if pid:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass

    def close(self) -> None:
        """A second call does nothing."""
        self._wait_for_compressor()
        for fd in (self._fd, self._folder):
            if fd >= 0:
                os.close(fd)
        self._fd = self._folder = -1


def compress(fd: int, folder: int, name: str) -> None:
    """Write the file behind `fd` as `name`.gz and remove `name`; on any failure `name` stays.  Raises OSError."""
    made = f"{name}.gz"
    temporary = f".{made}.new"
    out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=folder)
    try:
        _write(out, gzip_head(fd))
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        place = check = 0
        while data := os.pread(fd, _CHUNK, place):
            place += len(data)
            check = zlib.crc32(data, check)
            _write(out, packer.compress(data))
        _write(out, packer.flush() + struct.pack("<II", check, place & 0xFFFFFFFF))
        os.rename(temporary, made, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise
    finally:
        os.close(out)
    os.unlink(name, dir_fd=folder)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
