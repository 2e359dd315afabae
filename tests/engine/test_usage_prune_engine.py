"""Disk usage and prunes of a real daemon."""

from __future__ import annotations

import time

from support.daemon import Daemon


def test_df_counts_what_is_there(daemon: Daemon) -> None:
    daemon.ok("POST", "/build/prune?all=true")  # what other tests have built
    container = daemon.create(
        "sh", "-c", "head -c 5000 /dev/zero >/f; head -c 3000 /dev/zero >/v/f", HostConfig={"Binds": ["dfv:/v"]}
    )
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.ok("POST", f"/containers/{container}/wait")
    daemon.ok("POST", "/volumes/create", {"Name": "dfopt", "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}})
    found = daemon.ok("GET", "/system/df")

    image = next(one for one in found["Images"] if "busybox:latest" in one["RepoTags"])
    assert image["Containers"] == 1 and 0 <= image["SharedSize"] <= image["Size"] <= found["LayersSize"]
    shown = next(one for one in found["Containers"] if one["Id"] == container)
    assert 5000 <= shown["SizeRw"] < 6000 and shown["SizeRootFs"] == shown["SizeRw"] + image["Size"]
    volumes = {one["Name"]: one["UsageData"] for one in found["Volumes"]}
    assert volumes["dfv"] == {"Size": 3000, "RefCount": 1} and "dfopt" not in volumes
    assert found["BuildCache"] == []
    assert set(daemon.ok("GET", "/system/df?type=volume")) == {"Volumes"}
    assert daemon.call("GET", "/system/df?type=nonsense").status == 400
    daemon.remove_all()
    for name in ("dfv", "dfopt"):
        daemon.ok("DELETE", f"/volumes/{name}")


def test_container_prune_obeys_its_filters_and_spares_what_runs(daemon: Daemon) -> None:
    running = daemon.create("sleep", "600")
    daemon.ok("POST", f"/containers/{running}/start")
    plain, labelled = daemon.create("true"), daemon.create("true", Labels={"keep": "yes"})
    for filters, gone in (
        ('{"until":["1h"]}', None), ('{"until":["2020-01-01T00:00:00"]}', None), ('{"label":["keep=no"]}', None),
        ('{"label!":["keep"]}', [plain]), ('{"label":["keep"]}', [labelled]), ("", None),
    ):  # fmt: skip
        assert daemon.ok("POST", f"/containers/prune?filters={filters}")["ContainersDeleted"] == gone
    for bad in ('{"until":["zzz"]}', '{"until":["1h","2h"]}', '{"nope":["1"]}'):
        assert daemon.call("POST", f"/containers/prune?filters={bad}").status == 400
    assert [one["Id"] for one in daemon.ok("GET", "/containers/json?all=1")] == [running]


def test_until_takes_those_that_are_older(daemon: Daemon) -> None:
    old = daemon.create("true")
    moment = time.time()
    young = daemon.create("true")

    assert daemon.ok("POST", f'/containers/prune?filters={{"until":["{moment:.6f}"]}}')["ContainersDeleted"] == [old]
    daemon.ok("DELETE", f"/containers/{young}")
