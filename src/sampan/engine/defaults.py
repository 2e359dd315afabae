"""What the daemon gives containers that do not say (dockerd's --default-ulimit, --no-new-privileges and the like).

Modes and sizes go into the record at create and are seen in inspect; the rest is put in at each start and is not, as with Docker.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec.structs import replace

from sampan.engine import spec_resources, spec_security
from sampan.errors import InvalidRequest
from sampan.wire import containers as c

_PROFILE_LIMIT = 1 << 20


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    log: c.LogConfig = msgspec.field(default_factory=lambda: c.LogConfig(type="json-file"))
    init: bool = False
    ulimits: tuple[c.Ulimit, ...] = ()
    shm_size: int = 64 << 20
    ipc_mode: str = "private"
    cgroupns_mode: str = "private"
    stop_timeout: int = 10
    no_new_privileges: bool = False
    seccomp: str = ""  # "", "unconfined", or a profile's text

    def at_create(self, host: c.HostConfig) -> c.HostConfig:
        """Return what a new container's record says."""
        return replace(
            host, shm_size=host.shm_size or self.shm_size, ipc_mode=host.ipc_mode or self.ipc_mode,
            cgroupns_mode=host.cgroupns_mode or self.cgroupns_mode,
        )  # fmt: skip

    def at_start(self, host: c.HostConfig) -> c.HostConfig:
        """Return what a container runs with."""
        if self == _PLAIN:
            return host
        own = {one.name.lower() for one in host.ulimits or ()}
        limits = [*(host.ulimits or ()), *(one for one in self.ulimits if one.name not in own)]
        options = list(host.security_opt or ())
        named = {option.replace(":", "=").partition("=")[0] for option in options}
        if self.no_new_privileges and "no-new-privileges" not in named:
            options.append("no-new-privileges")
        if self.seccomp and "seccomp" not in named and not host.privileged:
            options.append(f"seccomp={self.seccomp}")
        return replace(host, ulimits=limits or host.ulimits, security_opt=options or host.security_opt)


_PLAIN = Defaults()


def checked(made: Defaults) -> Defaults:
    """Return them when a container could have them.  Raises InvalidRequest."""
    if made.ipc_mode not in ("private", "shareable"):
        raise InvalidRequest(f'default-ipc-mode: IPC mode "{made.ipc_mode[:32]}" is neither private nor shareable')
    if made.cgroupns_mode not in ("private", "host"):
        raise InvalidRequest(f'default-cgroupns-mode: "{made.cgroupns_mode[:32]}" is neither private nor host')
    if made.shm_size <= 0:
        raise InvalidRequest("default-shm-size: more than nothing is needed")
    if made.stop_timeout < -1:
        raise InvalidRequest(f"default-stop-timeout: {made.stop_timeout} is less than -1")
    host = made.at_start(c.HostConfig())
    spec_resources.rlimits(host)
    spec_security.Options(host).filter(spec_security.DEFAULT_CAPABILITIES)
    return made


def ulimit(text: str) -> c.Ulimit:
    """Read "nofile=1024[:2048]".  Raises InvalidRequest."""
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    try:
        return c.Ulimit(name=name.lower(), soft=int(soft), hard=int(hard or soft))
    except ValueError:
        raise InvalidRequest(f"default-ulimit: {text[:64]!r} is not NAME=SOFT[:HARD]") from None


def profile(path: str) -> str:
    """Return --seccomp-profile's text: "", "unconfined", or what the file says.  Raises InvalidRequest."""
    if path in ("", "builtin", "unconfined"):
        return path.removeprefix("builtin")
    try:
        fd = os.open(Path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, encoding="utf-8") as file:
            return file.read(_PROFILE_LIMIT)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"seccomp-profile: opening seccomp profile ({path}) failed: {error}") from None
