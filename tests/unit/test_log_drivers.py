"""Log drivers: local, compression, syslog, and the process that a slow log has to itself."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import InvalidRequest
from sampan.launch.logger import Link
from sampan.launch.loop import Loop
from sampan.logs import json_file, json_read, local, options, reader, syslog
from sampan.logs.runs import Framer, run

NOW = 1_700_000_000_123_456_700
WRITERS: dict[str, Any] = {"log": json_file.Writer, "log.local": local.Writer}


def folder_fd(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


@pytest.fixture(params=sorted(WRITERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(tmp_path: Path, name: str, attributes: dict[str, str] | None = None, **given: str) -> Any:
    return WRITERS[name](folder_fd(tmp_path), name, {k.replace("_", "-"): v for k, v in given.items()}, attributes)


def lines(tmp_path: Path, name: str, **wanted: int) -> list[bytes]:
    return [record.line for record in reader.read(str(tmp_path), name, **wanted)]


def number(n: int) -> bytes:
    return b"line %d %s\n" % (n, b"x" * (n % 70))


def test_lines_streams_and_times_come_back(tmp_path: Path, name: str) -> None:
    writer = make(tmp_path, name)
    writer.write("stdout", b"one\ntw", NOW)
    writer.write("stderr", b'err \xff\\n"\n', NOW + 1)
    writer.write("stdout", b"o\nthree", NOW + 2)
    writer.close()
    writer.close()

    found = list(reader.read(str(tmp_path), name))
    assert [one.stream for one in found] == ["stdout", "stderr", "stdout", "stdout"]
    assert [one.time_ns - NOW for one in found[:3]] == [0, 1, 2]
    assert b"".join(one.line for one in found if one.stream == "stdout") == b"one\ntwo\nthree"
    assert found[1].line in (b'err \xff\\n"\n', 'err \ufffd\\n"\n'.encode())  # json has no bytes that are no UTF-8


def test_a_line_of_a_megabyte_is_whole(tmp_path: Path, name: str) -> None:
    writer = make(tmp_path, name, max_size="-1")
    writer.write("stdout", b"x" * ((1 << 20) - 1), NOW)
    writer.write("stdout", b"\n", NOW)
    writer.close()

    assert [len(line) for line in lines(tmp_path, name)] == [1 << 20]


@pytest.mark.parametrize("tail", [0, 1, 2, 17, 199, 200, 500])
@pytest.mark.parametrize("batch", [1, 7, 200])
def test_tail_over_compressed_files_whatever_the_batches(tmp_path: Path, name: str, tail: int, batch: int) -> None:
    writer = make(tmp_path, name, max_size="3k", max_file="90", compress="true")
    for first in range(0, 200, batch):
        writer.write("stdout", b"".join(number(n) for n in range(first, min(200, first + batch))), NOW)
    writer.close()

    assert lines(tmp_path, name) == [number(n) for n in range(200)]
    assert lines(tmp_path, name, tail=tail) == [number(n) for n in range(max(0, 200 - tail), 200)]


def test_rotated_files_are_plain_gzip_and_their_number_is_kept(tmp_path: Path, name: str) -> None:
    writer = make(tmp_path, name, max_size="2k", max_file="3", compress="true")
    for n in range(300):
        writer.write("stdout", number(n), NOW)
    writer.close()

    assert sorted(os.listdir(tmp_path)) == [name, f"{name}.1.gz", f"{name}.2.gz"]
    assert b"line " in gzip.decompress((tmp_path / f"{name}.1.gz").read_bytes())
    found = lines(tmp_path, name)
    assert found == [number(n) for n in range(300 - len(found), 300)] and len(found) > 30


@pytest.mark.parametrize("files", ["2", "9"])
def test_a_follower_sees_every_line_once_though_files_are_compressed_under_it(tmp_path: Path, name: str, files: str) -> None:
    writer = make(tmp_path, name, max_size="2k", max_file=files, compress="true")
    found: list[bytes] = []
    with reader.Follower(str(tmp_path), name) as follower:
        for n in range(400):
            writer.write("stdout", number(n), NOW)
            if n % 5 == 0:
                while runs := follower.poll():
                    found += [line for one in runs for line in one.lines()]
        writer.close()
        while runs := follower.poll():
            found += [line for one in runs for line in one.lines()]

    assert found == [number(n) for n in range(400)]


def test_a_damaged_archive_costs_what_is_damaged(tmp_path: Path, name: str) -> None:
    writer = make(tmp_path, name, max_size="2k", max_file="3", compress="true")
    for n in range(100):
        writer.write("stdout", number(n), NOW)
    writer.close()
    (tmp_path / f"{name}.1.gz").write_bytes(b"\x1f\x8bnonsense")

    assert lines(tmp_path, name)[-1] == number(99)


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_local_a_record_that_a_crash_cut_costs_only_itself(tmp_path: Path, cut: int) -> None:
    writer = make(tmp_path, "log.local")
    writer.write("stdout", b"one\n", NOW)
    writer.close()
    half = local.record(1, NOW, b"a line that was never written\n")[:cut]
    with open(tmp_path / "log.local", "ab") as file:
        file.write(half)
    writer = make(tmp_path, "log.local")
    writer.write("stdout", b"three\n", NOW)
    writer.close()

    assert lines(tmp_path, "log.local") == [b"one\n", b"three\n"]


@pytest.mark.parametrize("seed", range(20))
def test_local_garbage_is_no_log_and_ends_quickly(tmp_path: Path, seed: int) -> None:
    (tmp_path / "log.local").write_bytes(random.Random(seed).randbytes(5000))

    lines(tmp_path, "log.local")
    lines(tmp_path, "log.local", tail=3)


def test_attributes_are_details_of_every_line(tmp_path: Path, name: str) -> None:
    writer = make(tmp_path, name, {"b": 'say "x"&', "a": "1 2"})
    for n in range(3):
        writer.write("stdout", b"%d\n" % n, NOW + n)
    writer.close()
    with reader.Follower(str(tmp_path), name, tail=2) as follower:
        shown = Framer(details=True, tty=True).frames(follower.poll())

    assert shown == b"a=1+2,b=say+%22x%22%26 1\na=1+2,b=say+%22x%22%26 2\n"


def test_json_attributes_stand_where_docker_puts_them(tmp_path: Path) -> None:
    writer = make(tmp_path, "log", {"k": "v"})
    writer.write("stdout", b"x\n", NOW)
    writer.close()

    text = (tmp_path / "log").read_bytes()
    assert text == b'{"log":"x\\n","stream":"stdout","attrs":{"k":"v"},"time":"2023-11-14T22:13:20.1234567Z"}\n'


@pytest.mark.parametrize("seed", range(40))
def test_json_however_lines_are_batched_they_read_back(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    writer = make(tmp_path, "log", max_size="-1")
    told: list[tuple[str, bytes]] = []
    now = NOW
    for _ in range(60):
        stream = chance.choice(["stdout", "stderr"])
        batch = [_word(chance) for _ in range(chance.choice([1, 1, 2, 3, 30]))]
        now += chance.choice([0, 1, 10**9])
        writer.write(stream, b"".join(batch), now)
        told += [(stream, line) for line in batch]
    writer.close()

    block = (tmp_path / "log").read_bytes()
    for times in (True, False):
        found = [(("stdout", "stderr")[one.stream - 1], line) for one in json_read.runs(block, times=times) for line in one.lines()]
        assert found == told


def _word(chance: random.Random) -> bytes:
    signs = ["a", "\\", "\\n", '"', '","stream":"', "ü", "\t", "{", '{"log":"', "\u2028", "<", "x" * 40]
    return "".join(chance.choice(signs) for _ in range(chance.randrange(6))).encode() + b"\n"


def test_frames_are_one_a_line() -> None:
    frames = Framer(timestamps=True).frames([run(1, NOW, b"a\nbb\n"), run(2, NOW, b"c")])
    stamp = b"2023-11-14T22:13:20.123456700Z "

    assert frames == b"".join(
        bytes((kind, 0, 0, 0)) + (len(stamp) + len(line)).to_bytes(4, "big") + stamp + line
        for kind, line in ((1, b"a\n"), (1, b"bb\n"), (2, b"c"))
    )


BAD = [
    ("json-file", {"syslog-address": "udp://x"}), ("json-file", {"compress": "true", "max-file": "1"}),
    ("local", {"compress": "x"}),
    ("local", {"mode": "fast"}), ("local", {"max-buffer-size": "1m"}), ("none", {"max-size": "1m"}), ("gelf", {}),
    ("local", {"mode": "non-blocking", "max-buffer-size": "0"}), ("local", {"mode": "non-blocking", "max-buffer-size": "9t"}),
    ("syslog", {"cache-max-size": "x"}), ("syslog", {"max-size": "1m"}),
]  # fmt: skip


@pytest.mark.parametrize(("driver", "given"), BAD)
def test_options_that_a_driver_has_not_are_refused(driver: str, given: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        options.parse(given, driver)


def test_every_driver_that_keeps_a_log_is_capped() -> None:
    assert options.parse({}, "local") == options.Options(20_000_000, 5, compress=True)
    assert options.parse({}, "syslog").max_size == 20_000_000
    assert options.parse({"mode": "non-blocking"}, "local").buffer == 1 << 20
    assert options.parse({"mode": "non-blocking", "max-buffer-size": "4k"}, "local").buffer == 4096


@pytest.mark.parametrize(
    "text", ["x", "udp://", "udp://h:0", "udp://h:99999", "tcp://a b:1", "unix://rel", "http://h:1", "udp://h:²"]
)
def test_a_syslog_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        syslog.address(text)


def test_syslog_formats() -> None:
    host, pid = os.uname().nodename, os.getpid()
    moment = time.mktime((2026, 11, 4, 5, 6, 7, 0, 0, -1))
    now = int(moment) * 10**9 + 123_456_789

    def shown(kind: str, **more: bool) -> str:
        return syslog.Formatter(kind, syslog.facility("local3"), "tag one", **more).message("stderr", b"hello\n", now).decode()

    assert shown("") == f"<155>Nov  4 05:06:07 tag_one[{pid}]: hello\n"
    assert shown("rfc3164") == f"<155>Nov  4 05:06:07 {host} tag_one[{pid}]: hello\n"
    assert shown("rfc5424").startswith("<155>1 2026-11-04T05:06:07") and shown("rfc5424").endswith(
        f" {host} tag_one {pid} tag_one - hello\n"
    )
    assert "05:06:07.123456" in shown("rfc5424micro")
    counted = shown("rfc5424", counted=True)
    assert counted.partition(" ")[0] == str(len(counted.partition(" ")[2]))


@pytest.mark.parametrize("network", ["unixgram", "unix", "udp", "tcp"])
def test_syslog_lines_reach_the_server(tmp_path: Path, network: str) -> None:
    kind = socket.SOCK_DGRAM if network in ("unixgram", "udp") else socket.SOCK_STREAM
    with socket.socket(socket.AF_UNIX if network.startswith("unix") else socket.AF_INET, kind) as server:
        server.bind(str(tmp_path / "s") if network.startswith("unix") else ("127.0.0.1", 0))
        text = f"{network}://{tmp_path}/s" if network.startswith("unix") else f"{network}://127.0.0.1:{server.getsockname()[1]}"
        if kind == socket.SOCK_STREAM:
            server.listen(1)
        writer = syslog.Writer(syslog.address(text), syslog.Formatter("", 3, "t"), None)
        writer.write("stdout", b"one\ntwo\n", NOW)
        end = server.accept()[0] if kind == socket.SOCK_STREAM else server
        with end:
            got = end.recv(4096)
            while got.count(b"\n") < 2:
                got += end.recv(4096)
        writer.close()

    assert [line.rpartition(b": ")[2] for line in got.splitlines()] == [b"one", b"two"] and writer.lost == 0


def test_syslog_a_server_that_is_not_there_costs_lines_and_is_not_asked_again_at_once(tmp_path: Path) -> None:
    copy = make(tmp_path, "log.local")
    writer = syslog.Writer(syslog.address(f"unix://{tmp_path}/none"), syslog.Formatter("", 3, "t"), copy)
    writer.write("stdout", b"one\ntwo\n", NOW)
    writer.write("stdout", b"three\n", NOW)
    writer.close()

    assert writer.lost == 3 and lines(tmp_path, "log.local") == [b"one\n", b"two\n", b"three\n"]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of its own for localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    file = tmp_path_factory.mktemp("pem") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", file, "-out", f"{file}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return file


@pytest.mark.parametrize("trusted", [True, False])
def test_syslog_over_tls_goes_to_a_server_that_is_who_it_says_and_to_no_other(pem: Path, trusted: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{pem}.crt", pem)
    got: list[bytes] = []

    def serve(server: socket.socket) -> None:
        plain, _ = server.accept()
        try:
            with context.wrap_socket(plain, server_side=True) as connection:
                got.append(connection.recv(4096))
        except (ssl.SSLError, ConnectionError):
            plain.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        port = server.getsockname()[1]
        tls = json.dumps({"host": "localhost", "port": port, "ca": f"{pem}.crt" if trusted else ""})
        where = syslog.address(f"tcp+tls://localhost:{port}")
        writer = syslog.Writer(where, syslog.Formatter("rfc5424", 3, "t", counted=True), None, tls)
        writer.write("stdout", b"over tls\n", NOW)
        writer.close()
        thread.join(20)
    syslog._reap()

    if trusted:
        assert got[0].endswith(b" - over tls\n") and writer.lost == 0
        assert int(got[0].split()[0]) == len(got[0].partition(b" ")[2])
    else:
        assert not b"".join(got) and writer.lost == 1


class Slow:
    """A driver that waits until a file is there."""

    def __init__(self, gate: Path, out: Path) -> None:
        self.gate, self.out, self.lost = gate, out, 0

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        fd = os.open(self.gate, os.O_RDONLY)  # a FIFO: waits for somebody who opens it for writing
        os.close(fd)
        with open(self.out, "ab") as file:
            file.write(data)

    def close(self) -> None:
        pass


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Callable[[int], Link]]:
    os.mkfifo(tmp_path / "gate")
    links: list[Link] = []

    def made(buffer: int) -> Link:
        links.append(Link(Loop(), lambda: Slow(tmp_path / "gate", tmp_path / "out"), [], buffer))
        return links[-1]

    yield made
    for link in links:
        link._reap()


def test_non_blocking_drops_whole_lines_and_counts_them(tmp_path: Path, slow: Callable[[int], Link]) -> None:
    link = slow(4096)
    line = b"y" * 99 + b"\n"
    for _ in range(10_000):
        link.write("stdout", line * 3, NOW)
    assert not link.full and link.lost > 20_000
    with open(tmp_path / "gate", "wb"):  # from here on it is quick
        link.close()
        written = (tmp_path / "out").read_bytes()

    assert written.count(line) * 100 == len(written)
    assert len(written) // 100 + link.lost == 30_000


def test_blocking_asks_the_container_to_wait_and_loses_nothing(tmp_path: Path, slow: Callable[[int], Link]) -> None:
    link = slow(0)
    count = 0
    while not link.full:
        link.write("stdout", b"z" * 999 + b"\n", NOW)
        count += 1
    assert count > 1000
    with open(tmp_path / "gate", "wb"):
        link.close()

    assert (tmp_path / "out").stat().st_size == count * 1000 and link.lost == 0


def test_a_logger_that_is_killed_costs_lines_and_nothing_else(slow: Callable[[int], Link]) -> None:
    link = slow(0)
    link.write("stdout", b"one\n", NOW)
    os.kill(link._pid, signal.SIGKILL)
    os.waitid(os.P_PID, link._pid, os.WEXITED | os.WNOWAIT)
    for _ in range(5):
        link.write("stdout", b"two\n", NOW)
    link.close()

    assert link.lost >= 4 and not link.full


def test_a_logger_that_cannot_begin_fails_the_start() -> None:
    def fails() -> Any:
        raise OSError("no")

    with pytest.raises(OSError, match="could not begin"):
        Link(Loop(), fails, [], 0)


def test_log_options_as_attributes_and_tags(tmp_path: Path) -> None:
    from sampan.engine.containers import log_target
    from sampan.engine.records import ContainerRecord
    from sampan.wire import containers as c

    given = {"labels": "a,none", "labels-regex": "^com\\.", "env": "E", "env-regex": "^X_", "tag": "{{.Name}}/{{ .ID }}"}
    record = ContainerRecord(
        id="f" * 64, name="web", created=0, image="sha256:" + "e" * 64, image_ref="busybox", path="true", args=(),
        config=c.ContainerConfig(labels={"a": "1", "com.x": "2", "b": "3"}, env=["E=4", "X_Y=5", "Z=6"]),
        host=c.HostConfig(log_config=c.LogConfig(type="json-file", config=given)),
    )  # fmt: skip

    target = log_target.target(record, 7)
    assert target.attributes == {"a": "1", "com.x": "2", "E": "4", "X_Y": "5", "tag": "web/" + "f" * 12}
    log_target.validate(c.LogConfig(type="json-file", config=given))
    with pytest.raises(InvalidRequest, match="certificate files"):
        no_ca = {"syslog-address": "tcp+tls://h:1", "syslog-tls-ca-cert": "/nil"}
        log_target.validate(c.LogConfig(type="syslog", config=no_ca))
    for bad in ({"tag": "{{.Nonsense}}"}, {"labels-regex": "("}, {"tag": "a\0"}):
        with pytest.raises(InvalidRequest):
            log_target.validate(c.LogConfig(type="json-file", config=bad))
    default = c.LogConfig(type="local", config={"max-file": "2"})
    assert log_target.merged(None, default) == default
    assert log_target.merged(c.LogConfig(type="none"), default).config == {}
    assert log_target.merged(c.LogConfig(config={"max-file": "3"}), default).config == {"max-file": "3"}
    assert json.dumps(given)
