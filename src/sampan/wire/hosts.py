"""A daemon's address, as `-H` and DOCKER_HOST say it, and the PEM files of either side of a TLS connection."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import InvalidRequest

if TYPE_CHECKING:
    import ssl

UNIX_LIMIT = 107  # bytes of a path in sockaddr_un, less its final zero


@dataclass(frozen=True, slots=True)
class Address:
    """`path` of a unix socket, else `host` and `port`; or `fd`, a listening socket inherited."""

    text: str
    path: str = ""
    host: str = ""
    port: int = 0
    fd: int = -1

    @property
    def loopback(self) -> bool:
        import ipaddress  # the command never asks

        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse(text: str, tls: bool = False) -> Address:
    """Understand `unix:///path`, `tcp://host[:port]`, `fd://N`.  Raises InvalidRequest."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("unix", "tcp", "fd"):
        raise InvalidRequest(f"invalid host {text!r}: unix://PATH or tcp://HOST:PORT is needed")
    if scheme == "unix":
        if not rest.startswith("/") or "\0" in rest or len(os.fsencode(rest)) > UNIX_LIMIT:
            raise InvalidRequest(f"invalid host {text!r}: an absolute path of at most {UNIX_LIMIT} bytes is needed")
        return Address(text, path=rest)
    if scheme == "fd":
        if not (rest.isascii() and rest.isdigit()) or len(rest) > 4:
            raise InvalidRequest(f"invalid host {text!r}: the number of a descriptor is needed")
        return Address(text, fd=int(rest))
    rest = rest.rstrip("/")
    host, colon, port = rest.rpartition(":")
    if not colon or (host.startswith("[") and not host.endswith("]")):
        host, port = rest, ""
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    port = port or ("2376" if tls else "2375")
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        raise InvalidRequest(f"invalid host {text!r}: bad port")
    if not host.isprintable() or any(sign in host for sign in "/?#@ "):
        raise InvalidRequest(f"invalid host {text!r}: bad address")
    return Address(text, host=host, port=int(port))


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: `cert` and `key` of this side, `ca` of who has signed the other's; without `verify` a client takes any server."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: bool = True

    def server(self) -> ssl.SSLContext:
        """With `ca` a client must show a certificate that it signed.  Raises InvalidRequest when a file cannot be used."""
        import ssl  # only who asks for TLS pays for it

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        if self.ca:
            context.verify_mode = ssl.CERT_REQUIRED
        return self._load(context)

    def client(self) -> ssl.SSLContext:
        """Raises InvalidRequest when a file cannot be used."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif not self.ca:
            context.load_default_certs()
        return self._load(context)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        import ssl

        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
            if self.ca and self.verify:
                context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            named = ", ".join(name for name in (self.cert, self.key, self.ca) if name)
            raise InvalidRequest(f"TLS files {named}: {error}") from error
        return context
