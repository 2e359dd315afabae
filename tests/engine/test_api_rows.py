"""Every container, exec and volume row of Docker's API: status, body and effect.

The rows are read from the project's description of the API; one without a case here fails.  Each body is held against Docker's own
description where that is at hand.
"""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from support import api_spec
from support.api_shapes import Shapes
from support.daemon import Answer, Daemon

ROWS = api_spec.SPEC.with_name("engine-api.md")
SECTIONS = ("## 3.2 Containers", "## 3.3 Exec", "## 3.6 Volumes")
GONE = "f" * 64
# Where Docker itself departs from its description: pointers that may be null, and members of older API versions.
KNOWN = re.compile(r"\.(MemorySwappiness|ExitCode): null for a integer$|^\.NetworkSettings\.[A-Za-z0-9]+: no such member$")


class Asked:
    """A daemon, asked by rows: every answer's status and body are checked."""

    def __init__(self, daemon: Daemon, shapes: Shapes | None) -> None:
        self.daemon, self.shapes = daemon, shapes

    def __call__(self, row: str, status: int, body: Any = None, *, query: str = "", **parts: str) -> Any:
        method, path = row.split()
        answer = self.daemon.call(method, path.format(**parts) + (f"?{query}" if query else ""), body)
        assert answer.status == status, (row, query, answer)
        return self.checked(row, answer)

    def checked(self, row: str, answer: Answer) -> Any:
        method, path = row.split()
        if method == "HEAD" or not answer.headers.get("Content-Type", "").startswith("application/json"):
            return answer.body
        value = answer.json
        if answer.status >= 400:
            assert set(value) == {"message"} and value["message"], answer
        schema = self.shapes.of(method, path, answer.status) if self.shapes else None
        if schema is not None:
            assert self.shapes is not None
            faults = [one for one in self.shapes.faults(schema, value) if not KNOWN.search(one)]
            assert faults == [], (row, faults)
        return value

    def container(self, *command: str, start: bool = True, **body: Any) -> str:
        made = self.daemon.create(*(command or ("sleep", "600")), **body)
        if start:
            self.daemon.ok("POST", f"/containers/{made}/start")
        return made

    def state(self, container: str) -> dict[str, Any]:
        return dict(self("GET /containers/{id}/json", 200, id=container)["State"])

    def takeover(self, path: str, body: Any = None, sent: bytes = b"") -> tuple[bytes, bytes]:
        """Ask for an upgrade, send, end the input, and return the head and everything that came."""
        data = b"" if body is None else json.dumps(body).encode()
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(60)
            wire.connect(str(self.daemon.sock))
            wire.sendall(
                f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\n\r\n".encode()
                + data
            )
            said = b""
            while b"\r\n\r\n" not in said:
                said += wire.recv(65536)
            wire.sendall(sent)
            wire.shutdown(socket.SHUT_WR)
            while piece := wire.recv(65536):
                said += piece
        head, _, rest = said.partition(b"\r\n\r\n")
        return head, rest


Case = Callable[[Asked], None]
CASES: dict[str, Case] = {}


def row(text: str) -> Callable[[Case], Case]:
    def keep(case: Case) -> Case:
        CASES[text] = case
        return case

    return keep


def frame(text: bytes, stream: int = 1) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text


def rows() -> set[str]:
    """The rows that the description has."""
    found, inside = set(), False
    for line in ROWS.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            inside = line in SECTIONS
        if not inside or not line.startswith("**"):
            continue
        if line.startswith("**Checkpoints**"):
            path = "/containers/{id}/checkpoints"
            found |= {f"GET {path}", f"POST {path}", f"DELETE {path}/{{checkpoint}}"}
        head = re.findall(r"\*\*(GET|POST|PUT|DELETE|HEAD) (/\S+?)\*\*", line)
        found |= {f"{method} {path}" for method, path in head}
        for extra in re.findall(r"\*\*(/\w+)\*\*", line.partition("—")[0]):  # "**POST .../pause**, **/unpause**"
            method, path = head[0]
            found.add(f"{method} {path.rpartition('/')[0]}{extra}")
    return found


@pytest.mark.skipif(not ROWS.exists(), reason=f"needs {ROWS}")
def test_every_row_has_a_case() -> None:
    assert len(rows()) >= 37
    assert rows() - set(CASES) == set()


@pytest.fixture(scope="module")
def shapes() -> Shapes | None:
    return Shapes(api_spec.load()) if api_spec.SPEC.exists() else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "which" in metafunc.fixturenames:
        metafunc.parametrize("which", sorted(CASES))


def test_status_body_and_effect(daemon: Daemon, shapes: Shapes | None, which: str) -> None:
    CASES[which](Asked(daemon, shapes))
    if shapes is None:
        pytest.skip(f"status and effect are right; the body's types were not held against {api_spec.SPEC}, which is not there")


@row("GET /containers/json")
def _(ask: Asked) -> None:
    one, two = ask.container(name="one", Labels={"a": "b"}), ask.container("true", start=False, name="two")
    path = "GET /containers/json"
    assert [found["Id"] for found in ask(path, 200)] == [one]
    assert [found["Id"] for found in ask(path, 200, query="all=1")] == [two, one]
    assert [found["Names"] for found in ask(path, 200, query="limit=1")] == [["/two"]]
    (found,) = ask(path, 200, query='size=1&filters={"label":["a=b"]}')
    assert found["SizeRootFs"] > 0 and found["SizeRw"] >= 0 and found["State"] == "running" and found["Labels"] == {"a": "b"}
    assert ask(path, 200, query='filters={"name":["nobody"]}') == []
    assert "invalid filter" in ask(path, 400, query='filters={"bogus":["x"]}')["message"]
    ask(path, 400, query="limit=x")


@row("POST /containers/create")
def _(ask: Asked) -> None:
    path, body = "POST /containers/create", {"Image": "busybox", "Cmd": ["true"]}
    made = ask(path, 201, body, query="name=made")
    assert made["Warnings"] == [] and len(made["Id"]) == 64
    assert ask.state(made["Id"])["Status"] == "created"
    assert "already in use" in ask(path, 409, body, query="name=made")["message"]
    assert "No such image" in ask(path, 404, {"Image": "nosuch:1", "Cmd": ["true"]})["message"]
    assert "no command specified" in ask(path, 400, {"Image": "busybox"})["message"].lower()
    ask(path, 400, body, query="name=-")


@row("GET /containers/{id}/json")
def _(ask: Asked) -> None:
    path, box = "GET /containers/{id}/json", ask.container(name="box", Healthcheck={"Test": ["CMD", "true"]})
    found = ask(path, 200, query="size=1", id="box")
    assert found["Id"] == box and found["Name"] == "/box" and found["SizeRootFs"] > 0
    assert (found["Path"], found["Args"], found["Config"]["Image"]) == ("sleep", ["600"], "busybox")
    assert "SizeRw" not in ask(path, 200, id=box[:12])
    assert ask(path, 404, id=GONE)["message"] == f"No such container: {GONE}"


@row("GET /containers/{id}/top")
def _(ask: Asked) -> None:
    path, box = "GET /containers/{id}/top", ask.container()
    told = ask(path, 200, id=box)
    assert told["Titles"][:2] == ["UID", "PID"] and [one[-1] for one in told["Processes"]] == ["sleep 600"]
    told = ask(path, 200, query="ps_args=-o+pid,args", id=box)
    assert told["Titles"] == ["PID", "COMMAND"] and told["Processes"] == [[str(ask.state(box)["Pid"]), "sleep 600"]]
    ask(path, 404, id=GONE)
    ask(path, 409, id=ask.container(start=False))


@row("GET /containers/{id}/logs")
def _(ask: Asked) -> None:
    path, box = "GET /containers/{id}/logs", ask.container("sh", "-c", "echo out; echo err >&2; echo last")
    ask.daemon.ok("POST", f"/containers/{box}/wait")
    assert sorted(re.split(rb"[\x01\x02]\0\0\0\0\0\0.", ask(path, 200, query="stdout=1&stderr=1", id=box))) == [
        b"", b"err\n", b"last\n", b"out\n",
    ]  # fmt: skip
    assert ask(path, 200, query="stdout=1&stderr=1&tail=1", id=box) in (frame(b"last\n"), frame(b"err\n", 2))
    stamped = ask(path, 200, query="stderr=1&timestamps=1", id=box)
    assert re.fullmatch(rb"\x02.{7}\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z err\n", stamped, re.DOTALL)
    assert ask(path, 200, query="stdout=1&follow=1", id=box) == frame(b"out\n") + frame(b"last\n")
    assert ask(path, 200, query="stdout=1", id=ask.container(start=False)) == b""
    ask(path, 400, id=box)
    ask(path, 404, query="stdout=1", id=GONE)


@row("GET /containers/{id}/changes")
def _(ask: Asked) -> None:
    path, box = "GET /containers/{id}/changes", ask.container("sh", "-c", "touch /new; rm /etc/group; echo >>/etc/passwd")
    ask.daemon.ok("POST", f"/containers/{box}/wait")
    assert ask(path, 200, id=box) == [
        {"Path": "/etc", "Kind": 0}, {"Path": "/etc/group", "Kind": 2}, {"Path": "/etc/passwd", "Kind": 0},
        {"Path": "/new", "Kind": 1},
    ]  # fmt: skip
    assert ask(path, 200, id=ask.container(start=False)) is None
    ask(path, 404, id=GONE)


@row("GET /containers/{id}/export")
def _(ask: Asked) -> None:
    path, box = "GET /containers/{id}/export", ask.container("sh", "-c", "echo told >/tmp/file")
    ask.daemon.ok("POST", f"/containers/{box}/wait")
    with tarfile.open(fileobj=io.BytesIO(ask(path, 200, id=box))) as tar:
        file = tar.extractfile("tmp/file")
        assert file is not None and file.read() == b"told\n" and "bin/busybox" in tar.getnames()
    ask(path, 404, id=GONE)


@row("GET /containers/{id}/stats")
def _(ask: Asked) -> None:
    path, box = "GET /containers/{id}/stats", ask.container(HostConfig={"Memory": 64 << 20})
    found = ask(path, 200, query="stream=0&one-shot=1", id=box)
    assert found["memory_stats"]["limit"] == 64 << 20 and found["pids_stats"]["current"] == 1
    assert found["cpu_stats"]["cpu_usage"]["total_usage"] > 0 and "eth0" in found["networks"]
    assert ask(path, 200, query="stream=0", id=ask.container(start=False))["read"] == "0001-01-01T00:00:00Z"
    ask(path, 404, query="stream=0", id=GONE)


@row("POST /containers/{id}/resize")
def _(ask: Asked) -> None:
    path, box = "POST /containers/{id}/resize", ask.container("sh", "-c", "read x; stty size", Tty=True, OpenStdin=True)
    ask(path, 200, query="h=33&w=77", id=box)
    _, said = ask.takeover(f"/containers/{box}/attach?stream=1&stdin=1&stdout=1", sent=b"\n")
    assert b"33 77" in said
    ask(path, 400, query="h=x&w=1", id=box)
    ask(path, 409, query="h=1&w=1", id=ask.container(start=False))
    ask(path, 404, query="h=1&w=1", id=GONE)


@row("POST /containers/{id}/start")
def _(ask: Asked) -> None:
    path, box = "POST /containers/{id}/start", ask.container(start=False)
    assert ask(path, 204, id=box) == b"" and ask.state(box)["Running"]
    assert ask(path, 304, id=box) == b""
    ask.daemon.ok("POST", f"/containers/{box}/pause")
    assert "unpause instead" in ask(path, 409, id=box)["message"]
    wrong = ask.container("nosuch", start=False)
    assert "executable file not found in $PATH" in ask(path, 400, id=wrong)["message"]
    assert (ask.state(wrong)["Status"], ask.state(wrong)["ExitCode"]) == ("created", 127)
    ask(path, 400, {"Binds": []}, id=ask.container(start=False))
    ask(path, 404, id=GONE)


@row("POST /containers/{id}/stop")
def _(ask: Asked) -> None:
    path, box = "POST /containers/{id}/stop", ask.container()
    assert ask(path, 204, query="t=0", id=box) == b""
    assert (ask.state(box)["Status"], ask.state(box)["ExitCode"]) == ("exited", 137)
    assert ask(path, 304, id=box) == b""
    polite = ask.container("sh", "-c", "trap 'exit 9' USR1; while :; do sleep 0.1; done")
    ask(path, 204, query="signal=USR1", id=polite)
    assert ask.state(polite)["ExitCode"] in (9, 138)  # 138: it came before the trap
    ask(path, 400, query="t=x", id=box)
    ask(path, 404, id=GONE)


@row("POST /containers/{id}/restart")
def _(ask: Asked) -> None:
    path, box = "POST /containers/{id}/restart", ask.container()
    before = ask.state(box)
    assert ask(path, 204, query="t=0", id=box) == b""
    after = ask.state(box)
    assert after["Running"] and after["Pid"] != before["Pid"] and after["StartedAt"] > before["StartedAt"]
    rests = ask.container(start=False)
    ask(path, 204, id=rests)
    assert ask.state(rests)["Running"]
    ask(path, 404, id=GONE)


@row("POST /containers/{id}/kill")
def _(ask: Asked) -> None:
    path, box = "POST /containers/{id}/kill", ask.container()
    assert "invalid signal: FOO" in ask(path, 400, query="signal=FOO", id=box)["message"].lower().replace("foo", "FOO")
    assert ask(path, 204, id=box) == b""
    assert ask.daemon.ok("POST", f"/containers/{box}/wait")["StatusCode"] == 137
    assert "is not running" in ask(path, 409, id=box)["message"]
    ask(path, 404, id=GONE)


@row("POST /containers/{id}/update")
def _(ask: Asked) -> None:
    path, box = "POST /containers/{id}/update", ask.container(HostConfig={"Memory": 64 << 20})
    assert not ask(path, 200, {"Memory": 32 << 20, "PidsLimit": 9, "RestartPolicy": {"Name": "always"}}, id=box)["Warnings"]
    host = ask("GET /containers/{id}/json", 200, id=box)["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["RestartPolicy"]["Name"]) == (32 << 20, 9, "always")
    assert ask("GET /containers/{id}/stats", 200, query="stream=0&one-shot=1", id=box)["memory_stats"]["limit"] == 32 << 20
    assert ask(path, 400, {"Memory": 1 << 20}, id=box)["message"] == "Minimum memory limit allowed is 6MB"
    ask(path, 400, {"RestartPolicy": {"Name": "bogus"}}, id=box)
    assert "update the memoryswap at the same time" in ask(path, 409, {"Memory": 1 << 30}, id=box)["message"]
    ask(path, 404, {}, id=GONE)


@row("POST /containers/{id}/rename")
def _(ask: Asked) -> None:
    path, box = "POST /containers/{id}/rename", ask.container(start=False, name="old")
    ask.container(start=False, name="taken")
    assert ask(path, 204, query="name=new", id="old") == b""
    assert ask("GET /containers/{id}/json", 200, id="new")["Id"] == box
    ask("GET /containers/{id}/json", 404, id="old")
    ask(path, 409, query="name=taken", id=box)
    ask(path, 400, query="name=", id=box)
    ask(path, 404, query="name=other", id=GONE)


@row("POST /containers/{id}/pause")
def _(ask: Asked) -> None:
    path, box = "POST /containers/{id}/pause", ask.container()
    assert ask(path, 204, id=box) == b""
    assert ask.state(box)["Status"] == "paused" and ask.state(box)["Running"]
    assert "is already paused" in ask(path, 409, id=box)["message"]
    ask(path, 409, id=ask.container(start=False))
    ask(path, 404, id=GONE)


@row("POST /containers/{id}/unpause")
def _(ask: Asked) -> None:
    path, box = "POST /containers/{id}/unpause", ask.container()
    assert "is not paused" in ask(path, 500, id=box)["message"]
    ask.daemon.ok("POST", f"/containers/{box}/pause")
    assert ask(path, 204, id=box) == b"" and ask.state(box)["Status"] == "running"
    ask(path, 404, id=GONE)


@row("POST /containers/{id}/attach")
def _(ask: Asked) -> None:
    box = ask.container("sh", "-c", "echo before; cat", OpenStdin=True, StdinOnce=True)
    while not ask.daemon.call("GET", f"/containers/{box}/logs?stdout=1").body:
        pass
    head, said = ask.takeover(f"/v1.50/containers/{box}/attach?stream=1&logs=1&stdin=1&stdout=1", sent=b"typed\n")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n") and b"multiplexed-stream" in head
    assert said == frame(b"before\n") + frame(b"typed\n")
    head, said = ask.takeover(f"/containers/{GONE}/attach?stream=1&stdout=1")
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n") and said == f"No such container: {GONE}\r\n".encode()
    head, _ = ask.takeover(f"/containers/{box}/attach?stream=1&stdout=1&detachKeys=bad")
    assert head.startswith(b"HTTP/1.1 400 ")


@row("GET /containers/{id}/attach/ws")
def _(ask: Asked) -> None:
    path, box = "GET /containers/{id}/attach/ws", ask.container("cat", OpenStdin=True)
    with _websocket(ask, box) as wire:
        head = wire.recv(65536)
        assert head.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        wire.sendall(b"\x82\x83\0\0\0\0hi\n")  # a masked binary frame
        assert wire.recv(65536) == b"\x82\x03hi\n"
    with _websocket(ask, GONE) as wire:
        assert wire.recv(65536).startswith(b"HTTP/1.1 404 ")
    ask(path, 400, query="stream=1", id=box)  # no websocket asked for


def _websocket(ask: Asked, container: str) -> socket.socket:
    wire = socket.socket(socket.AF_UNIX)
    wire.settimeout(60)
    wire.connect(str(ask.daemon.sock))
    wire.sendall(
        f"GET /containers/{container}/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return wire


@row("POST /containers/{id}/wait")
def _(ask: Asked) -> None:
    path, box = "POST /containers/{id}/wait", ask.container("sh", "-c", "exit 6")
    assert ask(path, 200, id=box)["StatusCode"] == 6
    assert ask(path, 200, query="condition=not-running", id=ask.container(start=False))["StatusCode"] == 0
    assert "invalid condition" in ask(path, 400, query="condition=bogus", id=box)["message"].lower()
    ask(path, 404, id=GONE)


@row("DELETE /containers/{id}")
def _(ask: Asked) -> None:
    path, box = "DELETE /containers/{id}", ask.container(Volumes={"/v": {}})
    volume = ask("GET /containers/{id}/json", 200, id=box)["Mounts"][0]["Name"]
    assert "container is running" in ask(path, 409, id=box)["message"]
    assert ask(path, 204, query="force=1&v=1", id=box) == b""
    ask("GET /containers/{id}/json", 404, id=box)
    ask("GET /volumes/{name}", 404, name=volume)
    ask(path, 404, id=GONE)


@row("HEAD /containers/{id}/archive")
def _(ask: Asked) -> None:
    path, box = "/containers/{id}/archive", ask.container(start=False)
    answer = ask.daemon.call("HEAD", f"/containers/{box}/archive?path=/bin/sh")
    stat = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
    assert answer.status == 200 and answer.body == b""
    assert (stat["name"], stat["linkTarget"]) == ("sh", "/bin/busybox") and set(stat) == {
        "name",
        "size",
        "mode",
        "mtime",
        "linkTarget",
    }
    for status, query, container in ((404, "path=/nosuch", box), (400, "", box), (404, "path=/etc", GONE)):
        assert ask(f"HEAD {path}", status, query=query, id=container) == b""


@row("GET /containers/{id}/archive")
def _(ask: Asked) -> None:
    path, box = "GET /containers/{id}/archive", ask.container(start=False)
    with tarfile.open(fileobj=io.BytesIO(ask(path, 200, query="path=/etc/passwd", id=box))) as tar:
        assert tar.getnames() == ["passwd"] and tar.getmember("passwd").size > 0
    with tarfile.open(fileobj=io.BytesIO(ask(path, 200, query="path=/etc", id=box))) as tar:
        assert {"etc", "etc/passwd"} <= set(tar.getnames())
    assert "Could not find the file /nosuch" in ask(path, 404, query="path=/nosuch", id=box)["message"]
    ask(path, 400, query="path=/etc/passwd/", id=box)
    ask(path, 400, id=box)
    ask(path, 404, query="path=/etc", id=GONE)


@row("PUT /containers/{id}/archive")
def _(ask: Asked) -> None:
    path, box = "PUT /containers/{id}/archive", ask.container(start=False)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("put")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"there"))
    data = out.getvalue()
    assert ask(path, 200, data, query="path=/tmp", id=box) == b""
    with tarfile.open(fileobj=io.BytesIO(ask("GET /containers/{id}/archive", 200, query="path=/tmp/put", id=box))) as tar:
        file = tar.extractfile("put")
        assert file is not None and file.read() == b"there"
    assert "not a directory" in ask(path, 400, data, query="path=/etc/passwd", id=box)["message"]
    ask(path, 404, data, query="path=/nosuch", id=box)
    ask(path, 404, data, query="path=/tmp", id=GONE)
    ask(path, 403, data, query="path=/tmp", id=ask.container(start=False, HostConfig={"ReadonlyRootfs": True}))


@row("POST /containers/prune")
def _(ask: Asked) -> None:
    path, stays, goes = "POST /containers/prune", ask.container(), ask.container(start=False)
    assert ask(path, 200, query='filters={"label":["none"]}') == {"ContainersDeleted": None, "SpaceReclaimed": 0}
    assert ask(path, 200)["ContainersDeleted"] == [goes]
    assert ask.state(stays)["Running"]
    ask(path, 400, query='filters={"bogus":["x"]}')


@row("GET /containers/{id}/checkpoints")
@row("POST /containers/{id}/checkpoints")
@row("DELETE /containers/{id}/checkpoints/{checkpoint}")
def _(ask: Asked) -> None:
    box, path = ask.container(), "/containers/{id}/checkpoints"
    ask(f"GET {path}", 501, id=box)
    ask(f"POST {path}", 501, {"CheckpointID": "c"}, id=box)
    ask(f"DELETE {path}/{{checkpoint}}", 501, id=box, checkpoint="c")
    assert ask.state(box)["Running"]


@row("POST /containers/{id}/copy")
def _(ask: Asked) -> None:
    ask("POST /containers/{id}/copy", 404, {"Resource": "/etc"}, id=ask.container())


@row("POST /containers/{id}/exec")
def _(ask: Asked) -> None:
    path, box = "POST /containers/{id}/exec", ask.container()
    made = ask(path, 201, {"Cmd": ["true"]}, id=box)["Id"]
    assert ask("GET /containers/{id}/json", 200, id=box)["ExecIDs"] == [made]
    assert "no exec command specified" in ask(path, 400, {"Cmd": []}, id=box)["message"].lower()
    ask(path, 404, {"Cmd": ["true"]}, id=GONE)
    ask(path, 409, {"Cmd": ["true"]}, id=ask.container(start=False))
    ask.daemon.ok("POST", f"/containers/{box}/pause")
    ask(path, 409, {"Cmd": ["true"]}, id=box)


@row("POST /exec/{id}/start")
def _(ask: Asked) -> None:
    path, box = "POST /exec/{id}/start", ask.container()
    made = ask("POST /containers/{id}/exec", 201, {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True}, id=box)["Id"]
    head, said = ask.takeover(f"/v1.50/exec/{made}/start", {}, b"typed\n")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n") and b"Api-Version: " in head and said == frame(b"typed\n")
    assert b"has already run" in ask.takeover(f"/exec/{made}/start", {})[1]
    made = ask("POST /containers/{id}/exec", 201, {"Cmd": ["touch", "/tmp/done"]}, id=box)["Id"]
    assert ask(path, 200, {"Detach": True}, id=made) == b""
    ask(path, 409, {"Detach": True}, id=made)
    while ask("GET /exec/{id}/json", 200, id=made)["Running"]:
        pass
    assert ask("GET /containers/{id}/archive", 200, query="path=/tmp/done", id=box)
    assert ask(path, 404, {"Detach": True}, id=GONE)["message"] == f"No such exec instance: {GONE}"


@row("POST /exec/{id}/resize")
def _(ask: Asked) -> None:
    path, box = "POST /exec/{id}/resize", ask.container()
    command = ["sh", "-c", "until test -e /tmp/go; do sleep 0.05; done; stty size >/tmp/size"]
    made = ask("POST /containers/{id}/exec", 201, {"Cmd": command, "Tty": True}, id=box)["Id"]
    ask("POST /exec/{id}/start", 200, {"Detach": True, "Tty": True}, id=made)
    ask(path, 200, query="h=21&w=43", id=made)
    ask.daemon.docker("exec", box, "touch", "/tmp/go")
    while ask("GET /exec/{id}/json", 200, id=made)["Running"]:
        pass
    assert b"21 43\n" in ask("GET /containers/{id}/archive", 200, query="path=/tmp/size", id=box)
    ask(path, 400, query="h=x&w=1", id=made)
    ask(path, 404, query="h=1&w=1", id=GONE)


@row("GET /exec/{id}/json")
def _(ask: Asked) -> None:
    path, box = "GET /exec/{id}/json", ask.container()
    body = {"Cmd": ["sh", "-c", "exit 4"], "User": "1000", "Env": ["A=b"], "WorkingDir": "/tmp", "Privileged": True}
    made = ask("POST /containers/{id}/exec", 201, body, id=box)["Id"]
    found = ask(path, 200, id=made)
    assert (found["Running"], found["ExitCode"], found["ContainerID"]) == (False, None, box)
    assert found["ProcessConfig"]["entrypoint"] == "sh" and found["ProcessConfig"]["user"] == "1000"
    ask("POST /exec/{id}/start", 200, {"Detach": True}, id=made)
    while (found := ask(path, 200, id=made))["Running"]:
        pass
    assert found["ExitCode"] == 4
    ask(path, 404, id=GONE)


@row("GET /volumes")
def _(ask: Asked) -> None:
    path = "GET /volumes"
    for name, labels in (("rowone", {"a": "b"}), ("rowtwo", {})):
        ask("POST /volumes/create", 201, {"Name": name, "Labels": labels})
    ask.container(start=False, HostConfig={"Binds": ["rowone:/v"]})
    assert {one["Name"] for one in ask(path, 200)["Volumes"]} == {"rowone", "rowtwo"}
    assert [one["Name"] for one in ask(path, 200, query='filters={"dangling":["true"]}')["Volumes"]] == ["rowtwo"]
    assert [one["Name"] for one in ask(path, 200, query='filters={"label":["a=b"]}')["Volumes"]] == ["rowone"]
    assert ask(path, 200, query='filters={"name":["none"]}')["Volumes"] == []
    ask(path, 400, query='filters={"bogus":["x"]}')
    _remove(ask, "rowone", "rowtwo")


@row("POST /volumes/create")
def _(ask: Asked) -> None:
    path = "POST /volumes/create"
    made = ask(path, 201, {"Name": "rowmade", "Labels": {"a": "b"}})
    assert (made["Name"], made["Driver"], made["Scope"], made["Labels"]) == ("rowmade", "local", "local", {"a": "b"})
    assert ask(path, 201, {"Name": "rowmade"}) == made
    anonymous = ask(path, 201, {})
    assert re.fullmatch("[0-9a-f]{64}", anonymous["Name"]) and anonymous["Labels"] == {"com.docker.volume.anonymous": ""}
    ask(path, 400, {"Name": "/bad"})
    ask(path, 404, {"Name": "rowother", "Driver": "nosuch"})
    _remove(ask, "rowmade", anonymous["Name"])


@row("GET /volumes/{name}")
def _(ask: Asked) -> None:
    made = ask("POST /volumes/create", 201, {"Name": "rowshown"})
    assert ask("GET /volumes/{name}", 200, name="rowshown")["Mountpoint"] == made["Mountpoint"]
    assert ask("GET /volumes/{name}", 404, name="rownone")["message"] == "get rownone: no such volume"
    _remove(ask, "rowshown")


@row("PUT /volumes/{name}")
def _(ask: Asked) -> None:
    made = ask("POST /volumes/create", 201, {"Name": "rowput"})
    ask("PUT /volumes/{name}", 503, {"Spec": {}}, query="version=1", name="rowput")  # a swarm's volumes alone have it
    ask("PUT /volumes/{name}", 404, {"Spec": {}}, query="version=1", name="rownone")
    assert ask("GET /volumes/{name}", 200, name="rowput") == made
    _remove(ask, "rowput")


@row("DELETE /volumes/{name}")
def _(ask: Asked) -> None:
    path, box = "DELETE /volumes/{name}", ask.container(start=False, HostConfig={"Binds": ["rowused:/v"]})
    assert f"volume is in use - [{box}]" in ask(path, 409, name="rowused")["message"]
    ask(path, 404, name="rownone")
    assert ask(path, 204, query="force=1", name="rownone") == b""
    ask("DELETE /containers/{id}", 204, id=box)
    assert ask(path, 204, name="rowused") == b""
    ask("GET /volumes/{name}", 404, name="rowused")


@row("POST /volumes/prune")
def _(ask: Asked) -> None:
    path = "POST /volumes/prune"
    named, anonymous = (ask("POST /volumes/create", 201, body)["Name"] for body in ({"Name": "rowkept"}, {}))
    assert ask(path, 200)["VolumesDeleted"] == [anonymous]
    assert ask(path, 200, query='filters={"all":["true"]}')["VolumesDeleted"] == [named]
    ask(path, 400, query='filters={"bogus":["x"]}')


def _remove(ask: Asked, *volumes: str) -> None:
    ask.daemon.remove_all()
    for name in volumes:
        ask("DELETE /volumes/{name}", 204, name=name)
