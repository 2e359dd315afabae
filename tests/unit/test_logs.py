"""Logs: Docker's letters, rotation, tails, followers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.errors import InvalidRequest
from sampan.kernel.inotify import In, Inotify
from sampan.logs import json_file, json_read, options, reader
from sampan.logs.lines import MAX_LINE

NOW = 1_700_000_000_123_456_700


def folder_fd(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., json_file.Writer]:
    def made(**given: str) -> json_file.Writer:
        return json_file.Writer(folder_fd(tmp_path), "log", {k.replace("_", "-"): v for k, v in given.items()})

    return made


def lines(tmp_path: Path, **wanted: int) -> list[bytes]:
    return [record.line for record in reader.read(str(tmp_path), "log", **wanted)]


def test_records_are_dockers_to_the_letter(tmp_path: Path, make: Callable[..., json_file.Writer]) -> None:
    writer = make()
    writer.write("stdout", b'say "<hi>" & \\ \t\x00\n', NOW)
    writer.write("stderr", "zwölf \u2028\n".encode() + b"\xff\xc3(\xe2\x82\n", NOW - 123_456_700)
    writer.close()

    assert (tmp_path / "log").read_bytes() == (
        rb'{"log":"say \"\u003chi\u003e\" \u0026 \\ \u0009\u0000\n","stream":"stdout","time":"2023-11-14T22:13:20.1234567Z"}'
        b"\n"
        + '{"log":"zwölf \\u2028\\n","stream":"stderr","time":"2023-11-14T22:13:20Z"}\n'.encode()
        + rb'{"log":"\ufffd\ufffd(\ufffd\ufffd\n","stream":"stderr","time":"2023-11-14T22:13:20Z"}'
        + b"\n"
    )


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_make_json_that_reads_back(seed: int) -> None:
    import random

    data = random.Random(seed).randbytes(2000).replace(b"\n", b"")

    assert json.loads(b'"' + json_file.escape(data) + b'"').count("\n") == 0


def test_lines_are_kept_whole_across_writes(tmp_path: Path, make: Callable[..., json_file.Writer]) -> None:
    writer = make()
    for piece in (b"one\ntw", b"o", b"\n\nthree"):
        writer.write("stdout", piece, NOW)
    writer.write("stderr", b"between\n", NOW)
    assert lines(tmp_path) == [b"one\n", b"two\n", b"\n", b"between\n"]
    writer.close()
    writer.close()

    assert lines(tmp_path)[-1] == b"three"


def test_only_a_line_over_a_megabyte_is_cut(tmp_path: Path, make: Callable[..., json_file.Writer]) -> None:
    writer = make(max_size="-1")
    for _ in range(40):
        writer.write("stdout", b"x" * 32768, NOW)
    writer.write("stdout", b"\n" + b"y" * (MAX_LINE - 1), NOW)
    writer.write("stdout", b"\n", NOW)
    writer.close()

    assert [len(line) for line in lines(tmp_path)] == [1 << 20, 8 * 32768 + 1, 1 << 20]


def test_rotation_keeps_the_newest_and_no_more(tmp_path: Path, make: Callable[..., json_file.Writer]) -> None:
    writer = make(max_size="1k", max_file="3")
    for number in range(200):
        writer.write("stdout", b"line %d\n" % number, NOW)
    writer.close()

    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(entry.stat().st_size <= 1000 for entry in tmp_path.iterdir())
    found = lines(tmp_path)
    assert found == [b"line %d\n" % number for number in range(200 - len(found), 200)]
    assert len(found) > 20


def test_one_large_write_is_rotated_too(tmp_path: Path, make: Callable[..., json_file.Writer]) -> None:
    writer = make(max_size="1k", max_file="2")
    writer.write("stdout", b"".join(b"line %d\n" % n for n in range(1000)), NOW)
    writer.close()

    assert all(entry.stat().st_size <= 1000 for entry in tmp_path.iterdir())
    assert lines(tmp_path)[-1] == b"line 999\n"


def test_a_single_file_starts_again_when_full(tmp_path: Path, make: Callable[..., json_file.Writer]) -> None:
    writer = make(max_size="300", max_file="1")
    for number in range(50):
        writer.write("stdout", b"line %d\n" % number, NOW)
    writer.close()

    assert [entry.name for entry in tmp_path.iterdir()] == ["log"]
    assert lines(tmp_path)[-1] == b"line 49\n"


def test_logs_are_capped_unless_told_otherwise() -> None:
    assert options.parse({}) == options.Options(20_000_000, 5)
    assert options.parse({"max-size": "-1"}).max_size == -1
    assert options.parse({"max-size": "10k", "max-file": "2", "labels": "a"}) == options.Options(10_000, 2)


BAD_SIZES = [{"max-size": text} for text in ("ten", "1e9", "-5", "²", "")]


@pytest.mark.parametrize("bad", [*BAD_SIZES, {"max-file": "0"}, {"max-file": "-1"}, {"nonsense": "1"}])
def test_bad_options_are_refused(bad: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        options.parse(bad)


def test_row_39_a_log_that_became_a_link_is_neither_read_nor_written(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("secret")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "log").symlink_to(canary)

    with pytest.raises(OSError, match="symbolic"):
        json_file.Writer(folder_fd(logs), "log")
    with pytest.raises(OSError, match="symbolic"):
        list(reader.read(str(logs), "log"))
    with pytest.raises(OSError, match="symbolic"):
        reader.Follower(str(logs), "log")
    (logs / "log").unlink()
    os.mkfifo(logs / "log")
    with pytest.raises(OSError, match="regular"):
        list(reader.read(str(logs), "log"))
    with pytest.raises(OSError, match="not a file name"):
        json_file.Writer(folder_fd(logs), "../canary")
    assert canary.read_text() == "secret"


def test_p10_a_writer_that_fails_keeps_no_descriptor(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(InvalidRequest):
        json_file.Writer(folder_fd(tmp_path), "log", {"max-size": "x"})

    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_record_cut_by_a_crash_costs_only_itself(tmp_path: Path, make: Callable[..., json_file.Writer]) -> None:
    writer = make()
    writer.write("stdout", b"one\n", NOW)
    writer.close()
    with open(tmp_path / "log", "ab") as file:
        file.write(b'{"log":"tw')
    writer = make()
    writer.write("stdout", b"three\n", NOW)
    writer.close()

    assert lines(tmp_path) == [b"one\n", b"three\n"]


@pytest.mark.parametrize("tail", [0, 1, 2, 17, 199, 200, 500])
def test_tail_is_the_last_lines_over_rotated_files(tmp_path: Path, make: Callable[..., json_file.Writer], tail: int) -> None:
    writer = make(max_size="4k", max_file="50")
    for number in range(200):
        writer.write("stdout", b"line %d %s\n" % (number, b"x" * (number % 70)), NOW)
    writer.close()
    whole = lines(tmp_path)

    assert len(whole) == 200
    assert lines(tmp_path, tail=tail) == (whole[-tail:] if tail else [])
    with reader.Follower(str(tmp_path), "log", tail=tail) as follower:
        assert drain(follower) == (whole[-tail:] if tail else [])


def test_tail_is_right_whatever_the_blocks_cut(tmp_path: Path, make: Callable[..., json_file.Writer]) -> None:
    writer = make()
    for number in range(3000):
        writer.write("stdout", b"%d\n" % number, NOW)
    writer.close()

    for tail in (800, 801, 1700, 2999):
        assert lines(tmp_path, tail=tail) == [b"%d\n" % n for n in range(3000 - tail, 3000)]


def test_since_and_until_bound_the_time(tmp_path: Path, make: Callable[..., json_file.Writer]) -> None:
    writer = make()
    for number in range(10):
        writer.write("stdout", b"%d\n" % number, NOW + number)
    writer.close()

    assert lines(tmp_path, since_ns=NOW + 3, until_ns=NOW + 5) == [b"3\n", b"4\n", b"5\n"]


def drain(follower: reader.Follower) -> list[bytes]:
    found: list[bytes] = []
    while records := follower.poll():
        found += [line for run in records for line in run.lines()]
    return found


@pytest.mark.parametrize("files", ["1", "2", "9"])
def test_a_follower_sees_every_line_once_through_rotations(
    tmp_path: Path, make: Callable[..., json_file.Writer], files: str
) -> None:
    writer = make(max_size="1k", max_file=files)
    with reader.Follower(str(tmp_path), "log") as follower:
        found: list[bytes] = []
        for number in range(300):
            writer.write("stdout", b"line %d\n" % number, NOW)
            if number % 4 == 0:
                found += drain(follower)
        writer.close()
        found += drain(follower)

    assert found == [b"line %d\n" % number for number in range(300)]


def test_a_follower_waits_for_the_end_of_a_record(tmp_path: Path) -> None:
    record = b'{"log":"a\\n","stream":"stdout","time":"2023-11-14T22:13:20Z"}\n'
    (tmp_path / "log").write_bytes(record + record[:20])
    with reader.Follower(str(tmp_path), "log") as follower:
        assert drain(follower) == [b"a\n"]
        with open(tmp_path / "log", "ab") as file:
            file.write(record[20:])
        assert drain(follower) == [b"a\n"]


def test_inotify_tells_of_growth_and_rotation(tmp_path: Path, make: Callable[..., json_file.Writer]) -> None:
    writer = make(max_size="300", max_file="2")
    with Inotify() as watch:
        watch.add(str(tmp_path))
        assert watch.read() == []
        for _ in range(5):
            writer.write("stdout", b"hello\n", NOW)
        seen = {(name, event) for _, event, name in watch.read()}
    writer.close()

    assert ("log", In.MODIFY) in seen and ("log.1", In.MOVED_TO) in seen and ("log", In.CREATE) in seen


def test_a_full_disk_does_not_stop_the_writer(tmp_path: Path, make: Callable[..., json_file.Writer]) -> None:
    import resource
    import signal

    writer = make(max_size="-1")
    writer.write("stdout", b"first\n", NOW)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        writer.write("stdout", b"x" * 300 + b"\n", NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert writer.lost == 1
    writer.write("stdout", b"last\n", NOW)
    writer.close()

    assert lines(tmp_path) == [b"first\n", b"last\n"]


@pytest.mark.parametrize("text", ["", "x", "2023-11-14 22:13:20Z", "2023-11-14T22:13:20", "2023-11-14T22:13:20.Ⅷ5Z"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    line = json.dumps({"log": "a", "stream": "stdout", "time": text}).encode()

    assert json_read.runs(line) == []


def _grouped(path: Path, sizes: list[int], count: int, *, other: int = 0) -> list[bytes]:
    """Write `count` lines as a container would that writes `sizes` of them at a time, every `other`th to stderr."""
    writer = json_file.Writer(folder_fd(path), "log", {"max-size": "-1"})
    written: list[bytes] = []
    batch = moment = 0
    while len(written) < count:
        lines = [b"line %d of those that come by and by\n" % (len(written) + i) for i in range(sizes[batch % len(sizes)])]
        moment += 1
        batch += 1
        writer.write("stderr" if other and batch % other == 0 else "stdout", b"".join(lines), NOW + moment)
        written += lines
    writer.close()
    return written


def _without_times(path: Path) -> list[bytes]:
    with reader.Follower(str(path), "log", times=False) as follower:
        found = []
        while runs := follower.poll():
            found += [line for run in runs for line in run.lines()]
    return found


@pytest.mark.parametrize("other", [0, 3])
@pytest.mark.parametrize("sizes", [[1], [2, 1], [20], [1, 200, 3], [5000]], ids=str)
def test_lines_are_the_same_however_many_came_at_a_time(tmp_path: Path, sizes: list[int], other: int) -> None:
    written = _grouped(tmp_path, sizes, 6000, other=other)

    assert _without_times(tmp_path) == written
    assert lines(tmp_path) == written


def test_reading_costs_about_as_much_however_few_lines_came_at_a_time(tmp_path: Path) -> None:
    """The end of a short run is looked for near by: twenty lines at a time once cost five times as much as one at a time."""
    costs = []
    for sizes in ([1], [20]):
        folder = tmp_path / str(sizes[0])
        folder.mkdir()
        _grouped(folder, sizes, 20_000)
        took = []
        for _ in range(7):
            begin = time.process_time()
            _without_times(folder)
            took.append(time.process_time() - begin)
        costs.append(min(took))

    assert costs[1] < 2.5 * costs[0]


@pytest.mark.parametrize(
    "damage",
    [b'{"log":"cut', b'{"log":"x\\n","stream":"stdout"}', b"", b'{"log":"half","stream":"stdout","time":"2026-11-24T10:00:00Z"}'],
)
def test_what_stands_among_whole_lines_costs_only_itself(tmp_path: Path, damage: bytes) -> None:
    record = b'{"log":"%d\\n","stream":"stdout","time":"2026-11-24T10:00:0%dZ"}\n'
    (tmp_path / "log").write_bytes(record % (1, 1) + damage + b"\n" + record % (2, 2))

    found = _without_times(tmp_path)
    assert next(line for line in found if line.endswith(b"\n")) == b"1\n" and b"".join(found).endswith(b"2\n")


def test_a_backslash_and_n_that_were_written_are_not_the_end_of_a_line(tmp_path: Path) -> None:
    """As JSON, a line that was cut after a backslash and n ends like one that ends in a newline."""
    record = b'{"log":"%b","stream":"stdout","time":"2026-11-24T10:00:0%dZ"}\n'
    (tmp_path / "log").write_bytes(record % (b"one\\\\n", 1) + record % (b"two\\n", 2))

    assert b"".join(_without_times(tmp_path)) == b"one\\ntwo\n"


def test_a_reader_that_comes_while_files_are_moved_finds_the_oldest_too(tmp_path: Path) -> None:
    """Rotation moves the oldest file first: for a moment one number is not there."""
    for number, name in enumerate(("log.4", "log.3", "log.1", "log")):
        (tmp_path / name).write_bytes(b'{"log":"%d\\n","stream":"stdout","time":"2026-11-24T10:00:00Z"}\n' % number)

    assert lines(tmp_path) == [b"0\n", b"1\n", b"2\n", b"3\n"]
