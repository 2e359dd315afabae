"""Reading Docker's json-file format, a block at a time.

Records that were written together differ only in their lines: their tails (stream, attributes, time) are equal to the byte.
Such a run is cut out with a few calls over bytes and unescaped at once; records that stand alone are decoded as one array.
A record that cannot be read (cut short by a crash, or edited) is skipped.
"""

from __future__ import annotations

import calendar
import re
from itertools import groupby
from operator import attrgetter
from typing import Literal

import msgspec

from sampan.logs.runs import STDERR, STDOUT, Run, run

_HEAD = b'{"log":"'
_TAIL = b'","stream":"'
_MEET = b"}\n{"
_INNER = len(_HEAD) - 1  # what is left of a head after that
_WINDOW = 1 << 12  # bytes looked at for the end of a run, at first; a run that fills half of it is worth a cut of its own
_PIECE = 1 << 15  # bytes of records that stand alone, decoded at once


class _Short(msgspec.Struct, gc=False):
    log: str
    stream: Literal["stdout", "stderr"]


class _Json(_Short):
    time: str
    attrs: dict[str, str] = {}


# What lies between two whole lines of one stream; an escaped quote is none of these, so no line can hold it.
_BETWEEN = {
    name: re.compile(rb'\\n","stream":"%b","[^\n]*"}\n(?:{"log":")?' % name) for name in (b"stdout", b"stderr")
}  # fmt: skip
_decode = msgspec.json.Decoder(_Json).decode
_decode_all = msgspec.json.Decoder(list[_Json]).decode
_decode_short = msgspec.json.Decoder(list[_Short]).decode
_decode_text = msgspec.json.Decoder(str).decode
_seconds: dict[str, int] = {}


def parse_time(text: str) -> int:
    """Return nanoseconds since the epoch of RFC 3339 in UTC ("...Z").  Raises ValueError."""
    head = text[:19]
    seconds = _seconds.get(head)
    if seconds is None:
        if len(head) != 19 or not head.isascii() or head[4] + head[7] + head[10] + head[13] + head[16] != "--T::":
            raise ValueError(f"bad time {text[:40]!r}")
        seconds = calendar.timegm(
            (int(head[:4]), int(head[5:7]), int(head[8:10]), int(head[11:13]), int(head[14:16]), int(head[17:]))
        )
        if len(_seconds) > 1000:
            _seconds.clear()
        _seconds[head] = seconds
    fraction = text[20:-1]
    if text[-1:] != "Z" or (fraction and not (fraction.isascii() and fraction.isdigit() and len(fraction) <= 9)):
        raise ValueError(f"bad time {text[:40]!r}")
    return seconds * 10**9 + (int(fraction.ljust(9, "0")) if fraction else 0)


def runs(block: bytes, *, times: bool = True) -> list[Run]:
    """Return the runs of a block of whole records; its last newline may be missing.

    Without `times` neither times nor attributes are looked at, and lines that came one by one are put together.
    """
    found: list[Run] = []
    place, size = 0, len(block)
    while place < size:
        end = block.find(b"\n", place) + 1 or size
        cut = block.rfind(_TAIL, place, end)
        tail = block[cut:end]
        following = block.find(b"\n", end) + 1
        same = _run_end(block, following, tail) if cut >= 0 and following and block.endswith(tail, end, following) else 0
        if same - place > _WINDOW // 2:
            end = same
            found += _run(block[place:end], tail)
        else:
            if end < size and end - place < _PIECE:
                end = block.rfind(b"\n", place, min(size, place + _PIECE)) + 1
            found += _alone(block[place:end]) if times else _together(block[place:end])
        place = end
    return found


def _run_end(block: bytes, end: int, tail: bytes) -> int:
    """Return where the last record with this tail ends, of those that follow each other; one ends at `end`."""
    window = _WINDOW
    while end < len(block):
        last = block.rfind(tail, end, min(len(block), end + window))
        if last < 0:
            break
        grown, end = last + len(tail) - end, last + len(tail)
        if grown < window // 2:  # it has ended here, or goes on in lines longer than this: then they are a run of their own
            break
        window *= 2
    return end


def _run(region: bytes, tail: bytes) -> list[Run]:
    newline = b"\\n" + tail
    if not region.startswith(_HEAD) or not region.endswith(newline):
        return _alone(region)
    text = region[len(_HEAD) : -len(newline)]
    # Cut where records meet, which is found at a third of what finding whole tails costs, then see that each had the tail.
    pieces = text.split(_MEET)
    last = pieces.pop()
    if pieces:
        cut, first = 2 - len(newline), pieces[0]
        pieces = [piece[_INNER:cut] for piece in pieces]
        pieces[0] = first[:cut]
        last = last[_INNER:]
    pieces.append(last)
    escapes = text.count(b"\\") - len(pieces) + 1  # more than those of the newlines
    # A line that ends in a backslash and "n" looks like one that ends in a newline when it was cut there.
    if (newline + _HEAD).join(pieces) != text or (escapes and b"\\\\n" + tail in region):
        return _alone(region)
    try:
        whole = _decode(_HEAD + tail)
        if escapes:
            pieces = _decode_text(b'"' + b"\\n".join(pieces) + b'"').encode().split(b"\n")
        return [Run(_stream(whole), parse_time(whole.time), pieces, b"", tuple(whole.attrs.items()))]
    except (msgspec.DecodeError, ValueError):
        return _alone(region)


def _alone(region: bytes) -> list[Run]:
    try:
        decoded = _decode_all(b"[" + region.rstrip(b"\n").replace(b"\n", b",") + b"]")
        return [_made(one, one.log.encode()) for one in decoded]
    except (msgspec.DecodeError, ValueError):
        pass
    found = []
    for line in region.split(b"\n"):
        try:
            one = _decode(line)
            found.append(_made(one, one.log.encode()))
        except (msgspec.DecodeError, ValueError):
            continue
    return found


def _made(one: _Json, data: bytes) -> Run:
    return run(_stream(one), parse_time(one.time), data, tuple(one.attrs.items()))


def _stream(one: _Short) -> int:
    return STDERR if one.stream == "stderr" else STDOUT


def _together(region: bytes) -> list[Run]:
    """As _alone, without times: the lines of a stream that follow each other are one run."""
    stream = STDERR if b'","stream":"stderr","' in region else STDOUT
    pieces = _BETWEEN[b"stderr" if stream == STDERR else b"stdout"].split(region[len(_HEAD) :])
    if _plain(region, pieces):
        return [Run(stream, 0, pieces[:-1])]
    try:
        decoded = _decode_short(b"[" + region.rstrip(b"\n").replace(b"\n", b",") + b"]")
        return [
            run(STDERR if stream == "stderr" else STDOUT, 0, "".join([one.log for one in same]).encode())
            for stream, same in groupby(decoded, attrgetter("stream"))
        ]
    except (msgspec.DecodeError, ValueError):
        return _alone(region)


def _plain(region: bytes, pieces: list[bytes]) -> bool:
    """Return whether the pieces are the region's lines: each whole, of one stream, with nothing escaped in it."""
    records = len(pieces) - 1
    return (
        not pieces[-1]
        and region.startswith(_HEAD)
        and region.count(b"\n") == records
        and region.count(b"\\") == records  # those of the newlines
    )


def tail_start(block: bytes, *, at_end: bool, wanted: int) -> tuple[int, int]:
    """Return (where the last `wanted` records of the block begin, how many of them it holds).

    at_end: the block is the file's last, where an end of a line is the last record's own.  0 when the block is all wanted.
    """
    cut = len(block) - (at_end and block.endswith(b"\n"))
    there = block.count(b"\n", 0, cut)
    if there < wanted:
        return 0, there
    for _ in range(wanted):
        cut = block.rfind(b"\n", 0, cut)
    return cut + 1, wanted
