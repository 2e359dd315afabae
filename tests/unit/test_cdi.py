"""Device specifications: the YAML they are written in, what they offer by which names, what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sampan.engine.cdi import find
from sampan.errors import InvalidRequest, NotFound
from sampan.oci import yaml

WRITTEN = """---
# of a generator
cdiVersion: "0.6.0"
kind: vendor.com/class   # two words
annotations:
  org.mobyproject.buildkit.device.autoallow: true
containerEdits:
  env:
  - 'SHARED=it''s'
  - "URL=http://x/#y"
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/one
      hostPath: /dev/null
      permissions: rw
    mounts:
    - {"hostPath": "/srv", "containerPath": "/data", "options": ["ro"]}
  name: "1"
- name: two
  annotations:
    org.mobyproject.buildkit.device.class: fast
  containerEdits:
    env: [TWO=2, A=b]
"""


def test_yaml_is_read_as_it_is_written() -> None:
    assert yaml.loads(WRITTEN.encode(), "x") == {
        "cdiVersion": "0.6.0", "kind": "vendor.com/class", "annotations": {"org.mobyproject.buildkit.device.autoallow": True},
        "containerEdits": {"env": ["SHARED=it's", "URL=http://x/#y"]},
        "devices": [
            {"containerEdits": {
                "deviceNodes": [{"path": "/dev/one", "hostPath": "/dev/null", "permissions": "rw"}],
                "mounts": [{"hostPath": "/srv", "containerPath": "/data", "options": ["ro"]}],
            }, "name": "1"},
            {"name": "two", "annotations": {"org.mobyproject.buildkit.device.class": "fast"},
             "containerEdits": {"env": ["TWO=2", "A=b"]}},
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("a", "a"), ("- - 1\n  - 2\n- 3", [[1, 2], 3]), ("a:\nb: ~", {"a": None, "b": None}), ("a: []", {"a": []}),
        ("a: 0x1f\nb: 0o17\nc: 007\nd: 1.5\ne: yes", {"a": 31, "b": 15, "c": "007", "d": "1.5", "e": "yes"}),
        ("'a: b': c", {"a: b": "c"}), ("-\n  a: 1\n-\n", [{"a": 1}, None]), ("a:b", "a:b"),
        ("- a: 1\n  b:\n  - 2", [{"a": 1, "b": [2]}]),
    ],
)  # fmt: skip
def test_yaml_words(text: str, value: object) -> None:
    assert yaml.loads(text.encode(), "x") == value


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1", "a: *x", "a: !!python/object x", "a: |\n  b", "a: 1\na: 2",
        "a: {\"b\": 1, \"b\": 2}", "a: b: c", "a: 'b", "a: \"b",
        "%YAML 1.2\na: 1", "a: 1\n---\nb: 1", "\ta: 1", "a:\n\t- 1", "a: 1\n  b: 2",
        "a: [b, {c: d}]", "a: 'b' c", "[a]: b", "a: {b: c}",
        "- " * 100, "a:\n" + "".join(" " * n + "a:\n" for n in range(1, 100)), "\udcff", "a: @b", "x\ny",
    ],
)  # fmt: skip
def test_p14_what_can_hide_something_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="^x"):
        yaml.loads(text.encode(errors="surrogateescape"), "x")


@pytest.mark.parametrize("text", ["a: " * 100_000, "'" * 300_000, '"\\' * 150_000, "- " * 150_000, "[" * 300_000, ": #" * 100_000])
def test_p15_long_lines_take_no_time(text: str) -> None:
    begun = time.monotonic()
    try:
        yaml.loads(text.encode(), "x")
    except InvalidRequest:
        pass
    assert time.monotonic() - begun < 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.yaml").write_text(WRITTEN)
    return tmp_path


def names(folder: Path, pattern: str) -> list[str]:
    return [one.name for one in find((folder,), pattern)]


def test_devices_are_found_by_name_kind_star_and_group(folder: Path) -> None:
    assert names(folder, "vendor.com/class=two") == ["vendor.com/class=two"]
    assert names(folder, "vendor.com/class") == ["vendor.com/class=1"]
    assert names(folder, "vendor.com/class=*") == ["vendor.com/class=1", "vendor.com/class=two"]
    assert names(folder, "fast") == ["vendor.com/class=two"]
    assert find((folder,), "fast")[0].allowed
    for pattern in ("vendor.com/class=3", "vendor.com/other", "slow", "="):
        with pytest.raises(NotFound, match="unresolvable CDI devices"):
            names(folder, pattern)


def test_a_later_folder_counts_and_a_broken_file_is_told(folder: Path, tmp_path: Path) -> None:
    later = tmp_path / "later"
    later.mkdir()
    spec = {"cdiVersion": "1.0.0", "kind": "vendor.com/class", "devices": [{"name": "two", "containerEdits": {"env": ["NEW=1"]}}]}
    (later / "b.json").write_text(json.dumps(spec))
    (later / "c.json").write_text('{"kind": 7}')
    (later / "d.txt").write_text("no specification")

    assert find((folder, later), "vendor.com/class=two")[0].edits[1].env == ["NEW=1"]
    with pytest.raises(NotFound, match=r"c\.json"):
        find((folder, later), "vendor.com/class=9")


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"hooks": [{"hookName": "createContainer", "path": "/bin/x"}]}, "no program is started"),
        ({"intelRdt": {"closID": "a"}}, "intelRdt"), ({"netDevices": [{"hostInterfaceName": "e"}]}, "netDevices"),
        ({"deviceNodes": [{"path": "/dev/x", "uid": 3}]}, "uid"), ({"env": ["NONE"]}, "variable"),
        ({"mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "tmpfs"}]}, "type tmpfs"),
        ({"mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["bind", "size=1"]}]}, "size=1"),
        ({"newer": []}, "unresolvable"), ({"mounts": [{"hostPath": "/a", "containerPath": "b"}]}, "not absolute"),
        ({"mounts": [{"hostPath": "/a", "containerPath": "/b/../.."}]}, "not absolute"),
    ],
)  # fmt: skip
def test_a_device_is_given_whole_or_not_at_all(tmp_path: Path, edits: dict[str, Any], words: str) -> None:
    spec = {"cdiVersion": "1.0.0", "kind": "v.com/c", "devices": [{"name": "x", "containerEdits": edits}]}
    (tmp_path / "a.json").write_text(json.dumps(spec))

    with pytest.raises((InvalidRequest, NotFound), match=words):
        find((tmp_path,), "v.com/c=x")
