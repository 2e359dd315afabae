"""What a container carries may be larger than a packet: nothing on the way from the daemon to the keeper may depend on it."""

from __future__ import annotations

import json

from support.daemon import Daemon


def test_a_log_that_names_large_labels_is_written_and_the_container_lives(daemon: Daemon) -> None:
    label = "x" * 200_000
    log = {"Type": "json-file", "Config": {"labels": "big"}}
    container = daemon.create(
        "sh", "-c", "echo out; read forever", OpenStdin=True, Labels={"big": label}, HostConfig={"LogConfig": log}
    )
    daemon.ok("POST", f"/containers/{container}/start")
    made = daemon.ok("POST", f"/containers/{container}/exec", {"Cmd": ["true"]})["Id"]
    daemon.ok("POST", f"/exec/{made}/start", {"Detach": False})
    assert daemon.ok("GET", f"/containers/{container}/json")["State"]["Running"]
    (line,) = (daemon.data_root / "containers" / container / f"{container}-json.log").read_text().splitlines()
    assert json.loads(line)["attrs"] == {"big": label}


def test_a_large_environment_reaches_the_program_and_its_execs(daemon: Daemon) -> None:
    value = "y" * 100_000
    code, output = daemon.run("sh", "-c", "echo ${#BIG}", Env=[f"BIG={value}"])
    assert (code, output.strip()) == (0, b"100000")
