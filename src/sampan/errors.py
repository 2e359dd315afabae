"""The kinds of refusal, by what the caller can do about them.

    SampanError
    ├── InvalidRequest     the request itself is wrong; change it
    ├── Unauthorized       credentials are missing or wrong
    ├── Forbidden          understood, and not allowed
    ├── NotFound           no such object
    ├── Conflict           the object's present state forbids it
    ├── NotModified        already as asked
    ├── Unsupported        this host or this engine cannot do it
    ├── Unavailable        not now; later perhaps
    └── Broken             the engine or the host failed; a bug or a fault, not the caller's doing
        └── StepFailed     a step of a container's start failed (step, errno)

A message is lower case without a full stop, names its object and its cause; where Docker's clients
match on the words, Docker's words are kept (api/phrases.py).  HTTP statuses live in api/errors.py only.
"""

from __future__ import annotations

import os


class SampanError(Exception):
    """The root of every refusal; never raised itself."""


class InvalidRequest(SampanError):
    """The request is malformed or contradicts itself."""


class Unauthorized(SampanError):
    """Credentials are missing or were refused."""


class Forbidden(SampanError):
    """The request is understood and never allowed."""


class NotFound(SampanError):
    """The named object does not exist."""


class Conflict(SampanError):
    """The object is in a state that forbids the request."""


class NotModified(SampanError):
    """The object already is as the request wants it."""


class Unsupported(SampanError):
    """This engine, or this host, cannot do what was asked."""


class Unavailable(SampanError):
    """The engine cannot answer now; a later try may succeed."""


class Broken(SampanError):
    """The engine or its host failed; the caller did nothing wrong."""


class StepFailed(Broken):
    """A step of starting a process in a container failed.

    step: the plan step's name, such as "exec" or "mount /proc".
    code: errno, or 0 when the kernel was not asked.
    """

    def __init__(self, step: str, code: int, text: str) -> None:
        reason = text or (os.strerror(code) if code else "failed")
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.code = code
        self.text = text
