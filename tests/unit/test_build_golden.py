"""The language by examples: tests/golden/dockerfile/<case>/ has a Dockerfile and what must come of it.

expected.json:  error (the first line) and at (line:column), or any of config (the given keys of the image's
configuration), history, run (argv of every RUN), plan (the stages that are built), ops (fields of steps), author.
request.json:   target, arguments, labels, platform, contexts; base: the configuration of every image named in FROM.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sampan.build.evaluate import Base, Evaluated, evaluate
from sampan.build.parse import parse
from sampan.build.plan import Plan, plan
from sampan.build.scope import Request
from sampan.build.source import DockerfileError
from sampan.build.steps import RunOp
from sampan.errors import InvalidRequest
from sampan.oci.image import Settings

CASES = sorted((Path(__file__).parent.parent / "golden/dockerfile").iterdir())
BASE = {"Env": ["PATH=/bin"], "Cmd": ["sh"]}


def _solve(folder: Path) -> tuple[Plan, Evaluated]:
    """Evaluate every needed stage in order, as the solver does, and return the target's."""
    wanted: dict[str, Any] = {}
    if (folder / "request.json").exists():
        wanted = json.loads((folder / "request.json").read_text())
    settings = msgspec.convert(wanted.pop("base", BASE), Settings)
    request = Request(**{**wanted, "contexts": frozenset(wanted.get("contexts", ()))})
    made = plan(parse((folder / "Dockerfile").read_bytes()), request)
    done: dict[int, Evaluated] = {}
    for one in made.stages:
        base = Base() if one.base == "scratch" else Base(settings)
        if one.parent is not None:
            base = Base(done[one.parent].settings, done[one.parent].author, done[one.parent].arguments)
        last = one.index == made.target
        done[one.index] = evaluate(one.stage, base, made.outer, request, escape=made.dockerfile.escape, last=last)
    return made, done[made.target]


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_the_language_by_example(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    if "error" in expected:
        with pytest.raises(InvalidRequest) as caught:
            _solve(folder)
        assert str(caught.value).split("\n")[0] == expected["error"]
        if "at" in expected:
            assert isinstance(caught.value, DockerfileError)
            assert f"{caught.value.place.line}:{caught.value.place.column}" == expected["at"]
            assert caught.value.place.text in str(caught.value) or len(caught.value.place.text) > 200
        return
    made, found = _solve(folder)
    config = msgspec.to_builtins(found.settings)
    for key, value in expected.get("config", {}).items():
        assert config.get(key) == value, key
    if "history" in expected:
        assert [step.created_by for step in found.steps] == expected["history"]
    if "plan" in expected:
        assert [one.stage.name for one in made.stages] == expected["plan"]
    if "run" in expected:
        assert [list(step.op.argv) for step in found.steps if isinstance(step.op, RunOp)] == expected["run"]
    if "author" in expected:
        assert found.author == expected["author"]
    ops = [step.op for step in found.steps if step.op is not None]
    for op, fields in zip(ops, expected.get("ops", [None] * len(ops)), strict=True):
        shown = json.loads(msgspec.json.encode(op))
        for key, value in (fields or {}).items():
            if key == "mounts":
                for mount, wanted in zip(shown["mounts"], value, strict=True):
                    assert {name: mount[name] for name in wanted} == wanted
            else:
                assert shown[key] == value, key


def test_there_are_two_hundred_cases_and_a_third_are_errors() -> None:
    errors = sum("error" in json.loads((folder / "expected.json").read_text()) for folder in CASES)
    assert len(CASES) >= 200
    assert errors * 3 >= len(CASES)
