"""What goes wrong with a registry, as kinds of refusal, and the words in its answers.

Missing            the registry does not have it (404)
AccessDenied       not without credentials, or not with these (401 after logging in, 403)
WrongCredentials   the user name or the password was refused
Interrupted        the connection broke, or the registry is busy: another try may help
RegistryFailed     everything else that a registry answers or does
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from sampan.errors import Broken, NotFound, Unauthorized, Unavailable

MAX_TEXT = 500
RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))


class Missing(NotFound):
    """The registry does not have what was asked for."""


class AccessDenied(NotFound):
    """The registry does not let us; it may or may not exist."""


class WrongCredentials(Unauthorized):
    """User name, password or token were refused."""


class Interrupted(Unavailable):
    """The transfer broke off; what has arrived is kept.  after: seconds that the registry asks to wait, 0 for none."""

    def __init__(self, text: str, after: float = 0.0) -> None:
        super().__init__(text)
        self.after = after


class RegistryFailed(Broken):
    """The registry answered something that makes no sense, or refused for a reason of its own."""


def shown(url: str) -> str:
    """Return a URL for messages: without its query, which may hold a signature, and without a password."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]
    except ValueError:
        return "an invalid URL"


def words(content: bytes) -> tuple[str, str]:
    """Return (first code, "code: message" of each error) from an error body; empty when it holds none."""
    try:
        rows = json.loads(content)["errors"]
        found = [(str(row.get("code", "")), str(row.get("message", ""))) for row in rows[:8]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""
    texts = [f"{code.lower().replace('_', ' ')}: {message}" if code else message for code, message in found]
    clean = ", ".join(texts)[:MAX_TEXT]
    return (found[0][0] if found else ""), "".join(sign if sign.isprintable() else "?" for sign in clean)


def refusal(status: int, method: str, url: str, content: bytes, authorization: str) -> Exception:
    """Return the exception for an answer of 400 and above."""
    _, text = words(content)
    if status == 404:
        return Missing(text or f"{shown(url)}: not found")
    if status == 401 and not authorization:
        return AccessDenied("no basic auth credentials")
    if status == 401 and authorization.startswith("Basic "):
        return WrongCredentials("unauthorized: incorrect username or password")
    if status in (401, 403):
        return AccessDenied(text or "denied: requested access to the resource is denied")
    if status == 429:
        return RegistryFailed(text or "toomanyrequests: the registry asks to be asked less often")
    return RegistryFailed(f"{text or f'unexpected status {status}'} ({method} {shown(url)})")
