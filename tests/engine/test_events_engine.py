"""What a real daemon tells of: every kind of event with docker's attributes, filters, replay."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import time
from typing import Any
from urllib.parse import quote

from support.daemon import Daemon


def told(daemon: Daemon, since: float, **filters: Any) -> list[dict[str, Any]]:
    query = f"since={since:.6f}&until={time.time():.6f}&filters={quote(json.dumps(filters))}"
    return [json.loads(line) for line in daemon.call("GET", f"/events?{query}").body.splitlines()]


def actions(found: list[dict[str, Any]]) -> list[str]:
    return [one["Action"] for one in found]


def taken_over(daemon: Daemon, path: str, body: bytes = b"") -> socket.socket:
    """Make a request that takes the connection over; return the socket once its head has been read."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(daemon.sock))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(4096)
    assert data.startswith(b"HTTP/1.1 101"), data
    return sock


def test_a_containers_whole_life_is_told_with_dockers_attributes(daemon: Daemon) -> None:
    begin = time.time()
    container = daemon.create("cat", name="ev", Tty=True, OpenStdin=True, Labels={"tier": "web"})
    daemon.ok("POST", f"/containers/{container}/start")
    with taken_over(daemon, f"/containers/{container}/attach?stream=1&stdin=1&stdout=1") as attached:
        attached.sendall(b"\x10\x11")
        while attached.recv(4096):
            pass
    wanted = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True, "Tty": True}
    made = daemon.ok("POST", f"/containers/{container}/exec", wanted)["Id"]
    with taken_over(daemon, f"/exec/{made}/start", b'{"Tty":true}') as attached:
        attached.sendall(b"\x10\x11")
        while attached.recv(4096):
            pass
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("new"))
    daemon.ok("PUT", f"/containers/{container}/archive?path=/tmp", out.getvalue())
    daemon.call("GET", f"/containers/{container}/archive?path=/etc/passwd")
    daemon.call("GET", f"/containers/{container}/export")
    image = daemon.ok("POST", f"/commit?container={container}&repo=evmade&comment=why")["Id"]
    daemon.ok("POST", f"/containers/{container}/rename?name=ev2")
    daemon.ok("POST", f"/containers/{container}/resize?h=10&w=20")
    daemon.ok("POST", f"/containers/{container}/update", {"PidsLimit": 50})
    daemon.ok("POST", f"/containers/{container}/kill?signal=KILL")
    daemon.ok("POST", f"/containers/{container}/wait")
    daemon.ok("DELETE", f"/containers/{container}")
    daemon.ok("DELETE", "/images/evmade")
    found = {one["Action"]: one for one in told(daemon, begin, container=[container])}

    assert {"create", "start", "attach", "detach", "exec_create: cat", "exec_start: cat", "exec_detach", "extract-to-dir",
            "archive-path", "export", "commit", "rename", "resize", "update", "kill", "die", "destroy"} <= set(found)  # fmt: skip
    for one in found.values():
        attributes = one["Actor"]["Attributes"]
        assert one["Type"] == "container" and one["scope"] == "local" and one["Actor"]["ID"] == one["id"] == container
        assert attributes["tier"] == "web" and attributes["image"] == one["from"] == "busybox" and one["status"] == one["Action"]
    own = {action: one["Actor"]["Attributes"] for action, one in found.items()}
    assert own["exec_detach"]["execID"] == own["exec_create: cat"]["execID"] == made
    assert own["rename"]["oldName"] == "/ev" and own["rename"]["name"] == "ev2"
    assert own["kill"]["signal"] == "9" and own["die"]["exitCode"] == "137" and own["die"]["execDuration"].isdigit()
    assert (own["resize"]["height"], own["resize"]["width"]) == ("10", "20")
    assert own["commit"]["imageID"] == image and own["commit"]["comment"] == "why"


def test_filters_choose_and_restarts_forget(daemon: Daemon) -> None:
    begin = time.time()
    container = daemon.create("true", name="flt", Labels={"tier": "db"})
    daemon.ok("POST", "/images/busybox/tag?repo=evtag&tag=1")
    daemon.ok("DELETE", "/images/evtag:1")
    daemon.ok("POST", "/volumes/create", {"Name": "evvol"})
    daemon.ok("DELETE", "/volumes/evvol")
    network = daemon.ok("POST", "/networks/create", {"Name": "evnet"})["Id"]
    daemon.ok("DELETE", "/networks/evnet")

    assert actions(told(daemon, begin, type=["image"])) == ["tag", "untag"]
    assert actions(told(daemon, begin, type=["volume"])) == actions(told(daemon, begin, volume=["evvol"])) == ["create", "destroy"]
    assert [one["Actor"]["ID"] for one in told(daemon, begin, type=["network"])] == [network, network]
    assert actions(told(daemon, begin, label=["tier=db"])) == actions(told(daemon, begin, container=["flt"])) == ["create"]
    assert actions(told(daemon, begin, container=[container[:12]], event=["create", "start"])) == ["create"]
    assert actions(told(daemon, begin, image=["busybox"], type=["container"])) == ["create"]
    assert told(daemon, begin, scope=["swarm"]) == []
    assert told(daemon, time.time()) == []
    assert daemon.call("GET", "/events?until=1&filters=" + quote(json.dumps({"nope": ["x"]}))).status == 400
    assert daemon.call("GET", f"/events?since={begin + 10}&until={begin}").status == 400
    daemon.restart()
    assert [one for one in told(daemon, begin) if one["Type"] == "volume"] == []  # as docker: the past is kept in memory only


def test_a_listener_that_leaves_and_one_that_is_slow_hold_nobody_up(daemon: Daemon) -> None:
    listeners = []
    for _ in range(10):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(daemon.sock))
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        listeners.append(sock)
    listeners[0].close()
    begin = time.time()
    for _ in range(300):
        daemon.ok("POST", "/images/busybox/tag?repo=many&tag=1")
    daemon.ok("DELETE", "/images/many:1")
    assert 250 <= len(told(daemon, begin)) <= 256
    for sock in listeners[1:]:
        assert b"200 OK" in sock.recv(4096)
        sock.close()
