"""Writing a log in Docker's json-file format: {"log":"a line\\n","stream":"stdout","time":"2026-11-24T05:16:07.5Z"}.

The letters are those of moby's encoder: `<`, `>`, `&` and control characters as \\u00xx, a byte that is not UTF-8 as \\ufffd.
A whole buffer is escaped and cut into lines by a few calls over bytes, never by a loop over lines: one write(2) a buffer.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
import time

from sampan.logs.options import Options, parse

MAX_LINE = 1 << 20  # bytes; a longer line becomes several records, all but the last without a newline
_HEAD = b'{"log":"'
_PLAIN = bytes(b for b in range(0x20, 0x80) if b not in b'"\\<>&') + b"\n"
_ESCAPES = {
    **{bytes([b]): b"\\u%04x" % b for b in (*range(0x20), *b"<>&")},
    b'"': b'\\"', b"\r": b"\\r",
}  # fmt: skip
del _ESCAPES[b"\n"]


def _one_byte(error: UnicodeError) -> tuple[str, int]:
    """A codec error handler that gives up one byte at a time, as Go's decoder does."""
    assert isinstance(error, UnicodeDecodeError)
    return "\\ufffd", error.start + 1


codecs.register_error("sampan-one-byte", _one_byte)


def escape(data: bytes) -> bytes:
    """Return `data` as the inside of a JSON string; newlines are left as they are."""
    rest = data.translate(None, _PLAIN)
    if not rest:
        return data
    present = set(rest)
    if 0x5C in present:
        data = data.replace(b"\\", b"\\\\")
    for byte, escaped in _ESCAPES.items():
        if byte[0] in present:
            data = data.replace(byte, escaped)
    if not rest.isascii():
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
        try:
            data.decode()
        except UnicodeDecodeError:
            data = data.decode("utf-8", "sampan-one-byte").encode()
    return data


def timestamp(now_ns: int) -> bytes:
    """Return RFC 3339 in UTC with as many decimals as are needed (Go's RFC3339Nano)."""
    seconds, rest = divmod(now_ns, 10**9)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f"{rest:09d}".rstrip("0")
    return f"{whole}.{fraction}Z".encode() if fraction else f"{whole}Z".encode()


class Writer:
    """Appends a container's output to `name` in the folder `dir_fd`, which it owns from here on; `close` ends it.

    A disk that is full does not stop the container: what cannot be written is counted in `lost` (bytes of the log).
    """

    def __init__(self, dir_fd: int, name: str, options: dict[str, str] | Options | None = None) -> None:
        """Raises InvalidRequest on a bad option, OSError when the file cannot be opened or is not a regular one."""
        self._folder, self._name, self._fd = dir_fd, name, -1
        self._pending: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self.lost = 0
        try:
            self._options = options if isinstance(options, Options) else parse(options or {})
            if not name or "/" in name or name in (".", ".."):
                raise OSError(errno.EINVAL, "not a file name", name)
            self._open()
        except BaseException:
            self.close()
            raise

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """Take output as it came; whole lines go to the file at once, the rest waits for its end."""
        pending = self._pending[stream]
        end = data.rfind(b"\n")
        if end < 0:
            pending += data
            if len(pending) >= MAX_LINE:
                self._spill(stream, now_ns)
            return
        if pending:
            pending += data[: end + 1]
            lines = bytes(pending)
            pending.clear()
        else:
            lines = data[: end + 1]
        pending += data[end + 1 :]
        tail = b'","stream":"%s","time":"%s"}\n' % (stream.encode(), timestamp(now_ns))
        body = escape(lines[:-1]).replace(b"\n", b"\\n" + tail + _HEAD)
        self._append(_HEAD + body + b"\\n" + tail)
        if len(pending) >= MAX_LINE:
            self._spill(stream, now_ns)

    def flush(self) -> None:
        """Write lines that have not ended, as they are."""
        for stream, pending in self._pending.items():
            if pending:
                self._spill(stream, time.time_ns(), everything=True)

    def close(self) -> None:
        """Write what waits and close; a second call does nothing."""
        if self._fd >= 0:
            self.flush()
            os.close(self._fd)
        if self._folder >= 0:
            os.close(self._folder)
        self._fd = self._folder = -1

    def _spill(self, stream: str, now_ns: int, *, everything: bool = False) -> None:
        pending = self._pending[stream]
        tail = b'","stream":"%s","time":"%s"}\n' % (stream.encode(), timestamp(now_ns))
        while len(pending) >= MAX_LINE or (everything and pending):
            self._append(_HEAD + escape(bytes(pending[:MAX_LINE])) + tail)
            del pending[:MAX_LINE]

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        fd = os.open(self._name, flags, 0o640, dir_fd=self._folder)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(fd)
            raise OSError(errno.EINVAL, "the log is not a regular file of its own", self._name)
        self._fd, self._size = fd, found.st_size
        if self._size and os.pread(fd, 1, self._size - 1) != b"\n":
            self._put(b"\n")  # a record cut short by a crash must not swallow the next one

    def _append(self, records: bytes) -> None:
        """Write whole records, going to a new file where the current one is full."""
        limit = self._options.max_size
        while limit > 0 and self._size + len(records) > limit:
            room = records.rfind(b"\n", 0, max(0, limit - self._size)) + 1
            if not room and not self._size:
                room = records.index(b"\n") + 1  # larger than a whole file: it gets one to itself
            if room:
                self._put(records[:room])
                records = records[room:]
            if not records:
                return
            try:
                self._rotate()
            except OSError:
                self.lost += len(records)
                return
        self._put(records)

    def _put(self, records: bytes) -> None:
        view, written = memoryview(records), 0
        try:
            while written < len(records):
                written += os.write(self._fd, view[written:])
        except OSError:
            self.lost += len(records)
            try:
                os.ftruncate(self._fd, self._size)  # no half record
            except OSError:
                self._size += written
            return
        self._size += written

    def _rotate(self) -> None:
        """name -> name.1 -> name.2 ...; the last one goes.  A reader that has a file open keeps its inode."""
        for number in range(self._options.max_file - 1, 0, -1):
            older = f"{self._name}.{number - 1}" if number > 1 else self._name
            try:
                os.rename(older, f"{self._name}.{number}", src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except FileNotFoundError:
                continue
        if self._options.max_file == 1:
            os.unlink(self._name, dir_fd=self._folder)
        old = self._fd
        self._open()
        os.close(old)
