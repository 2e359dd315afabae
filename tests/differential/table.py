"""One request to both daemons, and short ways to write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class Step:
    name: str
    method: str
    path: str
    body: Any = None
    keep: str = ""
    dropped: frozenset[str] = frozenset()
    sorted_by: Callable[[Any], Any] | None = None
    compared: bool = True


def filtered(path: str, filters: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}filters={quote(filters)}"


def get(name: str, path: str, **more: Any) -> Step:
    return Step(name, "GET", path, **more)


def post(name: str, path: str, body: Any = None, **more: Any) -> Step:
    return Step(name, "POST", path, body, **more)


def delete(name: str, path: str) -> Step:
    return Step(name, "DELETE", path)


def create(name: str, container: str, **config: Any) -> Step:
    return post(name, f"/containers/create?name={container}", {"Image": "busybox", "Cmd": ["sleep", "600"], **config})
