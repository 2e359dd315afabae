"""sampan events: a line for each, as it happens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sampan.cli.logs import when
from sampan.cli.main import Exit
from sampan.cli.table import filters, whole_as_json

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.cli.template_run import Template
    from sampan.wire.system import EventMessage


def run(call: Invocation) -> int:
    o = call.options
    read = _template(o.format) if o.format else None
    whole = whole_as_json(o.format)
    found = call.client.system.events(since=when("", o.since), until=when("", o.until), wanted=filters(o.filter))
    for event in found:
        print(line(event) if read is None else read.execute(_value(event, whole=whole)), flush=True)
    return 0


def _template(form: str) -> Template:
    from sampan.cli.template_lex import TemplateError
    from sampan.cli.template_run import Template

    try:
        return Template("{{json .}}" if form == "json" else form)
    except TemplateError as error:
        raise Exit(64, f"Error parsing format: {error}") from None


def _value(event: EventMessage, *, whole: bool) -> Any:
    """Return what a template sees: the members under Go's names too, unless it prints the whole event as JSON."""
    import msgspec

    from sampan.cli.template_run import typed

    value = msgspec.to_builtins(event)
    if whole:
        return typed(value)
    names = {"status": "Status", "id": "ID", "from": "From", "scope": "Scope", "time": "Time", "timeNano": "TimeNano"}
    return typed({**value, **{name: value[key] for key, name in names.items() if key in value}})


def line(event: EventMessage) -> str:
    """`TIME TYPE ACTION ID (key=value, ...)`, local time with nanoseconds."""
    seconds = time.localtime(event.time_nano // 10**9)
    zone = time.strftime("%z", seconds)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", seconds) + f".{event.time_nano % 10**9:09d}{zone[:3]}:{zone[3:]}"
    stamp = stamp.replace("+00:00", "Z")
    text = f"{stamp} {event.type} {event.action} {event.actor.id}"
    if event.actor.attributes:
        text += " (" + ", ".join(f"{key}={value}" for key, value in sorted(event.actor.attributes.items())) + ")"
    return text
