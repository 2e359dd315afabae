"""sampan builder history: builds that were, the steps of one, what it said."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sampan.cli.main import Exit
from sampan.cli.table import show
from sampan.cli.units import ago, parse_time

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.wire.builds import BuildStep, BuildSummary

COLUMNS = [("ID", "BUILD ID"), ("Name", "NAME"), ("Outcome", "OUTCOME"), ("Steps", "STEPS"), ("Cached", "CACHED"),
           ("Created", "CREATED"), ("Duration", "DURATION"), ("Image", "IMAGE ID")]  # fmt: skip
STEPS = [("Number", "STEP"), ("Outcome", "OUTCOME"), ("Duration", "DURATION"), ("Text", "INSTRUCTION")]


def history(call: Invocation) -> int:
    o, builder = call.options, call.client.builder
    if not call.arguments:
        if o.log or o.rm:
            raise Exit(125, "--log and --rm are for one build: give its id")
        show((_row(one) for one in builder.builds()), COLUMNS, o.format, "*sampan.Build")
        return 0
    build = call.arguments[0]
    if o.log:
        sys.stdout.write(builder.said(build))
    elif o.rm:
        builder.forget(build)
        print(build)
    else:
        found = builder.inspect(build)
        if o.format:
            show([_row(found.summary)], COLUMNS, o.format, "*sampan.Build")
            return 0
        one = found.summary
        print(f"{one.id}  {one.name}  {one.outcome}  {one.started}" + (f"\n{one.error}" if one.error else "") + "\n")
        show((_step(number, step) for number, step in enumerate(found.steps, 1)), STEPS)
    return 0


def _row(one: BuildSummary) -> dict[str, Any]:
    import time

    return {
        "ID": one.id[:12], "Name": one.name, "Target": one.target, "Outcome": one.outcome, "Steps": str(one.steps),
        "Cached": str(one.cached), "Created": ago(time.time() - parse_time(one.started) / 1e9) + " ago",
        "Duration": _seconds(one.duration), "Image": one.image.removeprefix("sha256:")[:12], "Error": one.error,
    }  # fmt: skip


def _step(number: int, one: BuildStep) -> dict[str, Any]:
    text = one.text + (f"  ({one.why})" if one.why else "")
    return {"Number": str(number), "Outcome": one.outcome or "-", "Duration": _seconds(one.duration), "Text": text}


def _seconds(duration: float | None) -> str:
    return "-" if duration is None else f"{duration:.1f}s"
