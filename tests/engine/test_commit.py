"""Commit: an image made of what a container changed."""

from __future__ import annotations

import io
import json
import tarfile
import time
from typing import Any
from urllib.parse import quote

from support.daemon import Daemon


def commit(daemon: Daemon, container: str, query: str = "", body: Any = None) -> str:
    return str(daemon.ok("POST", f"/commit?container={container}{query}", body)["Id"])


def ended(daemon: Daemon, command: str, **body: Any) -> str:
    container = daemon.create("sh", "-c", command, **body)
    daemon.ok("POST", f"/containers/{container}/start")
    assert daemon.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 0
    return container


def output(daemon: Daemon, image: str, command: str) -> bytes:
    return daemon.run("sh", "-c", command, image=image)[1]


def test_an_image_made_has_the_files_the_deletions_and_the_owners(daemon: Daemon) -> None:
    container = ended(daemon, "mkdir /d; echo x >/d/f; chown 1000:2000 /d/f; rm /etc/group; rm -rf /usr; mkdir /usr; mkfifo /p")

    image = commit(daemon, container, "&repo=made&tag=1")

    shown = output(daemon, "made:1", "stat -c '%u:%g' /d/f; cat /d/f; ls /usr; ls /etc/group 2>&1; test -p /p && echo pipe")
    assert shown == b"1000:2000\nx\nls: /etc/group: No such file or directory\npipe\n"
    assert daemon.ok("GET", "/images/made:1/json")["Id"] == image


def test_settings_are_the_containers_under_the_bodys_under_the_changes(daemon: Daemon) -> None:
    container = ended(daemon, "true", Env=["A=1", "B=2"], Labels={"own": "1"}, WorkingDir="/tmp", ExposedPorts={"80/tcp": {}})
    changes = "".join(f"&changes={quote(line)}" for line in ("ENV B=3", "LABEL more=2", 'CMD ["id"]'))

    plain = daemon.ok("GET", f"/images/{commit(daemon, container, changes)}/json")["Config"]
    body = {"Env": ["C=4"], "User": "1000", "Labels": {"body": "3"}}
    over = daemon.ok("GET", f"/images/{commit(daemon, container, changes, body)}/json")["Config"]

    assert {"A=1", "B=3"} <= set(plain["Env"]) and plain["Cmd"] == ["id"] and plain["WorkingDir"] == "/tmp"
    assert plain["Labels"] == {"own": "1", "more": "2"} and plain["ExposedPorts"] == {"80/tcp": {}}
    assert {"A=1", "B=3", "C=4"} <= set(over["Env"]) and over["User"] == "1000"
    assert over["Labels"] == {"own": "1", "more": "2", "body": "3"}


def test_history_names_command_author_and_comment(daemon: Daemon) -> None:
    container = ended(daemon, "echo hello >/f")

    image = commit(daemon, container, "&repo=history&author=me&comment=why")

    newest, older = daemon.ok("GET", "/images/history/history")
    assert (newest["Id"], newest["CreatedBy"], newest["Comment"], newest["Size"]) == (image, "sh -c echo hello >/f", "why", 6)
    assert older["Comment"].startswith("Imported")
    found = daemon.ok("GET", "/images/history/json")
    assert found["Author"] == "me" and found["Parent"] == daemon.ok("GET", "/images/busybox/json")["Id"]


def test_nothing_changed_makes_no_layer(daemon: Daemon) -> None:
    container = daemon.create("true")

    image = commit(daemon, container)

    layers = daemon.ok("GET", "/images/busybox/json")["RootFS"]["Layers"]
    assert daemon.ok("GET", f"/images/{image}/json")["RootFS"]["Layers"] == layers
    assert daemon.run("echo", "works", image=image) == (0, b"works\n")


def test_the_layer_holds_what_the_container_did_and_nothing_the_engine_made(daemon: Daemon) -> None:
    container = ended(daemon, "touch /mine", HostConfig={"Binds": ["commitvol:/vol"]})

    commit(daemon, container, "&repo=layer")

    with tarfile.open(fileobj=io.BytesIO(daemon.ok("GET", "/images/layer/get"))) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        layer = archive.extractfile(json.load(manifest)[0]["Layers"][-1])
        assert layer is not None
        with tarfile.open(fileobj=layer) as tar:
            assert {member.name for member in tar} == {"mine", "vol"}


def test_an_image_made_goes_through_save_and_load(daemon: Daemon) -> None:
    commit(daemon, ended(daemon, "echo kept >/f; rm /etc/group"), "&repo=roundtrip")
    before = daemon.ok("GET", "/images/roundtrip/json")["Id"]
    saved = daemon.ok("GET", "/images/roundtrip/get")
    daemon.ok("DELETE", "/images/roundtrip")

    daemon.ok("POST", "/images/load", saved, headers={"Content-Type": "application/x-tar"})

    assert daemon.ok("GET", "/images/roundtrip/json")["Id"] == before
    assert output(daemon, "roundtrip", "cat /f; ls /etc/group 2>/dev/null") == b"kept\n"


def test_a_running_container_stands_still_meanwhile_and_goes_on(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "while :; do echo $((n+=1)) >/n; done")
    daemon.ok("POST", f"/containers/{container}/start")

    image = commit(daemon, container)
    unpaused = commit(daemon, container, "&pause=0")

    state = daemon.ok("GET", f"/containers/{container}/json")["State"]
    filters = quote(json.dumps({"container": [container]}))
    events = daemon.ok("GET", f"/events?since=0&until={time.time():.9f}&filters={filters}")
    actions = [json.loads(line)["Action"] for line in events.splitlines()]
    assert state["Status"] == "running" and image != unpaused
    assert actions[-4:] == ["pause", "unpause", "commit", "commit"]


def test_refusals_leave_nothing(daemon: Daemon) -> None:
    container = daemon.create("true")
    before = {image["Id"] for image in daemon.ok("GET", "/images/json?all=1")}

    for query, status in (
        (f"container={container}&changes={quote('FOO bar')}", 400), (f"container={container}&repo=BAD", 400),
        (f"container={container}&changes={quote('USER')}", 400), ("container=nosuch", 404), ("", 400),
    ):  # fmt: skip
        assert daemon.call("POST", f"/commit?{query}").status == status, query

    assert {image["Id"] for image in daemon.ok("GET", "/images/json?all=1")} == before


def test_docker_s_own_client_commits(daemon: Daemon) -> None:
    container = ended(daemon, "echo x >/f")

    done = daemon.docker("commit", "-a", "me", "-m", "msg", "-c", 'CMD ["cat", "/f"]', container, "cli:1")

    assert done.stdout.decode().strip() == daemon.ok("GET", "/images/cli:1/json")["Id"]
    assert daemon.docker("run", "--rm", "cli:1").stdout == b"x\n"
