"""The three files of /etc that the engine writes, in the container's folder on the host."""

from __future__ import annotations

import os
from pathlib import Path

from sampan.engine.containers import legacy_links
from sampan.engine.containers.container import Container
from sampan.kernel.fds import Fd, open_fd
from sampan.network import names
from sampan.network.records import Endpoint

_HOSTS_LIMIT = 1 << 20  # the container may have filled it


def write(container: Container, endpoints: tuple[Endpoint, ...]) -> None:
    """Write hosts, hostname and resolv.conf; with another's network, its files are used.  Raises InvalidRequest, OSError."""
    record, rooms = container.record, container.rooms
    folder = rooms.folder(record.id)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host, config = record.host, record.config
    if host.network_mode.startswith("container:"):
        other = rooms.folder(rooms.index.find(host.network_mode.removeprefix("container:")))
        for name in ("hosts", "hostname", "resolv.conf"):
            if (other / name).exists():
                _put(folder / name, (other / name).read_bytes())
        return
    hostname = config.hostname or os.uname().nodename
    wanted = _resolver(container)
    if host.network_mode == "host" and not (wanted.servers or wanted.search or wanted.options):
        content = Path("/etc/resolv.conf").read_bytes() if Path("/etc/resolv.conf").exists() else b""
    else:
        content = names.resolv_file(names.host_resolver(), wanted, served=any(one.names for one in endpoints))
    gateway = rooms.networks.host_gateway(endpoints)
    addresses = [text for one in endpoints for text in (one.ip, one.ip6) if text]
    _put(folder / "resolv.conf", content)
    _put(folder / "hostname", names.hostname_file(hostname))
    _put(
        folder / "hosts",
        names.hosts_file(hostname, config.domainname, addresses, _hosts(container, gateway), gateway=gateway),
    )


def _resolver(container: Container) -> names.Resolver:
    """Return what the container was given for its resolver, or else the daemon."""
    host, own = container.record.host, container.rooms.networks.defaults
    return names.Resolver(
        tuple(host.dns or own.dns), tuple(host.dns_search or own.dns_search), tuple(host.dns_options or own.dns_opts)
    )


def _hosts(container: Container, gateway: str) -> list[str]:
    """Return the --add-host values, and the host's own names where the host can be reached and nobody says otherwise."""
    host = container.record.host
    made = list(host.extra_hosts or ())
    given = {text.partition(":")[0] for text in made}
    way = "127.0.0.1" if host.network_mode == "host" else gateway
    made += legacy_links.hosts(container.rooms, container.record)
    return [*made, *(f"{name}:{way}" for name in names.HOST_NAMES if way and name not in given)]


def joined(container: Container, endpoint: Endpoint) -> None:
    """A running container came to a network: its address in hosts, and from now on the daemon's names in resolv.conf.

    The files are bind mounts inside: they are changed in place.  What the container wrote into hosts stays.
    """
    record, folder = container.record, container.rooms.folder(container.id)
    hostname = record.config.hostname or os.uname().nodename
    lines = "".join(f"{text}\t{names.check_hostname(hostname)}\n" for text in (endpoint.ip, endpoint.ip6) if text)
    with _open(folder / "hosts", os.O_APPEND) as fd:
        os.write(fd.fileno(), lines.encode())
    if endpoint.names and not any(one.names for one in container.endpoints if one.id != endpoint.id):
        content = names.resolv_file(names.host_resolver(), _resolver(container), served=True)
        with _open(folder / "resolv.conf", 0) as fd:
            os.write(fd.fileno(), content)
            os.ftruncate(fd.fileno(), len(content))  # afterwards: ext4 writes out at once what was emptied (auto_da_alloc)


def forget(container: Container, gone: set[str]) -> None:
    """Take NAME:ADDRESS lines out of a running container's hosts, in place; what it wrote itself stays."""
    wanted = {f"{address}\t{name}" for name, _, address in (text.partition(":") for text in gone)}
    path = container.rooms.folder(container.id) / "hosts"
    with open_fd(str(path), os.O_RDWR | os.O_NOFOLLOW) as fd:
        lines = os.pread(fd.fileno(), _HOSTS_LIMIT, 0).decode(errors="surrogateescape").splitlines(keepends=True)
        kept = "".join(line for line in lines if line.rstrip("\n") not in wanted).encode(errors="surrogateescape")
        os.ftruncate(fd.fileno(), 0)
        os.pwrite(fd.fileno(), kept, 0)


def _open(path: Path, how: int) -> Fd:
    return open_fd(str(path), os.O_WRONLY | os.O_NOFOLLOW | how)


def _put(path: Path, content: bytes) -> None:
    """Replace a file by a new one (0644): the container may have written to the old inode."""
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
    os.rename(temporary, path)
