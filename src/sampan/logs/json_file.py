"""Writing a log in Docker's json-file format: {"log":"a line\\n","stream":"stdout","time":"2026-11-24T05:16:07.5Z"}.

The letters are those of moby's encoder: `<`, `>`, `&` and control characters as \\u00xx, a byte that is not UTF-8 as \\ufffd.
A whole buffer is escaped and cut into lines by a few calls over bytes, never by a loop over lines: one write(2) a buffer.
"""

from __future__ import annotations

import codecs
import os
import time

from sampan.errors import InvalidRequest
from sampan.logs.lines import Lines
from sampan.logs.options import Options, parse
from sampan.logs.rotate import RotatingFile

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

    A disk that is full does not stop the container: the lines that cannot be written are counted in `lost`.
    attributes: what every record bears beside its line (labels, env and tag of the log options).
    """

    def __init__(
        self, dir_fd: int, name: str, options: dict[str, str] | Options | None = None, attributes: dict[str, str] | None = None
    ) -> None:
        """Raises InvalidRequest on a bad option, OSError when the file cannot be opened or is not a regular one."""
        try:
            parsed = options if isinstance(options, Options) else parse(options or {})
            self._file = RotatingFile(dir_fd, name, parsed)
        except InvalidRequest:
            os.close(dir_fd)
            raise
        self.lines = Lines()
        self._attributes = b""
        if attributes:
            pairs = b",".join(b'"%b":"%b"' % (_string(key), _string(attributes[key])) for key in sorted(attributes))
            self._attributes = b'"attrs":{%b},' % pairs
        self.lost = 0
        if self._file.size and self._file.last(1) != b"\n":
            self._file.put(b"\n")  # a record cut short by a crash must not swallow the next one

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """Take output as it came; whole lines go to the file at once, the rest waits for its end."""
        lines, pieces = self.lines.take(stream, data)
        if not lines and not pieces:
            return
        tail = b'","stream":"%b",%b"time":"%b"}\n' % (stream.encode(), self._attributes, timestamp(now_ns))
        if lines:
            body = escape(lines[:-1]).replace(b"\n", b"\\n" + tail + _HEAD)
            self._append(_HEAD + body + b"\\n" + tail)
        for piece in pieces:
            self._append(_HEAD + escape(piece) + tail)

    def flush(self) -> None:
        """Write lines that have not ended, as they are."""
        for stream, line in self.lines.rest():
            self._append(
                b'%b%b","stream":"%b",%b"time":"%b"}\n'
                % (_HEAD, escape(line), stream.encode(), self._attributes, timestamp(time.time_ns()))
            )

    def close(self) -> None:
        """Write what waits and close; a second call does nothing."""
        self.flush()
        self._file.close()

    def _append(self, records: bytes) -> None:
        """Write whole records, going to a new file where the current one is full."""
        file = self._file
        while file.full(len(records)):
            room = records.rfind(b"\n", 0, file.room) + 1
            if not room and not file.size:
                room = records.index(b"\n") + 1  # larger than a whole file: it gets one to itself
            if room:
                self._put(records[:room])
                records = records[room:]
            if not records:
                return
            if not file.rotate():
                self.lost += records.count(b"\n")
                return
        self._put(records)

    def _put(self, records: bytes) -> None:
        kept = self._file.put(records, end=b"\n")
        if kept < len(records):
            self.lost += records.count(b"\n", kept)


def _string(text: str) -> bytes:
    return escape(text.encode()).replace(b"\n", b"\\n")
