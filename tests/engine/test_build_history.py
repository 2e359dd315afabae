"""Builds that were: what is remembered of them, for how long, and what is not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.build import history
from sampan.build.history import MAX_LOG, History, Log, Watched
from sampan.state import State
from support.builds import before, begin, build, until
from support.daemon import Daemon


@pytest.fixture
def clean(daemon: Daemon) -> Iterator[Daemon]:
    daemon.ok("POST", "/build/prune?all=1")  # waits for what is written in the background
    for one in daemon.ok("GET", "/sampan/builds"):
        daemon.ok("DELETE", f"/sampan/builds/{one['Id']}")
    yield daemon
    daemon.ok("POST", "/build/prune?all=1")


def settled(daemon: Daemon, *outcomes: str) -> list[dict[str, Any]]:
    """Return the builds once they have ended so, the newest first."""
    deadline = time.monotonic() + 20
    while True:
        found: list[dict[str, Any]] = daemon.ok("GET", "/sampan/builds")
        if [one["Outcome"] for one in found] == list(outcomes):
            return found
        assert len(found) <= len(outcomes) and time.monotonic() < deadline, found
        os.sched_yield()


def test_builds_are_remembered_with_their_steps_and_words(clean: Daemon) -> None:
    made = build(clean, "FROM busybox\nRUN echo hello\nENV A=1\n", t="remembered").ok
    build(clean, "FROM busybox\nRUN echo hello\nRUN exit 7\n", sampan__explain=1)
    failed, done = settled(clean, "failed", "done")
    details = clean.ok("GET", f"/sampan/builds/{failed['Id'][:6]}")
    clean.restart()

    assert (done["Name"], done["Image"], done["Steps"], done["Cached"]) == ("remembered", made.id, 3, 0)
    assert "returned a non-zero code: 7" in failed["Error"]
    assert [(one["Text"], one["Outcome"]) for one in details["Steps"]] == [
        ("FROM busybox", "done"), ("RUN echo hello", "cached"), ("RUN exit 7", ""),
    ]  # fmt: skip
    assert details["Steps"][2]["Why"] == "it was never built here"
    assert settled(clean, "failed", "done")[1] == done
    said = clean.call("GET", f"/sampan/builds/{done['Id']}/log").body.decode()
    assert said.startswith("Step 1/3 : FROM busybox\n")
    assert "\nhello\n" in said
    assert clean.call("DELETE", f"/sampan/builds/{done['Id']}").status == 204
    assert clean.call("GET", f"/sampan/builds/{done['Id']}").status == 404
    assert [clean.call("GET", f"/sampan/builds/{text}").status for text in ("0", "../x", "zz")] == [400] * 3


@pytest.mark.parametrize("killed", [False, True])
def test_a_build_that_was_given_up_says_so(clean: Daemon, killed: bool) -> None:
    with begin(clean, "FROM busybox\nRUN echo started && sleep 1000\n") as client:
        until(client, b"started\\n")
        (running,) = settled(clean, "running")
        if killed:
            clean.restart()
    (found,) = settled(clean, "interrupted" if killed else "cancelled")

    assert running["Duration"] is None
    assert found["Id"] == running["Id"]


def test_row_71_no_secret_and_no_argument_is_remembered(clean: Daemon) -> None:
    text = (
        "FROM busybox\nARG TOKEN\nRUN --mount=type=secret,id=s,required cat /run/secrets/s > /dev/null; echo $TOKEN > /dev/null\n"
    )
    before(clean, text, {}, {"secrets": {"s": "aHVudGVyMg=="}}, buildargs='{"TOKEN":"hunter3"}').ok
    (found,) = settled(clean, "done")

    kept = clean.call("GET", f"/sampan/builds/{found['Id']}").body + clean.call("GET", f"/sampan/builds/{found['Id']}/log").body
    assert b"hunter" not in kept


def test_an_end_is_told_only_when_it_is_on_the_disk(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was told that a build is done finds it done after kill -9, not interrupted."""
    kept = History(State(tmp_path), tmp_path / "history")
    entry = kept.begin(Watched("x", ""))
    kept.write_begin(entry)
    told = []

    def put(key: str, record: history.BuildRecord, *, volatile: bool = False) -> None:
        told.append(kept.all()[0].outcome)
        plain(key, record, volatile=volatile)

    plain = kept._table.put
    monkeypatch.setattr(kept._table, "put", put)
    kept.end(entry, cancelled=False)

    assert told == ["running"]
    assert [one.outcome for one in kept.all()] == ["done"]


def test_the_oldest_are_forgotten(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    kept = History(State(tmp_path), tmp_path / "history")
    for number in range(5):
        kept.end(kept.begin(Watched(str(number), "")), cancelled=False)

    assert [one.name for one in kept.all()] == ["4", "3", "2"]
    assert len(list((tmp_path / "history").iterdir())) == 3


def test_of_a_long_log_the_begin_and_the_end_are_kept() -> None:
    log = Log()
    log.add("first\n")
    for _ in range(300):
        log.add("x" * 10_000)
    log.add("last\n")
    content = log.content()

    assert content.startswith(b"first\n")
    assert content.endswith(b"last\n")
    assert b"bytes left out]" in content
    assert len(content) < MAX_LOG * 2
