"""Who may do what on our registry: everybody, users of an htpasswd file, or bearers of tokens that they got for it.

A token is "USER|SCOPES|UNTIL|MAC", in base64url; the key lives as long as the process, so tokens do not outlive it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sampan.errors import InvalidRequest

LIFE = 300  # seconds of a token
MAX_FILE = 1 << 20
_FORGET = 60.0  # seconds that a right password is remembered, so that not every request costs a bcrypt
_WRITES = frozenset(("POST", "PUT", "PATCH", "DELETE"))
Check = Callable[[str, str], bool]  # (password, hash)


class Passwords:
    """The users of an htpasswd file, read again when it changes."""

    def __init__(self, path: Path, check: Check) -> None:
        self._path = path
        self._check = check
        self._stamp = 0
        self._users: dict[str, str] = {}
        self._right: dict[bytes, float] = {}
        self._salt = secrets.token_bytes(16)
        self._mutex = threading.Lock()
        self._read()

    def _read(self) -> None:
        stat = self._path.stat()
        if stat.st_mtime_ns == self._stamp:
            return
        if stat.st_size > MAX_FILE:
            raise InvalidRequest(f"{self._path} is larger than {MAX_FILE} bytes")
        lines = [line.strip() for line in self._path.read_text().splitlines()]
        self._users = dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
        self._stamp = stat.st_mtime_ns
        self._right.clear()

    def remembered(self, user: str, password: str) -> bool:
        """Return whether they were right a moment ago."""
        with self._mutex:
            self._read()
            return self._right.get(self._mark(user, password), 0.0) > time.monotonic()

    def _mark(self, user: str, password: str) -> bytes:
        return hashlib.sha256(self._salt + f"{user}:{self._users.get(user)}:{password}".encode()).digest()

    def right(self, user: str, password: str) -> bool:
        """Return whether user and password belong together.  Blocks: a hash is slow on purpose."""
        with self._mutex:
            self._read()
            stored, mark = self._users.get(user), self._mark(user, password)
        good = self._check(password, stored if stored is not None else "$2y$10$" + "." * 53)
        if not good or stored is None:
            return False
        with self._mutex:
            if len(self._right) > 1000:
                self._right.clear()
            self._right[mark] = time.monotonic() + _FORGET
        return True


class Access:
    """The rule of one registry.  realm: the token service's URL when tokens are wanted, "" for basic authentication."""

    def __init__(self, passwords: Passwords | None, *, tokens: bool = False) -> None:
        self._passwords = passwords
        self.tokens = tokens
        self._key = secrets.token_bytes(32)

    @property
    def open(self) -> bool:
        return self._passwords is None

    def user(self, header: str) -> str | None:
        """Return the user that a Basic header proves; None for none.  Blocks, and costs a hash."""
        user, password = _basic(header)
        return user if user and self._passwords is not None and self._passwords.right(user, password) else None

    def known(self, header: str) -> str | None:
        """Return the user that a Basic header proved a moment ago; None for none, or for who has to prove it (again)."""
        user, password = _basic(header)
        return user if user and self._passwords is not None and self._passwords.remembered(user, password) else None

    def issue(self, user: str, scopes: list[str]) -> str:
        """Return a token for what the user asks: every known user may do everything."""
        text = f"{user}|{' '.join(scopes)}|{int(time.time()) + LIFE}"
        mac = hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
        return base64.urlsafe_b64encode(f"{text}|{mac}".encode()).decode()

    def allowed(self, header: str, method: str, name: str) -> bool | None:
        """Return whether an Authorization header lets this request through; None when `user` has to be asked."""
        if self.open:
            return True
        if not self.tokens:
            return True if self.known(header) else None if header else False
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "bearer" or len(value) > 16384:
            return False
        try:
            text, _, mac = base64.urlsafe_b64decode(value).decode().rpartition("|")
            _, scopes, until = text.rsplit("|", 2)
        except (binascii.Error, ValueError):
            return False
        right = hmac.compare_digest(mac, hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest())
        if not right or int(until) < time.time():
            return False
        return not name or self._covers(scopes.split(" "), wanted_action(method), name)

    @staticmethod
    def _covers(scopes: list[str], action: str, name: str) -> bool:
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            of, _, actions = rest.rpartition(":")
            if kind == "repository" and of == name and (action in actions.split(",") or "*" in actions.split(",")):
                return True
        return False

    def challenge(self, realm: str, method: str, name: str) -> str:
        """Return what WWW-Authenticate asks for."""
        if not self.tokens:
            return 'Basic realm="sampan registry"'
        action = {"pull": "pull", "push": "pull,push", "delete": "delete"}[wanted_action(method)]
        scope = f',scope="repository:{name}:{action}"' if name else ""
        return f'Bearer realm="{realm}",service="sampan-registry"{scope}'


def _basic(header: str) -> tuple[str, str]:
    """Return (user, password) of a Basic header, both empty for another."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic" or len(value) > 4096:
        return "", ""
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password


def wanted_action(method: str) -> str:
    """Return the action that a method needs."""
    if method == "DELETE":
        return "delete"
    return "push" if method in _WRITES else "pull"
