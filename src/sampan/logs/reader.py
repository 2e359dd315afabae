"""Reading logs: all, the last lines, a span of time, and on as they grow.  Rotated files are name.1 (the newest) and up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from sampan.kernel.fds import Fd
from sampan.logs import json_read, local
from sampan.logs.files import LogFile, inode_of, open_all
from sampan.logs.runs import STDERR, Run

_BLOCK = 1 << 16
_CHUNK = 1 << 18
_MAX_RECORD = 16 << 20  # a line of a megabyte, each byte escaped by six letters, with room
LOCAL = ".local"  # how the name of a file in the local driver's format ends


class Record(NamedTuple):
    """A line of output, its newline included unless it was cut."""

    stream: str
    time_ns: int
    line: bytes


class Follower:
    """Gives what a log holds and then what is added to it, through rotations.

    `poll` returns at most about a megabyte's runs; [] means: nothing new, wait for a change (kernel/inotify.py on the folder)
    and ask again.  `tail` counts before the times are looked at, as Docker does.  Without `times` a run's time and attributes
    may be missing.  Close it; a context manager.
    Raises FileNotFoundError when there is no log, OSError(ELOOP) when it is a symbolic link.
    """

    def __init__(
        self,
        folder: int | Fd | str,
        name: str,
        *,
        since_ns: int | None = None,
        tail: int | None = None,
        times: bool = True,
    ) -> None:
        path = folder if isinstance(folder, str) else f"/proc/self/fd/{int(folder)}"
        self._folder = Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        self._name, self._since = name, since_ns
        self._until: int | None = None
        self._times = times or since_ns is not None
        self._local = name.endswith(LOCAL)
        self._rest = b""
        self._skip = 0  # lines of the first run that the tail leaves out
        self._place = 0
        self._files: list[LogFile] = []
        try:
            self._files = open_all(self._folder, name)
            if tail is not None:
                self._seek_tail(max(0, tail))
            self._begin()
        except BaseException:
            self.close()
            raise

    def poll(self) -> list[Run]:
        """Return the next runs; a record that is not whole yet waits for its end."""
        while True:
            try:
                data = os.pread(self._files[0].fileno(), _CHUNK, self._place)
            except FileNotFoundError:
                data = b""
            if data:
                self._place += len(data)
                found = self._decoded(self._rest + data)
                if self._skip:
                    found = self._skipped(found)
                if self._since is not None:
                    found = [run for run in found if run.time_ns >= self._since]
                if self._until is not None:
                    found = [run for run in found if run.time_ns <= self._until]
                if found:
                    return found
            elif not self._next_file():
                return []

    def until(self, time_ns: int) -> None:
        """From here on leave out what is later."""
        self._until, self._times = time_ns, True

    def _decoded(self, block: bytes) -> list[Run]:
        if self._local:
            try:
                found, used = self._decoder.runs(block)
            except ValueError:  # nothing after the damage can be found again: on to the next file
                self._place, self._rest = self._files[0].size, b""
                return []
            self._rest = block[used:]
            return found
        end = block.rfind(b"\n") + 1
        self._rest = block[end:]
        if len(self._rest) > _MAX_RECORD:
            self._rest = b""
        return json_read.runs(block[:end], times=self._times)

    def _skipped(self, found: list[Run]) -> list[Run]:
        while found and self._skip:
            first, *found = found
            there = len(first.pieces) + bool(first.rest)
            if there > self._skip:
                kept = first._replace(pieces=first.pieces[self._skip :])
                self._skip = 0
                return [kept, *found]
            self._skip -= there
        return found

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = []
        self._folder.close()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        """A file is begun: its attributes are at its head, wherever we start."""
        self._decoder = local.Decoder()
        self._rest = b""
        if self._local and self._place:
            try:
                self._decoder.runs(os.pread(self._files[0].fileno(), min(self._place, 1 << 17), 0))
            except ValueError:
                pass

    def _next_file(self) -> bool:
        """Go on to the file after this one; False when this is the current one.  True: read again."""
        if len(self._files) == 1:
            if self._files[0].inode() == inode_of(self._folder, self._name) != 0:
                return False
            try:
                present = open_all(self._folder, self._name)
            except FileNotFoundError:
                return False  # between the rename and the new file
            known = next((at + 1 for at, file in enumerate(present) if file.same(self._files[0])), 0)
            for file in present[:known]:
                file.close()
            if known == len(present):
                return False
            self._files += present[known:]
            # What was written between our last read and the rename is still to be read from the old file.
            return True
        if self._files[0].size > self._place:
            return True
        self._files.pop(0).close()
        self._place = 0
        self._begin()
        return True

    def _seek_tail(self, wanted: int) -> None:
        """Leave the files out that end before the last `wanted` lines, and find where those begin."""
        for index in range(len(self._files) - 1, -1, -1):
            file = self._files[index]
            size = file.size
            if self._local:
                place, skip, found = local.tail_start(file.fileno(), size, wanted)
            else:
                (place, found), skip = _json_tail(file, size, wanted), 0
            wanted -= found
            if wanted <= 0 or index == 0:
                for older in self._files[:index]:
                    older.close()
                del self._files[:index]
                self._place, self._skip = place, skip
                return


def _json_tail(file: LogFile, size: int, wanted: int) -> tuple[int, int]:
    """Return (where the last `wanted` records begin, how many of them the file holds), reading backwards from the end."""
    end, found = size, 0
    if not wanted:
        return size, 0
    while end > 0:
        begin = max(0, end - _BLOCK)
        block = os.pread(file.fileno(), end - begin, begin)
        place, there = json_read.tail_start(block, at_end=end == size, wanted=wanted - found)
        found += there
        if place:
            return begin + place, found
        end = begin
    return 0, min(wanted, found + (size > 0))


def read(
    folder: int | Fd | str, name: str, *, since_ns: int | None = None, until_ns: int | None = None, tail: int | None = None
) -> Iterator[Record]:
    """Yield the records there are, line by line, oldest first."""
    with Follower(folder, name, since_ns=since_ns, tail=tail) as follower:
        while found := follower.poll():
            for run in found:
                if until_ns is not None and run.time_ns > until_ns:
                    return
                stream = "stderr" if run.stream == STDERR else "stdout"
                for line in run.lines():
                    yield Record(stream, run.time_ns, line)
