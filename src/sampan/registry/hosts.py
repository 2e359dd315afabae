"""Which hosts hold the images of a registry, and how each is spoken to: mirrors, TLS, certificates, proxies.

Decided by what was configured and by literal addresses only, never by what a name resolves to (SECURITY.md row 51).
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sampan.errors import InvalidRequest

HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"
HUB_NAMES = frozenset((HUB, "index.docker.io", HUB_HOST))
MAX_PEM = 1 << 20  # bytes of one certificate file


@dataclass(frozen=True)
class Settings:
    """The daemon's registry settings.

    mirrors: "https://host" for docker.io, "ghcr.io=https://host" for another registry, asked in this order.
    insecure: host[:port] or CIDR blocks of literal addresses, where TLS is not verified and plain HTTP is accepted.
    certificates: folders that hold <host[:port]>/{*.crt,*.cert,*.key}.
    """

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ("/etc/sampan/certs.d", "/etc/docker/certs.d")
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""


@dataclass(frozen=True)
class Endpoint:
    """A host that serves a registry's images.  schemes: in the order to be tried; domain: the registry's name."""

    domain: str
    host: str
    schemes: tuple[str, ...]
    verify: bool
    mirror: bool = False


@dataclass
class Hosts:
    """The settings, read for one host after the other.  Contexts for TLS are kept once made."""

    settings: Settings
    _contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    def change(self, settings: Settings) -> None:
        """Take other settings from now on; contexts made by the old ones may trust what is no longer to be trusted."""
        self.settings = settings
        self._contexts.clear()

    def described(self) -> dict[str, Any]:
        """Return the settings as /info shows them (RegistryConfig)."""
        blocks = [text for text in self.settings.insecure if _block(text) is not None]
        mirrors = (read_mirror(text) for text in self.settings.mirrors)
        hub = [f"{scheme}://{host}/" for scheme, host, of in mirrors if of in HUB_NAMES]
        named = {
            text: {"Name": text, "Mirrors": [], "Secure": False, "Official": False}
            for text in self.settings.insecure
            if text not in blocks
        }
        official = {"Name": "docker.io", "Mirrors": hub, "Secure": True, "Official": True}
        return {"InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *blocks], "Mirrors": hub,
                "IndexConfigs": {"docker.io": official, **named}}  # fmt: skip

    def endpoints(self, domain: str, *, push: bool = False) -> list[Endpoint]:
        """Return where a registry's images are, mirrors first; pushes go to the registry itself only."""
        found = [] if push else [one for text in self.settings.mirrors if (one := self._mirror(text, domain)) is not None]
        return [*found, self.endpoint(domain, HUB_HOST if domain in HUB_NAMES else domain)]

    def endpoint(self, domain: str, host: str) -> Endpoint:
        insecure = self.is_insecure(host)
        return Endpoint(domain, host, ("https", "http") if insecure else ("https",), not insecure)

    def _mirror(self, text: str, domain: str) -> Endpoint | None:
        scheme, host, of = read_mirror(text)
        if of != domain:
            return None
        insecure = scheme == "http" or self.is_insecure(host)
        return Endpoint(domain, host, (scheme,), not insecure, mirror=True)

    def is_insecure(self, host: str) -> bool:
        """Return whether `host[:port]` needs no verified TLS: it was configured so, or is a literal loopback address.

        "localhost" counts as one: it is dialled as loopback without asking anybody (guard.py).
        """
        name, _ = split_port(host)
        if host in self.settings.insecure or name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        if address.is_loopback:
            return True
        blocks = (_block(text) for text in self.settings.insecure)
        return any(block is not None and address.version == block.version and address in block for block in blocks)

    def context(self, host: str) -> ssl.SSLContext:
        """Return the TLS context for `host[:port]`: the system's roots and what certs.d adds for this host alone.

        Raises InvalidRequest when its files make no sense.
        """
        found = self._contexts.get(host)
        if found is None:
            found = ssl.create_default_context()
            # On since Python 3.13: it refuses authorities that name no key usage, which docker takes.
            found.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if self.is_insecure(host):
                found.check_hostname = False
                found.verify_mode = ssl.CERT_NONE
            for folder in self.settings.certificates:
                _load(found, Path(folder) / host)
            self._contexts[host] = found
        return found

    def proxy(self, scheme: str, host: str) -> str | None:
        """Return the proxy to go through, or None; loopback is never proxied."""
        chosen = self.settings.https_proxy if scheme == "https" else self.settings.http_proxy
        if not chosen:
            return None
        name, port = split_port(host)
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            address = None
        if name == "localhost" or (address is not None and address.is_loopback):
            return None
        for rule in self.settings.no_proxy.split(","):
            if _exempt(rule.strip(), name, port, address):
                return None
        return chosen if "://" in chosen else f"http://{chosen}"


def split_port(host: str) -> tuple[str, str]:
    """Return (name or address without brackets, port or "")."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name, rest.removeprefix(":")
    name, _, port = host.partition(":")
    return name, port


def read_mirror(text: str) -> tuple[str, str, str]:
    """Return (scheme, host, registry it mirrors).  Raises InvalidRequest."""
    domain, equals, url = text.partition("=")
    if not equals or "://" in domain:
        domain, url = HUB, text
    try:
        parts = urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/")
        bad = bad or bool(parts.query or parts.fragment or parts.username or parts.password)
    except ValueError:
        bad = True
    if bad:
        raise InvalidRequest(f"invalid mirror {text[:200]!r}: needed is [REGISTRY=]http(s)://HOST[:PORT]")
    return parts.scheme, parts.netloc, domain


def _block(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text) if "/" in text else None
    except ValueError:
        return None


def _exempt(rule: str, name: str, port: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    """Return whether NO_PROXY's `rule` names the host: "*", an address, a block, a name with or without its subdomains."""
    if not rule:
        return False
    if rule == "*":
        return True
    if address is not None:
        block = _block(rule)
        return str(address) == split_port(rule)[0] or (block is not None and block.version == address.version and address in block)
    wanted, wanted_port = split_port(rule)
    if wanted_port and wanted_port != port:
        return False
    wanted = wanted.removeprefix("*").lower()
    return name == wanted.removeprefix(".") or name.endswith("." + wanted.removeprefix("."))


def _load(context: ssl.SSLContext, folder: Path) -> None:
    """Add the folder's *.crt as authorities, and its *.cert with the *.key beside it as our own identity."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        path = folder / name
        try:
            if path.suffix in (".crt", ".cert", ".key") and path.stat().st_size > MAX_PEM:
                raise InvalidRequest(f"{path} is larger than {MAX_PEM} bytes")
            if path.suffix == ".crt":
                context.load_verify_locations(cafile=path)
            elif path.suffix == ".cert":
                key = path.with_suffix(".key")
                if key.name not in names:
                    raise InvalidRequest(f"missing key {key.name} for client certificate {path}")
                context.load_cert_chain(path, key)
            elif path.suffix == ".key" and path.with_suffix(".cert").name not in names:
                raise InvalidRequest(f"missing client certificate for key {path}")
        except (OSError, ssl.SSLError) as error:
            raise InvalidRequest(f"certificate {path}: {error}") from error
