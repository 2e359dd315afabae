"""Every step's answer is Docker's: status and body, after what is a run's own has been taken out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from normal import body
from steps import DIFFERENT, STEPS
from table import Step

from support.daemon import Answer, Daemon
from support.oracle import Oracle

_JSON = {"Content-Type": "application/json"}
Told = dict[str, tuple[int, Any]]


def _run(daemon: Daemon | Oracle) -> Told:
    told: Told = {}
    values: dict[str, str] = {}
    for step in STEPS:
        path = step.path
        for name, value in values.items():
            path = path.replace("{" + name + "}", value)
        data = step.body if step.body is None or isinstance(step.body, bytes) else json.dumps(step.body).encode()
        answer: Answer = daemon.call(step.method, "/v1.41" + path, data, headers=_JSON if data is not None else {}, timeout=60)
        if step.keep:
            values[step.keep] = answer.json["Id"]
        shown = body(answer.body, answer.headers.get("Content-Type", ""), step.dropped)
        if step.sorted_by is not None and isinstance(shown, list):
            shown = sorted(shown, key=step.sorted_by)
        told[step.name] = (answer.status, shown)
    return told


@pytest.fixture(scope="session")
def answers(sampan: Daemon, oracle: Oracle) -> tuple[Told, Told]:
    return _run(sampan), _run(oracle)


def test_no_two_steps_share_a_name() -> None:
    names = [step.name for step in STEPS]

    assert len(names) == len(set(names)) >= 80
    assert set(DIFFERENT) <= set(names)


@pytest.mark.parametrize("step", [step for step in STEPS if step.compared], ids=lambda step: step.name)
def test_answer(step: Step, answers: tuple[Told, Told]) -> None:
    ours, theirs = answers[0][step.name], answers[1][step.name]
    if theirs[0] == 500 and 400 <= ours[0] < 500:  # what the caller did wrong is the caller's since 23.0; 20.10 said 500
        ours = (500, ours[1])
    if step.name in DIFFERENT:
        assert ours != theirs, f"no longer different: take {step.name} out of DIFFERENT"
        pytest.skip(f"different on purpose: {DIFFERENT[step.name]}")
    assert ours == theirs
