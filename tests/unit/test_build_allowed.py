"""What the daemon lets builds ask for: the key of docker's daemon.json, and its flag (SECURITY.md row 63)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.build.do_run import body
from sampan.build.image import Built
from sampan.build.options import Options, allowed
from sampan.build.steps import RunOp
from sampan.errors import Forbidden, InvalidRequest, Unsupported
from sampan.wire import daemon_file


def read(tmp_path: Path, value: Any) -> dict[str, Any]:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({"builder": value}))
    return daemon_file.read(str(path), must_exist=True)


@pytest.mark.parametrize(
    ("entitlements", "expected"),
    [
        ({}, ["network.host"]), ({"security-insecure": True}, ["network.host", "security.insecure"]),
        ({"network-host": False}, []), ({"network-host": False, "security-insecure": True}, ["security.insecure"]),
    ],
)  # fmt: skip
def test_row_63_the_file_has_dockers_defaults(tmp_path: Path, entitlements: dict[str, bool], expected: list[str]) -> None:
    assert read(tmp_path, {"entitlements": entitlements}) == {"build-allow": expected}


@pytest.mark.parametrize("value", [{"gc": {"enabled": True}}, {"entitlements": []}, {"entitlements": {"device": True}}])
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
