"""sampan logs: what a container has written, its stdout to ours, its stderr to ours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sampan.cli.main import Exit
from sampan.cli.units import parse_when

if TYPE_CHECKING:
    from sampan.cli.main import Invocation


def when(flag: str, text: str) -> str:
    """A time for the API; `flag` is named in the refusal.  Raises Exit."""
    try:
        return parse_when(text, time.time())
    except (ValueError, OverflowError) as error:
        raise Exit(1, f'invalid value for "{flag}": {error}' if flag else str(error)) from None


def run(call: Invocation) -> int:
    from sampan.cli.session import write

    o = call.options
    found = call.client.containers.logs(
        call.arguments[0], follow=o.follow, since=when("since", o.since), until=when("until", o.until),
        timestamps=o.timestamps, tail=o.tail, details=o.details,
    )  # fmt: skip
    for stream, data in found:
        write(stream, data)
    return 0
