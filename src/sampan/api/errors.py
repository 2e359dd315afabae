"""Kinds of refusal to HTTP statuses: the only place that knows both."""

from __future__ import annotations

import errno

import msgspec

from sampan import errors
from sampan.api import phrases

STATUS: dict[type[BaseException], int] = {
    errors.NotModified: 304,
    errors.InvalidRequest: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Broken: 500,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
}

# What execve(2) says about the program the caller named: the caller's mistake, though it shows late.
CALLERS_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


def status_of(error: BaseException) -> int:
    """Return the status of the nearest kind `error` descends from, else 500."""
    if isinstance(error, errors.StepFailed) and error.step.startswith("exec") and error.code in CALLERS_PROGRAM:
        return STATUS[errors.InvalidRequest]
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def message_of(error: BaseException) -> str:
    """The text a client may see: a refusal's own words, never a traceback."""
    if isinstance(error, errors.StepFailed):
        return phrases.start_failed(error.step, error.code, str(error))
    if isinstance(error, errors.SampanError):
        return str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        subject = f" {error.filename!r}" if error.filename is not None else ""
        return f"{error.strerror}{subject}"
    return f"internal error: {type(error).__name__}"


def body_of(message: str) -> bytes:
    """`{"message": ...}` and a newline; text that is not Unicode is escaped, not refused."""
    text = message.encode("utf-8", "backslashreplace").decode()
    return msgspec.json.encode({"message": text}) + b"\n"
