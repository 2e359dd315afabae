"""What the daemon lets builds ask for: the key of docker's daemon.json, and its flag (SECURITY.md row 63)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sampan.build.do_run import body, devices
from sampan.build.image import Built
from sampan.build.options import Options, allowed
from sampan.build.steps import RunOp
from sampan.errors import Forbidden, InvalidRequest, NotFound, Unsupported
from sampan.wire import daemon_file


def read(tmp_path: Path, value: Any) -> dict[str, Any]:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({"builder": value}))
    return daemon_file.read(str(path), must_exist=True)


@pytest.mark.parametrize(
    ("entitlements", "expected"),
    [
        ({}, ["network.host", "device"]), ({"security-insecure": True}, ["network.host", "security.insecure", "device"]),
        ({"network-host": False, "device": False}, []),
        ({"network-host": False, "device": False, "security-insecure": True}, ["security.insecure"]),
    ],
)  # fmt: skip
def test_row_63_the_file_has_dockers_defaults(tmp_path: Path, entitlements: dict[str, bool], expected: list[str]) -> None:
    assert read(tmp_path, {"entitlements": entitlements}) == {"build-allow": expected}


@pytest.mark.parametrize("value", [{"gc": {"enabled": True}}, {"entitlements": []}, {"entitlements": {"insecure": True}}])
def test_what_the_builder_does_not_know_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(Unsupported):
        read(tmp_path, value)


def test_values_are_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        read(tmp_path, {"entitlements": {"security-insecure": "yes"}})
    with pytest.raises(InvalidRequest):
        allowed(["security.lax"])


@pytest.mark.parametrize(
    ("security", "network", "name"), [("insecure", "default", "security.insecure"), ("sandbox", "host", "network.host")]
)
def test_row_63_both_sides_must_allow(security: str, network: str, name: str) -> None:
    op = RunOp(("true",), (), (), "", "/", security=security, network=network)
    for allow, granted in ((frozenset[str](), frozenset({name})), (frozenset({name}), frozenset[str]())):
        with pytest.raises(Forbidden, match=name):
            body(op, Built(), Options(allow=allow, granted=granted))

    made = body(op, Built(), Options(allow=frozenset({name}), granted=frozenset({name})))
    assert (made.host.privileged, made.host.network_mode) == (security == "insecure", "" if network == "default" else network)


@pytest.mark.parametrize("autoallow", [False, True])
def test_row_63_a_device_is_allowed_by_both_sides_or_by_the_host(tmp_path: Path, autoallow: bool) -> None:
    node = {"path": "/dev/n", "hostPath": "/dev/null", "permissions": "r"}
    spec = {
        "cdiVersion": "1.0.0", "kind": "v.com/c", "annotations": {"org.mobyproject.buildkit.device.autoallow": autoallow},
        "containerEdits": {"env": ["A=1"], "additionalGids": [7]},
        "devices": [{"name": "x", "containerEdits": {"deviceNodes": [node]}}],
    }  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps(spec))
    op = RunOp(("true",), ("A=0", "B=2"), (), "", "/", devices=("v.com/c=x", "v.com/c=none"))
    both = Options(allow=frozenset({"device"}), granted=frozenset({"device"}))
    for options in (Options(granted=frozenset({"device"})), Options(allow=frozenset({"device"}))):
        if autoallow:
            assert [one.name for one in devices(op, options, [str(tmp_path)])] == ["v.com/c=x"]
            continue
        with pytest.raises(Forbidden, match="device is not allowed"):
            devices(op, options, [str(tmp_path)])

    made = body(op, Built(), both, devices(op, both, [str(tmp_path)]))
    assert (made.env, made.host.group_add) == (("A=1", "B=2"), ["7"])
    assert made.host.devices is not None
    assert [(one.path_on_host, one.path_in_container, one.cgroup_permissions) for one in made.host.devices] == [
        ("/dev/null", "/dev/n", "r")
    ]
    with pytest.raises(NotFound, match="unresolvable CDI devices v.com/c=none"):
        devices(replace(op, devices=("v.com/c=none,required",)), both, [str(tmp_path)])
