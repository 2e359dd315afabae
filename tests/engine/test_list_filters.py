"""The list's filters against containers of a real daemon."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

from support.daemon import Daemon


def names(daemon: Daemon, query: str = "all=1", **filters: object) -> list[str]:
    found = daemon.ok("GET", f"/containers/json?{query}&filters={quote(json.dumps(filters))}")
    return [one["Names"][0].removeprefix("/") for one in found]


def test_ports_are_found_on_what_runs_only(daemon: Daemon) -> None:
    exposed = daemon.create("sleep", "600", name="exposed", ExposedPorts={"80/tcp": {}, "53/udp": {}})
    published = daemon.create("sleep", "600", name="published", HostConfig={"PortBindings": {"8080/tcp": [{"HostPort": ""}]}})
    assert names(daemon, expose=["80"]) == names(daemon, publish=["8080"]) == []
    for container in (exposed, published):
        daemon.ok("POST", f"/containers/{container}/start")

    assert names(daemon, expose=["80"]) == names(daemon, expose=["79-81/tcp"]) == names(daemon, expose=["53/udp"]) == ["exposed"]
    assert names(daemon, publish=["8080"]) == names(daemon, publish=["8000-9000"]) == ["published"]
    assert names(daemon, publish=["80"]) == names(daemon, expose=["53"]) == []
    answer = daemon.call("GET", "/containers/json?filters=" + quote(json.dumps({"publish": ["abc"]})))
    assert answer.status == 400 and "error while looking up for publish abc" in answer.json["message"]


def test_names_are_regular_expressions_that_cannot_hang(daemon: Daemon) -> None:
    for name in ("web-1", "web-2", "db"):
        daemon.create("true", name=name)

    assert names(daemon, name=["^/?web-[0-9]+$"]) == ["web-2", "web-1"] and names(daemon, name=["(?i)DB"]) == ["db"]
    assert names(daemon, name=["web-1|db"]) == ["db", "web-1"] and names(daemon, name=["("]) == []
    begin = time.monotonic()
    daemon.call("GET", "/containers/json?all=1&filters=" + quote(json.dumps({"name": ["(a*)*(b|c)*$" * 8, "(x{0,30}){0,30}y"]})))
    assert time.monotonic() - begin < 10


def test_the_other_filters(daemon: Daemon) -> None:
    first = daemon.create("sh", "-c", "exit 3", name="first", Labels={"a": "1", "b": ""}, HostConfig={"Binds": ["fv:/data"]})
    daemon.ok("POST", f"/containers/{first}/start")
    daemon.ok("POST", f"/containers/{first}/wait")
    second = daemon.create("sleep", "600", name="second", HostConfig={"NetworkMode": "none"})
    daemon.ok("POST", f"/containers/{second}/start")
    daemon.ok("POST", f"/containers/{second}/pause")

    assert names(daemon, label=["a=1", "b"]) == ["first"] and names(daemon, label=["a=2"]) == []
    assert names(daemon, query="", exited=["3"]) == ["first"] and names(daemon, exited=["0"]) == []
    assert names(daemon, query="", status=["exited"]) == ["first"] and names(daemon, query="", status=["paused"]) == ["second"]
    assert names(daemon, before=["second"]) == ["first"] and names(daemon, since=["first"]) == ["second"]
    assert names(daemon, volume=["fv"]) == names(daemon, volume=["/data"]) == ["first"]
    assert names(daemon, network=["none"]) == ["second"] and names(daemon, ancestor=["busybox"]) == ["second", "first"]
    assert names(daemon, ancestor=["nosuch"]) == names(daemon, **{"is-task": ["true"]}) == []
    assert names(daemon, health=["none"]) == ["second", "first"] and names(daemon, id=[first[:12]]) == ["first"]
    assert names(daemon, query="limit=1") == ["second"]
    daemon.ok("POST", f"/containers/{second}/unpause")
    daemon.remove_all()
    daemon.ok("DELETE", "/volumes/fv")


def test_top_takes_ps_s_arguments(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "sleep 600; true")
    daemon.ok("POST", f"/containers/{container}/start")
    full = daemon.ok("GET", f"/containers/{container}/top?ps_args=aux")
    chosen = daemon.ok("GET", f"/containers/{container}/top?ps_args=-eo%20pid,ppid,comm")

    assert full["Titles"][:2] == ["USER", "PID"] and any("sleep 600" in row[-1] for row in full["Processes"])
    assert chosen["Titles"] == ["PID", "PPID", "COMMAND"] and {"sh", "sleep"} <= {row[2] for row in chosen["Processes"]}
    assert daemon.call("GET", f"/containers/{container}/top?ps_args=-Z").status == 400


def test_tail_counts_the_lines_of_both_streams(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "echo out; sleep 0.2; echo err >&2")
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.ok("POST", f"/containers/{container}/wait")

    assert daemon.call("GET", f"/containers/{container}/logs?stdout=1&tail=1").body == b""
    assert daemon.call("GET", f"/containers/{container}/logs?stdout=1&tail=2").body.endswith(b"out\n")
