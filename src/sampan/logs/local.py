"""The `local` driver: a compact format of our own, written in batches as the output came.

A record is a batch of whole lines of one stream that came at one time:

    size of the body (4 bytes)   kind (1)   time in ns (8)   body   size of the body again (4)         all big-endian

kind 1 stdout, 2 stderr; 3: the body is a JSON object of attributes that hold for the records after it (time 0).  The size at
the end lets a reader walk backwards.  A million lines of two bytes are 2 MB (75 MB in the json-file format).
"""

from __future__ import annotations

import os
import struct
import time

import msgspec

from sampan.errors import InvalidRequest
from sampan.logs.lines import Lines
from sampan.logs.options import Options, parse
from sampan.logs.rotate import RotatingFile
from sampan.logs.runs import STDERR, STDOUT, Run, run

HEAD = struct.Struct(">IBQ")
TAIL = struct.Struct(">I")
EXTRA = HEAD.size + TAIL.size
MAX_BODY = 4 << 20
_ATTRIBUTES = 3
_KINDS = {"stdout": STDOUT, "stderr": STDERR}


def record(kind: int, time_ns: int, body: bytes) -> bytes:
    return b"".join((HEAD.pack(len(body), kind, time_ns), body, TAIL.pack(len(body))))


class Writer:
    """As json_file.Writer, in this format."""

    def __init__(
        self, dir_fd: int, name: str, options: dict[str, str] | Options | None = None, attributes: dict[str, str] | None = None
    ) -> None:
        """Raises InvalidRequest on a bad option, OSError when the file cannot be opened or is not a regular one."""
        try:
            parsed = options if isinstance(options, Options) else parse(options or {}, "local")
            self._file = RotatingFile(dir_fd, name, parsed)
        except InvalidRequest:
            os.close(dir_fd)
            raise
        self.lines = Lines()
        self._begin = record(_ATTRIBUTES, 0, msgspec.json.encode(attributes)) if attributes else b""
        self.lost = 0
        try:
            _mend(self._file)
            if self._begin:
                self._file.put(self._begin)
        except BaseException:
            self._file.close()
            raise

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """Take output as it came; whole lines go to the file at once, the rest waits for its end."""
        lines, pieces = self.lines.take(stream, data)
        for body in (lines, *pieces):
            if body:
                self._append(_KINDS[stream], now_ns, body)

    def close(self) -> None:
        """Write what waits and close; a second call does nothing."""
        for stream, line in self.lines.rest():
            self._append(_KINDS[stream], time.time_ns(), line)
        self._file.close()

    def _append(self, kind: int, now_ns: int, body: bytes) -> None:
        file = self._file
        if file.size > len(self._begin) and file.full(len(body) + EXTRA):
            if not file.rotate():
                self.lost += body.count(b"\n")
                return
            if self._begin:
                file.put(self._begin)
        if not file.put(record(kind, now_ns, body)):  # all or nothing
            self.lost += body.count(b"\n")


def _mend(file: RotatingFile) -> None:
    """Cut off a record that a crash left half written."""
    if file.size < EXTRA:
        file.cut(0)
        return
    (size,) = TAIL.unpack(file.last(TAIL.size))
    if size <= file.size - EXTRA:
        begin = file.size - EXTRA - size
        if HEAD.unpack(file.read(HEAD.size, begin))[0] == size:
            return
    place = 0
    while place + EXTRA <= file.size:
        size, kind, _ = HEAD.unpack(file.read(HEAD.size, place))
        if kind not in (STDOUT, STDERR, _ATTRIBUTES) or place + EXTRA + size > file.size:
            break
        place += EXTRA + size
    file.cut(place)


class Decoder:
    """Turns blocks of a file into runs; knows the attributes that hold."""

    def __init__(self) -> None:
        self._attributes: tuple[tuple[str, str], ...] = ()

    def runs(self, block: bytes) -> tuple[list[Run], int]:
        """Return the runs of the block's whole records and how many bytes those were.  Raises ValueError when it is no log."""
        found, place = [], 0
        while place + EXTRA <= len(block):
            size, kind, moment = HEAD.unpack_from(block, place)
            if size > MAX_BODY or kind not in (STDOUT, STDERR, _ATTRIBUTES):
                raise ValueError("damaged")
            if place + EXTRA + size > len(block):
                break
            body = block[place + HEAD.size : place + HEAD.size + size]
            place += EXTRA + size
            if kind == _ATTRIBUTES:
                try:
                    self._attributes = tuple(msgspec.json.decode(body, type=dict[str, str]).items())
                except msgspec.DecodeError as error:
                    raise ValueError("damaged") from error
            else:
                found.append(run(kind, moment, body, self._attributes))
        return found, place


def tail_start(fd: int, size: int, wanted: int) -> tuple[int, int, int]:
    """Walk back from the end.  Return (where to begin, lines to leave out there, how many lines are found)."""
    place, found = size, 0
    while place >= EXTRA and found < wanted:
        (body,) = TAIL.unpack(os.pread(fd, TAIL.size, place - TAIL.size))
        if body + EXTRA > place:
            break
        begin = place - EXTRA - body
        block = os.pread(fd, HEAD.size + body, begin)
        if len(block) < HEAD.size or HEAD.unpack_from(block)[0] != body:
            break
        place = begin
        if block[4] != _ATTRIBUTES:
            found += block.count(b"\n", HEAD.size) + (not block.endswith(b"\n"))
    return place, max(0, found - wanted), min(found, wanted)
