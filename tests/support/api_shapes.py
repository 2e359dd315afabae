"""Whether a body is what Docker's own description (Swagger 2) says of it: kinds, enumerations, names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,), "object": (dict,),
}  # fmt: skip

Schema = Mapping[str, Any]


class Shapes:
    """Of one description."""

    def __init__(self, spec: Schema) -> None:
        self._spec = spec

    def of(self, method: str, path: str, status: int) -> Schema | None:
        """Return the schema of an answer; None when it has no body there, or is no answer that the description knows."""
        operation = self._spec["paths"].get(path, {}).get(method.lower(), {})
        found: Schema | None = operation.get("responses", {}).get(status, {}).get("schema")
        return {"$ref": "#/definitions/ErrorResponse"} if status >= 400 and found is None else found

    def faults(self, schema: Schema, value: Any, at: str = "") -> list[str]:
        """Return what is wrong with `value`.  A slice, map or pointer of Go may be null; a plain value only where it says so."""
        schema = self._whole(schema)
        kind = schema.get("type", "object" if "properties" in schema else "")
        if value is None:
            nullable = schema.get("x-nullable") or kind in ("array", "object", "")
            return [] if nullable else [f"{at}: null for a {kind}"]
        if kind and (not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "boolean")):
            return [f"{at}: {value!r} for a {kind}"]
        if "enum" in schema and value not in schema["enum"]:
            return [f"{at}: {value!r} is none of {schema['enum']}"]
        if isinstance(value, list):
            return [
                fault for index, one in enumerate(value) for fault in self.faults(schema.get("items", {}), one, f"{at}[{index}]")
            ]
        return self._members(schema, value, at) if isinstance(value, dict) else []

    def _members(self, schema: Schema, value: Mapping[str, Any], at: str) -> list[str]:
        known, other = schema.get("properties", {}), schema.get("additionalProperties")
        found = [f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, one in value.items():
            inner = known.get(name, other if isinstance(other, dict) else None)
            if inner is not None:
                found += self.faults(inner, one, f"{at}.{name}")
            elif known and not other:
                found.append(f"{at}.{name}: no such member")
        return found

    def _whole(self, schema: Schema) -> Schema:
        """Return it with its references and parts put together."""
        while "$ref" in schema:
            schema = self._spec["definitions"][schema["$ref"].rpartition("/")[2]]
        if "allOf" not in schema:
            return schema
        parts = [self._whole(part) for part in schema["allOf"]]
        parts.append({name: value for name, value in schema.items() if name != "allOf"})
        made: dict[str, Any] = {"properties": {}}
        for part in parts:
            members = {**made["properties"], **part.get("properties", {})}
            made = {**made, **part, "properties": members}
        return made
