"""Answers made comparable: what differs between any two runs is given a name."""

from __future__ import annotations

import json
import re
from typing import Any

_RULES = (
    (re.compile(r"sha256:[0-9a-f]{64}"), "<image>"), (re.compile(r"\b[0-9a-f]{64}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<short>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"/var/tmp/sampan[a-z]+-[^/\"']+/data"), "<root>"),
    (re.compile(r"(Up|Exited \(\d+\)) (Less than a second|About a minute|\d+ \w+)( ago)?"), r"\1 <while>"),
)  # fmt: skip
NEVER = "0001-01-01T00:00:00Z"
# Fields whose values belong to a run or an engine, not to the answer.
_OWN = {
    "Created", "Pid", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "SandboxID", "SandboxKey", "EndpointID", "Gateway",
    "IPAddress", "IPPrefixLen", "MacAddress", "NetworkID", "GraphDriver", "time", "timeNano", "Runtime", "CgroupnsMode",
    "SizeRootFs", "execDuration", "Driver", "DriverOpts",
}  # fmt: skip


def text(value: str) -> str:
    if value == NEVER:
        return "<never>"
    for pattern, name in _RULES:
        value = pattern.sub(name, value)
    return value


def _lower(message: str) -> str:
    words = message.split(": ")  # every part of a wrapped message may have been a sentence once
    return ": ".join(word[:1].lower() + word[1:] for word in words)


def _out(key: str, value: Any, dropped: frozenset[str]) -> bool:
    return key in dropped or (key == "Error" and value is None)


def normal(value: Any, dropped: frozenset[str] = frozenset()) -> Any:
    """Return a JSON value with names for what is a run's own; keys in `dropped` are left out."""
    if isinstance(value, dict):
        if "message" in value and len(value) == 1:  # since 23.0 messages begin in lower case
            return {"message": _lower(text(str(value["message"])))}
        return {
            text(key): "<own>" if key in _OWN else normal(item, dropped)
            for key, item in value.items()
            if not _out(key, item, dropped)
        }
    if isinstance(value, list):
        if value and isinstance(value[0], dict) and "Destination" in value[0]:  # mounts come in no order
            value = sorted(value, key=lambda one: str(one["Destination"]))
        return [normal(item, dropped) for item in value]
    return text(value) if isinstance(value, str) else value


def body(data: bytes, kind: str, dropped: frozenset[str]) -> Any:
    """Return an answer's body, normalised: JSON, lines of JSON, or text."""
    if not data:
        return ""
    if kind.startswith("application/json"):
        try:
            return normal(json.loads(data), dropped)
        except json.JSONDecodeError:
            return [normal(json.loads(line), dropped) for line in data.splitlines() if line]
    return text(data.decode(errors="replace"))
