"""A container's mounts: the defaults (caps.md 4), and the user's as detached trees."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from sampan.engine.records import ContainerRecord, Place
from sampan.errors import InvalidRequest
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.mount import clone_tree, set_attributes
from sampan.kernel.paths import Resolve, open_in
from sampan.oci.defaults import PROC, SYS
from sampan.oci.runtime import Mount

log = logging.getLogger("sampan.engine")
ETC = ("/etc/resolv.conf", "/etc/hostname", "/etc/hosts")


def defaults(record: ContainerRecord, *, cgroup_writable: bool) -> list[Mount]:
    """Return the mounts every container has, less those that the user's replace."""
    host = record.host
    shm = host.shm_size or 67108864
    mounts = [
        PROC,
        Mount(destination="/dev", type="tmpfs", options=("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount(
            destination="/dev/pts", type="devpts",
            options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        replace(SYS, options=SYS.options[:-1]) if host.privileged else SYS,
        Mount(
            destination="/sys/fs/cgroup", type="cgroup",
            options=(*(() if cgroup_writable else ("ro",)), "nosuid", "noexec", "nodev"),
        ),
        Mount(destination="/dev/mqueue", type="mqueue", options=("nosuid", "noexec", "nodev")),
    ]  # fmt: skip
    if host.ipc_mode != "none" and not host.ipc_mode.startswith("container:"):  # that one's is lent by its owner
        mounts.append(
            Mount(destination="/dev/shm", type="tmpfs", options=("nosuid", "noexec", "nodev", "mode=1777", f"size={shm}"))
        )
    taken = {place.target for place in record.places}
    return [m for m in mounts if m.destination not in taken and not ("/dev" in taken and m.destination.startswith("/dev/"))]


def places(
    record: ContainerRecord, etc: Path, userns: Fd | None, trees: list[Fd], image: Callable[[Place, Fd | None], Fd]
) -> list[Mount]:
    """Return the user's mounts and the three files of /etc; their trees are appended to `trees`, whose owner closes them.

    image: gives the tree of a place of that kind.
    Raises InvalidRequest or OSError.
    """
    made = []
    for place in sorted(record.places, key=lambda p: len([part for part in p.target.split("/") if part])):
        if place.kind == "tmpfs":
            made.append(Mount(destination=place.target, type="tmpfs", options=place.options))
            continue
        tree = image(place, userns) if place.kind == "image" else source_tree(place, userns)
        trees.append(tree)
        options = ["rprivate" if not place.propagation else place.propagation]
        if place.readonly:
            options.append("rro" if place.recursive and place.recursive_readonly else "ro")
        made.append(Mount(destination=place.target, source=place.source, options=tuple(options), tree=len(trees) - 1))
    taken = {place.target for place in record.places}
    for target in ETC:
        name = target.rpartition("/")[2]
        if target not in taken and (etc / name).exists():
            with open_fd(etc / name, os.O_PATH | os.O_NOFOLLOW) as file:
                tree = clone_tree("", at=file)
            trees.append(tree)
            if userns is not None:
                set_attributes(tree, userns=userns)
            options = ["rprivate", "ro"] if record.host.readonly_rootfs else ["rprivate"]
            made.append(Mount(destination=target, source=str(etc / name), options=tuple(options), tree=len(trees) - 1))
    return made


def _open_source(place: Place) -> Fd:
    """Open what is to be mounted; a subpath cannot leave its volume (CVE-2023-25173, row 6)."""
    if not place.subpath:
        return open_fd(place.source, os.O_PATH)
    try:
        with open_fd(place.source, os.O_PATH | os.O_DIRECTORY) as volume:
            return open_in(volume, place.subpath, os.O_PATH, resolve=Resolve.BENEATH | Resolve.NO_MAGICLINKS)
    except OSError as error:
        raise InvalidRequest(f"cannot access path {place.source}/{place.subpath}: {(error.strerror or '').lower()}") from None


def source_tree(place: Place, userns: Fd | None) -> Fd:
    """Return a host folder or file as a detached mount, mapped through `userns` where its file system can be."""
    try:
        with _open_source(place) as source:
            kind = os.fstat(source.fileno()).st_mode
            recursive = place.recursive and stat.S_ISDIR(kind)
            tree = clone_tree("", at=source, recursive=recursive)
    except OSError as error:
        raise InvalidRequest(f"mount source {place.source!r}: {error.strerror}") from None
    if userns is None:
        return tree
    try:
        set_attributes(tree, userns=userns, recursive=recursive)
        return tree
    except OSError as error:
        # A file system that cannot be mapped (or holds such a mount): the container sees its owners as nobody.
        log.warning("mount %s cannot be mapped into the container's ids: %s", place.source, error.strerror)
        return tree
