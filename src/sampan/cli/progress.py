"""Progress messages of load, import, pull and bootstrap: lines, and on a terminal a bar for what counts."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

from sampan.cli.units import size
from sampan.wire.images import Progress


def follow(messages: Iterable[Progress], *, quiet: bool = False, file: TextIO | None = None) -> str:
    """Print what the messages say; return the last status.  Raises ApiError for a failure among them."""
    out = sys.stdout if file is None else file
    if out.isatty() and not quiet:
        return _on_terminal(messages, out)
    last = ""
    for one in messages:
        if one.stream and not quiet:
            print(one.stream, end="", file=out, flush=True)
        if one.status:
            last = one.status
            if not quiet and one.progress_detail is None:
                print(f"{one.id}: {one.status}" if one.id else one.status, file=out, flush=True)
    return last


def _on_terminal(messages: Iterable[Progress], out: TextIO) -> str:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    lines: dict[str, str] = {}
    last = ""
    console = Console(file=out, highlight=False, markup=False)
    with Live(Text(""), console=console, transient=False, refresh_per_second=8) as live:
        for one in messages:
            if one.stream:
                live.console.print(one.stream, end="")
            if one.status:
                last = one.status
                if one.id:
                    lines[one.id] = f"{one.id}: {one.status}{_bar(one)}"
                else:
                    live.console.print(one.status)
            live.update(Text("\n".join(lines.values())))
    return last


def _bar(one: Progress) -> str:
    detail = one.progress_detail
    if detail is None or not detail.current:
        return ""
    if not detail.total:
        return f"  {size(detail.current, 4)}"
    full = min(50, 50 * detail.current // detail.total)
    bar = "=" * full + (">" if full < 50 else "")
    return f" [{bar:<51}]  {size(detail.current, 4)}/{size(detail.total, 4)}"
