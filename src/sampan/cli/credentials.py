"""Docker's ~/.docker/config.json: credentials for registries, in the file or with a credential helper.

A helper is the program docker-credential-NAME: the server's name or JSON on stdin, JSON on stdout.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from sampan.cli.main import Exit

HUB = "https://index.docker.io/v1/"
_HUB_NAMES = frozenset(("docker.io", "index.docker.io", "registry-1.docker.io"))
_HELPER_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_PATIENCE = 60  # seconds that a helper may take: it may ask the user
TOKEN_USER = "<token>"  # noqa: S105  (a helper's word for "the secret is an identity token")


def folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def registry_of(image: str) -> str:
    """Return the key that an image's registry has in the file: its host, or Docker Hub's address."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost") and first not in _HUB_NAMES:
        return first
    return HUB


def key_of(server: str) -> str:
    """Return the key for what somebody logs in to."""
    host = (server.partition("://")[2] or server).partition("/")[0]
    return HUB if not host or host in _HUB_NAMES else host


class Config:
    """The file, read once; `save` replaces it whole."""

    def __init__(self) -> None:
        self.path = folder() / "config.json"
        try:
            value = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            value = {}
        except (OSError, ValueError, RecursionError) as error:
            raise Exit(1, f"{self.path}: {error}") from None
        if not isinstance(value, dict):
            raise Exit(1, f"{self.path}: an object is needed")
        self._value: dict[str, Any] = value

    def _table(self, name: str) -> dict[str, Any]:
        found = self._value.get(name)
        return found if isinstance(found, dict) else {}

    def helper(self, key: str) -> str:
        """Return the helper for a registry, "" for the file itself."""
        name = str(self._table("credHelpers").get(key) or self._value.get("credsStore") or "")
        if not _HELPER_NAME.issuperset(name):
            raise Exit(1, f"{self.path}: invalid credential helper {name!r}")
        return name

    def every(self) -> dict[str, dict[str, str]]:
        """Return the credentials of every registry that the file names.  Raises Exit."""
        keys = {key_of(str(name)) for name in (*self._table("auths"), *self._table("credHelpers"))}
        return {key: found for key in sorted(keys) if (found := self.get(key))}

    def get(self, key: str) -> dict[str, str]:
        """Return the credentials as the daemon takes them, {} for none.  Raises Exit."""
        helper = self.helper(key)
        if helper:
            return _from_helper(helper, key)
        auths = self._table("auths")
        found = auths.get(key)
        if found is None:  # an entry may have been written with a scheme or a path
            found = next((value for name, value in auths.items() if key_of(str(name)) == key), None)
        if not isinstance(found, dict):
            return {}
        made = {name: str(found[name]) for name in ("identitytoken", "registrytoken") if found.get(name)}
        if found.get("auth"):
            made["username"], made["password"] = _split(str(found["auth"]), key)
        return {**made, "serveraddress": key} if made else {}

    def put(self, key: str, entry: dict[str, str]) -> None:
        """Keep credentials (username, password, identitytoken).  Raises Exit."""
        helper = self.helper(key)
        token = entry.get("identitytoken", "")
        if helper:
            user, secret = (TOKEN_USER, token) if token else (entry.get("username", ""), entry.get("password", ""))
            _call(helper, "store", json.dumps({"ServerURL": key, "Username": user, "Secret": secret}))
            return
        words = f"{entry.get('username', '')}:{'' if token else entry.get('password', '')}"
        made = {"auth": base64.b64encode(words.encode()).decode()}
        if token:
            made["identitytoken"] = token
        self._value["auths"] = {**self._table("auths"), key: made}
        self.save()

    def remove(self, key: str) -> bool:
        """Forget credentials; return whether there were any.  Raises Exit."""
        helper = self.helper(key)
        if helper:
            there = bool(_from_helper(helper, key))
            if there:
                _call(helper, "erase", key)
            return there
        auths = dict(self._table("auths"))
        names = [name for name in auths if name == key or key_of(name) == key]
        for name in names:
            del auths[name]
        if names:
            self._value["auths"] = auths
            self.save()
        return bool(names)

    def save(self) -> None:
        """Replace the file; nobody else can read it."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self.path.resolve() if self.path.is_symlink() else self.path
        number, name = tempfile.mkstemp(prefix=".config-", dir=target.parent)
        try:
            with open(number, "w", encoding="utf-8") as file:
                json.dump(self._value, file, indent="\t")
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise


def _split(text: str, key: str) -> tuple[str, str]:
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise Exit(1, f"invalid auth configuration file: credentials of {key}")
    return user, password.rstrip("\0")


def _call(helper: str, verb: str, given: str) -> tuple[int, str]:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, verb], input=given.encode(), stdout=subprocess.PIPE, timeout=_PATIENCE, check=False)
    except FileNotFoundError:
        raise Exit(1, f"error getting credentials - err: exec: {program!r}: executable file not found in $PATH") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Exit(1, f"error getting credentials - err: {error}") from None
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode and verb != "get":
        raise Exit(1, f"{program} {verb}: {text or f'exit status {done.returncode}'}")
    return done.returncode, text


def _from_helper(helper: str, key: str) -> dict[str, str]:
    code, text = _call(helper, "get", key)
    if code:
        if "credentials not found" in text:
            return {}
        raise Exit(1, f"error getting credentials - err: exit status {code}, out: `{text[:300]}`")
    try:
        value = json.loads(text)
        user, secret = str(value["Username"]), str(value["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Exit(1, f"docker-credential-{helper} get: its answer is no credentials") from None
    if user == TOKEN_USER:
        return {"identitytoken": secret, "serveraddress": key}
    return {"username": user, "password": secret, "serveraddress": key}


def header(image: str) -> str:
    """Return X-Registry-Auth for the registry of `image`: base64url JSON."""
    return base64.urlsafe_b64encode(json.dumps(Config().get(registry_of(image))).encode()).decode()
