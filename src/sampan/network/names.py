"""/etc/hostname, /etc/hosts and /etc/resolv.conf of a container (caps.md 10), from checked words only.

Whatever goes into these files was validated here: a name is RFC 1123 letters (and `_`, which Docker takes), an
address parses as one; so nothing can carry a newline into them (SECURITY.md row 84).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sampan.errors import InvalidRequest

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_OPTION = _LETTERS | frozenset("-:.")
_FALLBACK = ("8.8.8.8", "8.8.4.4")
_FALLBACK6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")
HOST_NAME_MAX = 64  # __NEW_UTS_LEN, uname(2)
_STUB = "127.0.0.53"
SERVED = "127.0.0.11"
HOST_NAMES = ("host.docker.internal", "host.sampan.internal")

_LOCAL = "127.0.0.1\tlocalhost\n"
_LOCAL6 = (
    "::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


class Resolver(NamedTuple):
    """What a resolv.conf says."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def is_name(text: str, limit: int) -> bool:
    """Return whether `text` is labels of letters, digits, `-` and `_`, at most `limit` characters."""
    labels = text.split(".")
    return 0 < len(text) <= limit and all(
        0 < len(label) <= 63
        and label[0] != "-"
        and label[-1] != "-"
        and all(letter in _LETTERS or letter == "-" for letter in label)
        for label in labels
    )


def check_hostname(text: str) -> str:
    """Return `text` when it can be a host's name (64 bytes at most).  Raises InvalidRequest."""
    if not is_name(text, HOST_NAME_MAX):
        raise InvalidRequest(f"invalid hostname: {text!r}")
    return text


def check_domainname(text: str) -> str:
    """Return `text` when it can be a domain's name (64 bytes at most), "" included.  Raises InvalidRequest."""
    if text and not is_name(text, HOST_NAME_MAX):
        raise InvalidRequest(f"invalid domainname: {text!r}")
    return text


def check_address(text: str) -> str:
    """Return an IP address as it is written.  Raises InvalidRequest."""
    try:
        if "%" in text:  # a scope: anything could follow
            raise ValueError(text)
        ipaddress.ip_address(text)
    except ValueError:
        raise InvalidRequest(f"invalid IP address: {text!r}") from None
    return text


def extra_host(text: str) -> tuple[str, str]:
    """Return (name, address) of an --add-host value `NAME:ADDRESS`; the address may be host-gateway.

    Raises InvalidRequest with Docker's words.
    """
    name, colon, address = text.partition(":")
    if not colon or not is_name(name, 253):
        raise InvalidRequest(f'bad format for add-host: "{text}"')
    if address != "host-gateway":
        if address[:1] == "[" and address[-1:] == "]":
            address = address[1:-1]
        try:
            check_address(address)
        except InvalidRequest:
            raise InvalidRequest(f"invalid IP address in add-host: {address!r}") from None
    return name, address


def check_search(text: str) -> str:
    """Return a --dns-search domain; `.` is none at all.  Raises InvalidRequest."""
    if text != "." and not is_name(text.rstrip("."), 253):
        raise InvalidRequest(f"{text!r} is not a valid domain")
    return text


def check_option(text: str) -> str:
    """Return a --dns-option.  Raises InvalidRequest."""
    if not 0 < len(text) <= 128 or not all(letter in _OPTION for letter in text):
        raise InvalidRequest(f"invalid DNS option: {text!r}")
    return text


def hostname_file(hostname: str) -> bytes:
    """Return /etc/hostname."""
    return f"{check_hostname(hostname)}\n".encode()


def hosts_file(
    hostname: str,
    domainname: str = "",
    addresses: Sequence[str] = (),
    extra: Sequence[str] = (),
    *,
    gateway: str = "",
    ipv6: bool = True,
) -> bytes:
    """Return /etc/hosts.

    addresses: the container's own.  extra: --add-host values.  gateway: what host-gateway stands for.
    Raises InvalidRequest for a bad word, and when host-gateway is asked for and there is none.
    """
    lines = [_LOCAL, _LOCAL6 if ipv6 else ""]
    for value in extra:
        name, address = extra_host(value)
        if address == "host-gateway":
            if not gateway:
                raise InvalidRequest("unable to derive the IP value for host-gateway")
            address = gateway
        lines.append(f"{address}\t{name}\n")
    own = check_hostname(hostname)
    if check_domainname(domainname):
        own = f"{own}.{domainname} {own}"
    lines += [f"{check_address(address)}\t{own}\n" for address in addresses]
    return "".join(lines).encode()


def parse_resolver(content: str) -> Resolver:
    """Return what a host's resolv.conf says; lines that are not understood are passed over (resolv.conf(5))."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in content.splitlines():
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += words[1:]
    return Resolver(tuple(servers), search, tuple(options))


def host_resolver(path: Path = Path("/etc/resolv.conf"), systemd: Path = Path("/run/systemd/resolve/resolv.conf")) -> Resolver:
    """Return the host's resolver, behind systemd-resolved's stub where that is in use; empty when there is no file."""
    try:
        found = parse_resolver(path.read_text(errors="replace"))
        if _STUB in found.servers:
            found = parse_resolver(systemd.read_text(errors="replace"))
    except FileNotFoundError:
        return Resolver()
    return found


def _usable(server: str, ipv6: bool) -> bool:
    try:
        address = ipaddress.ip_address(server.split("%")[0])
    except ValueError:
        return False
    return not address.is_loopback and (address.version == 4 or (ipv6 and "%" not in server))


def resolv_file(host: Resolver, wanted: Resolver = Resolver(), *, ipv6: bool = False, served: bool = False) -> bytes:
    """Return /etc/resolv.conf.

    wanted: --dns, --dns-search and --dns-option, each replacing the host's part.  served: by the answering process at
    127.0.0.11, which asks the servers itself; a name without a dot is asked for as it is (ndots:0).  Raises InvalidRequest.
    """
    servers = [SERVED] if served else [check_address(server) for server in wanted.servers]
    if not servers:
        servers = [server for server in host.servers if _usable(server, ipv6)]
        servers = servers or [*_FALLBACK, *(_FALLBACK6 if ipv6 else ())]
    if wanted.search:
        search = [check_search(name) for name in wanted.search if name != "."]
    else:
        search = [name for name in host.search if is_name(name.rstrip("."), 253)]
    chosen = [check_option(o) for o in wanted.options] or [o for o in host.options if all(c in _OPTION for c in o)]
    if served and not any(option.startswith("ndots:") for option in chosen):
        chosen.append("ndots:0")
    lines = ["# Generated by Sampan; a change made in the container stays until the next start."]
    lines += [f"nameserver {server}" for server in servers]
    lines += [f"search {' '.join(search)}"] if search else []
    lines += [f"options {' '.join(chosen)}"] if chosen else []
    return ("\n".join(lines) + "\n").encode()
