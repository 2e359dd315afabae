"""What only Sampan has: jobs, doctor, explain."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sampan.cli.table import labels, short, show

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.wire.system import Finding

JOBS = [
    ("ID", "JOB ID"),
    ("Name", "JOB"),
    ("Arguments", "ARGUMENTS"),
    ("Started", "STARTED"),
    ("Duration", "DURATION"),
    ("Result", "RESULT"),
]
MARKS = {"ok": ("ok", "32"), "note": ("note", "36"), "warning": ("warning", "33"), "error": ("ERROR", "31")}


def jobs(call: Invocation) -> int:
    o = call.options
    rows = (_job(one, whole=o.no_trunc) for one in call.client.system.jobs(all=o.all))
    show(rows, JOBS, o.format, "*sampan.Job")
    return 0


def _job(one: Any, *, whole: bool) -> dict[str, Any]:
    arguments = labels(one.arguments)
    duration = "-" if one.duration is None else f"{one.duration * 1000:.1f} ms"
    return {
        "ID": one.id, "Name": one.name, "Arguments": arguments if whole else short(arguments, 40), "Started": one.started,
        "Duration": duration, "Result": one.result or "running",
    }  # fmt: skip


def colour(text: str, code: str) -> str:
    """Only a terminal that wants colours gets them."""
    import os

    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def doctor(call: Invocation) -> int:
    """1 when something is wrong."""
    return findings(call, call.client.system.doctor())


def check(call: Invocation) -> int:
    """1 when something is broken, and was not repaired."""
    return findings(call, call.client.system.check(repair=call.options.repair))


def findings(call: Invocation, found: list[Finding]) -> int:
    if call.options.format:
        rows = ({"Level": one.level, "Subject": one.subject, "Text": one.text} for one in found)
        show(
            rows,
            [("Level", "LEVEL"), ("Subject", "SUBJECT"), ("Text", "TEXT")],
            call.options.format,
            "*sampan.Finding",
        )
    else:
        width = max((len(one.subject) for one in found), default=0)
        for one in found:
            word, code = MARKS.get(one.level, (one.level, "0"))
            print(f"{colour(f'{word:<8}', code)} {one.subject:<{width}}  {one.text}")
    return 1 if any(one.level == "error" for one in found) else 0


def explain(call: Invocation) -> int:
    found = call.client.json("GET", f"/sampan/containers/{_segment(call.arguments[0])}/explain")
    if call.options.format:
        from sampan.cli.inspect import render

        print(render(call.options.format, found))
        return 0
    print(f"{found['Name']}  {found['Id']}")
    for section, facts in found["Sections"].items():
        print(f"\n{colour(section.upper(), '1')}")
        width = min(max((len(fact["Name"]) for fact in facts), default=0), 40)
        for fact in facts:
            print(f"  {fact['Name']:<{width}}  {fact['Value']}")
            if fact.get("Command"):
                print(f"  {'':<{width}}  {colour('$ ' + fact['Command'], '2')}")
    return 0


def _segment(ref: str) -> str:
    from sampan.client.api import segment

    return segment(ref)
