"""Credentials for a registry as clients send them (X-Registry-Auth; engine-api 1.9), and the hosts they may go to."""

from __future__ import annotations

import base64
import binascii

import msgspec

from sampan.errors import InvalidRequest
from sampan.oci.image import decode
from sampan.registry.hosts import HUB, HUB_NAMES, split_port

MAX_HEADER = 64 << 10
_SHORT = 3  # letters of a second-level label like "co" in example.co.uk


class Credentials(msgspec.Struct, frozen=True, rename="lower"):
    """What to log in with; all empty means anonymous.  server: the registry they are for, "" for whichever is asked."""

    username: str = ""
    password: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""
    serveraddress: str = ""

    def __repr__(self) -> str:  # secrets never reach a log
        return f"Credentials({self.username!r}, for {self.serveraddress!r})"

    @property
    def user(self) -> tuple[str, str]:
        """(user, password), from `auth` when they are not given apart."""
        if self.username or self.password or not self.auth:
            return self.username, self.password
        try:
            name, _, password = base64.b64decode(self.auth, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise InvalidRequest("registry credentials: auth is not base64") from None
        return name, password.rstrip("\0")

    @property
    def anonymous(self) -> bool:
        return not (any(self.user) or self.identitytoken or self.registrytoken)

    def basic(self) -> str:
        """Return the value of an Authorization header."""
        name, password = self.user
        return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()

    def for_domain(self, domain: str) -> Credentials:
        """Return them if they are for this registry, else none at all."""
        if not self.serveraddress:
            return self
        return self if server_name(self.serveraddress) == server_name(domain) else Credentials()


ANONYMOUS = Credentials()


def from_header(value: str) -> Credentials:
    """Return what X-Registry-Auth holds; anonymous when it is empty.  Raises InvalidRequest."""
    if not value:
        return ANONYMOUS
    if len(value) > MAX_HEADER:
        raise InvalidRequest("X-Registry-Auth is too large")
    text = value.strip().replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("X-Registry-Auth is not base64") from None
    return decode(data, Credentials, "X-Registry-Auth") if data.strip() not in (b"", b"null") else ANONYMOUS


def server_name(address: str) -> str:
    """Return a registry's name without scheme and path; all of Docker Hub's names are one."""
    host = address.partition("://")[2] or address
    host = host.partition("/")[0]
    return HUB if host in HUB_NAMES else host


def may_receive(realm: str, registry: str) -> bool:
    """Return whether a registry's credentials may go to the host of its token service (both host[:port]).

    They may when it is the same host (perhaps another port), or another one of the same site: auth.example.org and
    registry.example.org (SECURITY.md row 50).
    """
    one, other = split_port(realm)[0].lower(), split_port(registry)[0].lower()
    if one == other:
        return True
    if one.replace(".", "").isdigit() or ":" in one or ":" in other:
        return False
    return _site(one) is not None and _site(one) == _site(other)


def _site(name: str) -> str | None:
    """Return the part of a name that one owner is likely to have registered; None when it is too short to say."""
    labels = name.rstrip(".").split(".")
    if len(labels) >= 3 and len(labels[-1]) == 2 and len(labels[-2]) <= _SHORT:
        return ".".join(labels[-3:]) if len(labels) > 3 or labels[0] else None
    return ".".join(labels[-2:]) if len(labels) >= 2 else None
