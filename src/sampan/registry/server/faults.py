"""The registry's refusals, and the checks that make them (distribution-spec, "Error Codes")."""

from __future__ import annotations

import json

from aiohttp import web

from sampan.errors import Broken, Conflict, InvalidRequest, NotFound
from sampan.oci.digest import Digest
from sampan.oci.digest import parse as parse_digest
from sampan.oci.reference import is_path, is_tag

_CODES = {
    "manifest unknown": "MANIFEST_UNKNOWN", "repository name not known to registry": "NAME_UNKNOWN",
    "blob unknown to registry": "BLOB_UNKNOWN", "blob upload unknown to registry": "BLOB_UPLOAD_UNKNOWN",
    "provided digest did not match uploaded content": "DIGEST_INVALID", "invalid digest format": "DIGEST_INVALID",
}  # fmt: skip


class Fault(Exception):
    """An error answer.  headers: beside the body."""

    def __init__(self, status: int, code: str, message: str, detail: object = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers = headers or {}

    def response(self) -> web.Response:
        """Return the specification's error body."""
        body = {"errors": [{"code": self.code, "message": self.message, "detail": self.detail or {}}]}
        return web.Response(
            status=self.status, body=json.dumps(body).encode(), content_type="application/json", headers=self.headers
        )


def fault_of(caught: Exception) -> Fault:
    """Return the answer to what went wrong below."""
    text = str(caught)
    code = next((code for words, code in _CODES.items() if text.startswith(words)), "")
    if isinstance(caught, NotFound):
        return Fault(404, code or "NAME_UNKNOWN", text)
    if isinstance(caught, InvalidRequest):
        return Fault(400, code or "MANIFEST_INVALID", text)
    if isinstance(caught, Conflict):
        return Fault(429, "TOOMANYREQUESTS", text, headers={"Retry-After": "1"})
    return Fault(500, "UNKNOWN", text if isinstance(caught, Broken) else "the registry has a fault of its own")


def split(path: str) -> tuple[str, str, str]:
    """Return (repository, verb, rest) of a path below /v2.  Raises Fault for what cannot be."""
    path = path.strip("/")
    if path in ("", "_catalog"):
        return "", path, ""
    name, found, rest = (path + "/").rpartition("/blobs/uploads/")
    if found:
        return _name(name), "uploads", rest.rstrip("/")
    for verb in ("manifests", "blobs", "referrers", "tags"):
        name, found, rest = path.rpartition(f"/{verb}/")
        if found and (verb != "tags" or rest == "list"):
            return _name(name), verb, rest
    raise Fault(404, "UNSUPPORTED", "no such end-point")


def _name(name: str) -> str:
    if len(name) > 255 or not is_path(name):
        raise Fault(400, "NAME_INVALID", "invalid repository name")
    return name


def reference(text: str) -> str:
    """Return a checked tag or digest.  Raises Fault, InvalidRequest."""
    if ":" in text:
        return parse_digest(text)
    if not is_tag(text):
        raise Fault(404, "MANIFEST_UNKNOWN", "manifest unknown")
    return text


def digest_of(text: str) -> Digest:
    """Return a checked digest.  Raises InvalidRequest."""
    return parse_digest(text)


def number(text: str) -> int:
    """Return a page's size.  Raises Fault."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Fault(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")
    return int(text)
