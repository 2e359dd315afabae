"""What of the host the networks share: a netlink socket, the firewall, the upkeep thread, and changed settings."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from sampan.errors import Conflict
from sampan.kernel import netns, rtnl
from sampan.kernel.fds import Fd, open_fd
from sampan.network.firewall import Firewall
from sampan.network.upkeep import Upkeep
from sampan.state import State, Table

_LOCKS = Path("/run/sampan/bridges")  # by network namespace and name
_DOOMS = 64  # links whose deletion is remembered, before it is waited for


class HostSettings(msgspec.Struct, frozen=True):
    """What of the host this daemon changed: settings as they were, and whether the default bridge is its own."""

    sysctls: dict[str, str] = {}
    made_bridge: bool = False


class Host:
    """One daemon's hold on the host's network.  name: the default bridge's, by which tables and memories are called;
    forwarding: whether the host is to be made to forward (a daemon with --ip-forward=false leaves that to others).

    The namespace that counts as the host's is that of the thread that makes it and calls it.
    """

    def __init__(self, state: State, name: str, *, forwarding: bool = True) -> None:
        self.name = name
        self._forwarding = forwarding
        self._state = state
        self._doomed: Table[str] = Table(state, "network-doomed", str)
        self._dooms = 0
        self._settings: Table[HostSettings] = Table(state, "network-host", HostSettings)
        with ExitStack() as undo:
            self._hold = _hold(name)
            undo.callback(self._hold.close)
            self.route = rtnl.Route()
            undo.callback(self.route.close)
            self.firewall = Firewall(name)
            undo.pop_all()
        self.upkeep: Upkeep | None = None

    def watch(self, restore: Callable[[bool], None], tidy: Callable[[], None]) -> None:
        """Call `restore` (in a thread) whenever somebody takes from the tables (True) or changes FORWARD (False).

        tidy: called in the same thread after links were deleted.
        """
        self.upkeep = Upkeep(self.name, self.firewall.table, self.firewall.port, restore, tidy)

    def sweep(self, link: str) -> None:
        """Delete a link soon; at once when the daemon is ending."""
        if self.upkeep is not None:
            self.upkeep.sweep(link)
        else:
            self.delete(link)

    def delete(self, link: str) -> None:
        """Delete a link; one that is not there is passed over."""
        self.route.talk([rtnl.delete_link(link)], tolerate=frozenset({errno.ENODEV}))

    def doom(self, link: str) -> None:
        """Delete a link soon, and at the next start should the daemon be killed before.

        Deleting a bridge waits for a grace period of the kernel, which whoever removes a network need not.
        """
        self._doomed.put(link, link)
        self._dooms += 1
        self.sweep(link)
        if self._dooms >= _DOOMS and self.upkeep is not None:
            self.upkeep.settle()
            self.forget_doomed()

    def forget_doomed(self) -> None:
        """Delete what an earlier daemon had doomed."""
        with self._state.batch():
            for link, _ in list(self._doomed.items()):
                self.delete(link)
                self._doomed.delete(link)
        self._dooms = 0

    def close(self) -> None:
        self.route.close()
        self.firewall.close()
        with contextlib.suppress(OSError):  # the folders stay while others have something there
            _lock(self.name).unlink()
            _LOCKS.rmdir()
            _LOCKS.parent.rmdir()
        self._hold.close()

    # -- settings ----------------------------------------------------------------------------------------------------

    @property
    def remembered(self) -> HostSettings:
        return self._settings.get(self.name) or HostSettings()

    def remember(self, *, made_bridge: bool) -> None:
        self._settings.put(self.name, msgspec.structs.replace(self.remembered, made_bridge=made_bridge))

    def set(self, name: str, value: str) -> None:
        """Write a setting of the host's (/proc/sys/net/NAME); what it was is remembered first.  Raises OSError."""
        before = netns.read_sysctl(name)
        if before == value:
            return
        known = self.remembered
        if name not in known.sysctls:
            self._settings.put(self.name, msgspec.structs.replace(known, sysctls={**known.sysctls, name: before}))
        netns.write_sysctl(name, value)

    def forward(self) -> None:
        """Let the host forward IPv4."""
        if self._forwarding:
            self.set("ipv4/ip_forward", "1")

    def forward6(self) -> None:
        """Let the host forward IPv6; interfaces that listen to router advertisements go on doing so.

        A forwarding host ignores advertisements where accept_ra is 1 (ip-sysctl.rst), which would cost it its own routes.
        """
        if not self._forwarding or netns.read_sysctl("ipv6/conf/all/forwarding") == "1":
            return
        for link in self.route.links():
            with contextlib.suppress(OSError):
                if link.kind not in ("bridge", "veth") and netns.read_sysctl(f"ipv6/conf/{link.name}/accept_ra") == "1":
                    self.set(f"ipv6/conf/{link.name}/accept_ra", "2")
        self.set("ipv6/conf/all/forwarding", "1")

    def put_back(self) -> None:
        """Put the settings back, unless another bridge may have come to rely on them."""
        if not any(link.kind == "bridge" for link in self.route.links()):
            for name, value in reversed(self.remembered.sysctls.items()):
                with contextlib.suppress(OSError):  # its interface may be gone
                    netns.write_sysctl(name, value)
        self._settings.delete(self.name)


def _hold(name: str) -> Fd:
    """Take a bridge's name in this network namespace, until the file is closed or its process has died.  Raises Conflict.

    Two daemons of one bridge would each take the other's tables for damage and make its own anew, for ever.  Not an abstract
    socket, which containers on the host's network could take or see (row 79).
    """
    while True:
        try:
            _LOCKS.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = open_fd(_lock(name), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        except FileNotFoundError:  # another daemon has just left, and the folder with it
            continue
        try:
            fcntl.flock(held.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            raise Conflict(f"bridge {name} is another daemon's on this host; choose another one with --bridge") from None
        if os.fstat(held.fileno()).st_nlink:
            return held
        held.close()  # its last holder has just removed it


def _lock(name: str) -> Path:
    return _LOCKS / f"{os.stat('/proc/thread-self/ns/net').st_ino}-{name}"
