"""The json-file driver: what is written is read back, whole lines, through rotation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sampan.errors import InvalidRequest
from sampan.logs.json_file import Writer, size_of, stamp
from sampan.logs.reader import Follower, nanoseconds, read

NOW = 1_795_500_000_123_456_789


def folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def text(path: Path, **options: int) -> bytes:
    at = folder(path)
    try:
        return b"".join(record.line for record in read(at, "log", **options))
    finally:
        os.close(at)


def test_a_record_is_dockers_json(tmp_path: Path) -> None:
    writer = Writer(folder(tmp_path), "log", {})
    writer.write("stdout", b'say "hi"\t\xff\n', NOW)
    writer.write("stderr", b"no newline", NOW)
    writer.close()

    lines = (tmp_path / "log").read_text().splitlines()
    assert json.loads(lines[0]) == {"log": 'say "hi"\t\ufffd\n', "stream": "stdout", "time": stamp(NOW).decode()}
    assert json.loads(lines[1])["log"] == "no newline"
    assert nanoseconds(stamp(NOW).decode()) == NOW


def test_a_line_in_pieces_is_one_record_and_streams_do_not_mix(tmp_path: Path) -> None:
    writer = Writer(folder(tmp_path), "log", {})
    for stream, piece in (("stdout", b"on"), ("stderr", b"two\n"), ("stdout", b"e\n")):
        writer.write(stream, piece, NOW)
    writer.close()

    assert text(tmp_path) == b"two\none\n"


def test_no_line_below_a_mebibyte_is_split(tmp_path: Path) -> None:
    line = b"x" * ((1 << 20) - 1) + b"\n"
    writer = Writer(folder(tmp_path), "log", {})
    for start in range(0, len(line), 65536):
        writer.write("stdout", line[start : start + 65536], NOW)
    writer.close()

    assert len((tmp_path / "log").read_bytes().splitlines()) == 1
    assert text(tmp_path) == line


def test_rotation_keeps_the_newest_files_and_readers_follow(tmp_path: Path) -> None:
    writer = Writer(folder(tmp_path), "log", {"max-size": "1k", "max-file": "3"})
    at = folder(tmp_path)
    follower = Follower(at, "log")
    seen = []
    for number in range(100):
        writer.write("stdout", b"%d\n" % number, NOW)
        seen += [record.line for record in follower.poll()]
    writer.close()
    follower.close()
    os.close(at)

    assert seen == [b"%d\n" % number for number in range(100)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert text(tmp_path).endswith(b"99\n")


def test_tail_since_and_until(tmp_path: Path) -> None:
    writer = Writer(folder(tmp_path), "log", {})
    for number in range(5):
        writer.write("stdout", b"%d\n" % number, NOW + number)
    writer.close()

    assert text(tmp_path, tail=2) == b"3\n4\n"
    assert text(tmp_path, tail=0) == b""
    assert text(tmp_path, since_ns=NOW + 3) == b"3\n4\n"
    assert text(tmp_path, until_ns=NOW + 1) == b"0\n1\n"


def test_a_cut_last_record_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"log":"a\\n","stream":"stdout","time":"2026-11-24T00:00:00.000000000Z"}\n{"log":"b')

    assert text(tmp_path) == b"a\n"


def test_row_39_a_log_that_is_a_link_is_neither_read_nor_written(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    (tmp_path / "log").symlink_to(tmp_path / "secret")
    at = folder(tmp_path)
    with pytest.raises(OSError):
        Follower(at, "log")
    with pytest.raises(OSError):
        Writer(at, "log", {})
    os.close(at)

    assert (tmp_path / "secret").read_text() == "canary"


@pytest.mark.parametrize("bad", ["", "x", "-2", "10q", "1.5m", "\u0661m"])
def test_a_bad_size_is_refused(bad: str) -> None:
    with pytest.raises(InvalidRequest):
        size_of(bad)
