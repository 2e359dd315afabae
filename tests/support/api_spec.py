"""Docker's own description of its API (Swagger 2), and requests made from it: sensible ones with something wrong in them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

SPEC = Path(os.environ.get("SAMPAN_API_SPEC", Path(__file__).resolve().parents[3] / "shared/spec/engine-api.yaml"))
HOSTILE: tuple[Any, ...] = (
    None, "", " ", "\0", "a\nb", "..", "../../etc/passwd", "-1", "é€", "\u202e", "x" * 5000, "%s%n", "{}", "[", "$(id)", "0x10",
    "1e3", "٣",
    -1, 0, 2**31, 2**63, 2**64, -(2**63), 10**30, 1.5, 1e308, True, False, [], {}, [[]], {"": None}, [None], {"a": {"b": [1]}},
)  # fmt: skip


def load() -> dict[str, Any]:
    """The document.  FileNotFoundError where it is not."""
    import yaml

    with SPEC.open(encoding="utf-8") as file:
        return dict(yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


@dataclass(frozen=True)
class Case:
    """One request."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path[:300]} {dict(self.headers)} {(self.body or b'')[:600]!r}"


class Maker:
    """Makes cases.  `names` gives the values that something goes by: a parameter's or property's name, in lower case."""

    def __init__(self, spec: dict[str, Any], seed: int, names: Mapping[str, list[Any]], wrong: float = 0.12) -> None:
        self._spec = spec
        self._random = random.Random(seed)
        self._names = names
        self._wrong = wrong

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, methods in self._spec["paths"].items():
            for method, operation in methods.items():
                yield method.upper(), path, operation

    def case(self, method: str, path: str, operation: Mapping[str, Any], prefix: str) -> Case:
        query: list[tuple[str, str]] = []
        headers: dict[str, str] = {}
        body: bytes | None = None
        for one in operation.get("parameters", ()):
            name, where = one["name"], one["in"]
            if where == "path":
                path = path.replace("{" + name + "}", quote(self._text(self._value(one, name)), safe="/:@"))
            elif where == "body":
                body, headers = self._body(one["schema"], headers)
            elif one.get("required") or self._random.random() < 0.4:
                values = self._value(one, name)
                for value in values if one.get("type") == "array" and isinstance(values, list) else [values]:
                    if where == "query":
                        query.append((name, self._text(value)))
                    else:
                        headers[name] = "".join(sign for sign in self._text(value) if " " <= sign <= "~")
        if query:
            path += "?" + urlencode(query)
        return Case(method, prefix + path, body, headers)

    def _body(self, schema: Mapping[str, Any], headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
        if schema.get("type") == "string":  # an archive
            data = self._random.choice([b"", b"x", os.urandom(1000), b"\0" * 10240, b"\x1f\x8b" + bytes(50)])
            return data, {**headers, "Content-Type": "application/x-tar"}
        data = json.dumps(self._schema(schema, "", 0)).encode()
        if self._random.random() < 0.05:
            data = self._random.choice([data[:-1], b"", data + b"}", data.replace(b":", b"::"), b"[" * 10000, b"\xff" + data])
        kind = "application/json" if self._random.random() < 0.97 else "text/plain"
        return data, {**headers, "Content-Type": kind}

    def _value(self, one: Mapping[str, Any], name: str) -> Any:
        if one.get("format") == "json" or name == "filters":
            return json.dumps(self._filters())
        return self._schema(one, name, 0)

    def _filters(self) -> Any:
        keys = ["id", "name", "label", "status", "dangling", "until", "type", "health", "before", "reference", "x"]
        made = {self._random.choice(keys): [self._text(self._leaf("string", ""))] for _ in range(self._random.randrange(3))}
        return made if self._random.random() < 0.9 else self._random.choice(HOSTILE)

    def _schema(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        pick = self._random
        if pick.random() < self._wrong / (1 + depth):
            return pick.choice(HOSTILE)
        if name.lower() in self._names:
            return pick.choice(self._names[name.lower()])
        if "$ref" in schema:
            return self._schema(self._spec["definitions"][schema["$ref"].rpartition("/")[2]], name, depth)
        if "enum" in schema:
            return pick.choice(schema["enum"])
        if "allOf" in schema or "properties" in schema:
            return self._object(schema, depth)
        kind = schema.get("type", "object")
        if kind == "array":
            return [self._schema(schema.get("items", {}), name, depth + 1) for _ in range(pick.randrange(3))]
        if kind == "object":
            inner = schema.get("additionalProperties")
            keys = pick.sample(["a", "80/tcp", "/v", "b.c", "x=y"], pick.randrange(3))
            return {key: self._schema(inner, "", depth + 1) if isinstance(inner, dict) else {} for key in keys}
        if "example" in schema and pick.random() < 0.3:
            return schema["example"]
        return self._leaf(str(kind), name)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for part in schema.get("allOf", ()):
            value = self._schema(part, "", depth)
            made.update(value if isinstance(value, dict) else {})
        for name, inner in schema.get("properties", {}).items():
            if name.lower() in self._names or self._random.random() < 0.25:
                made[name] = self._schema(inner, name, depth + 1)
        return made

    def _leaf(self, kind: str, name: str) -> Any:
        pick = self._random
        if kind == "boolean":
            return pick.random() < 0.5
        if kind in ("integer", "number"):
            return pick.choice([0, 1, 2, 7, 100, 1024, 64 << 20, -1])
        return pick.choice(["", "a", "busybox", "fuzz1", "1", "true", "1700000000", "10.9.8.7", "x:y", "a=b", "no", "default"])

    @staticmethod
    def _text(value: Any) -> str:
        if isinstance(value, bool):
            return "1" if value else "0"
        return value if isinstance(value, str) else json.dumps(value)
