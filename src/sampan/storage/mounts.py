"""Overlay mounts as descriptors: nothing is attached in the host's tree.

Facts this file rests on (Linux 6.18, Documentation/filesystems/overlayfs.rst, fsconfig(2)):
- A `lowerdir+` string may be /proc/self/fd/N/path of a detached, idmapped clone; one clone of the folder of all layers
  serves the whole stack.  `lowerdir+` is Linux 6.8; a value set by fsconfig is at most 255 bytes, so older kernels get
  the classic mount(2) with one `lowerdir=` of descriptors.
- A layer on a detached mount is Linux 6.15; overlay's parameters are checked one by one since 6.5.
- Upper and work must be on one mount; idmapped layers are Linux 5.19.
- With an idmapped upper, the thread that makes the superblock needs file system ids that the mapping knows: as host root
  the creation of work/work fails with EOVERFLOW and the overlay silently comes up read-only.
- A part of a detached mount can be cloned since Linux 6.15 too (open_tree(2): EINVAL before).
- metacopy and redirects stay off and unfollowed: an image could carry them as xattrs (SECURITY.md row 45).
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sampan.kernel.calls import kernel_version
from sampan.kernel.caps import set_fs_ids
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.mount import Attr, FsContext, Propagation, attach, clone_tree, mount, new_mount, set_attributes, unmount

_OPTIONS = {"metacopy": "off", "redirect_dir": "nofollow", "index": "off"}
_DETACHED = (6, 15)  # before, clone_private_mount() wants layers in the caller's own mount namespace: EINVAL (CVE-2021-3732)
_CHECKED = (6, 5)  # before, overlay's parameters are gathered unread, and `lowerdir+` is refused only when all is to be made
_STAGES = Path("/run")
_MAX_CLASSIC = 4095  # bytes of mount(2) data: one page


def writable(
    layers: Path, chain: Sequence[str], snapshot: Path, *, uid_base: int | None, userns: int | Fd | None, volatile: bool = False
) -> Fd:
    """Return the overlay of `snapshot`/{upper,work} over the folders `chain` (below `layers`, base first).

    volatile: nothing is flushed, neither when it is asked for inside nor at the end (Linux 5.10), and it can be mounted once.
    """
    with ExitStack() as held:
        lower = held.enter_context(_clone(layers, userns))
        own = held.enter_context(_clone(snapshot, userns))
        held.enter_context(_attached(lower, own))
        if uid_base is not None:
            held.enter_context(set_fs_ids(uid_base, uid_base))
        return _overlay(lower, list(reversed(chain)), (f"{own.path}/upper", f"{own.path}/work"), Attr.NONE, volatile=volatile)


def read_only(folders: Sequence[Path]) -> Fd:
    """Return the overlay of `folders` (top first) without a writable layer."""
    if len(folders) == 1:
        tree = clone_tree(str(folders[0]))
        try:
            set_attributes(tree, set_=Attr.RDONLY)
        except BaseException:
            tree.close()
            raise
        return tree
    return _overlay(None, [str(folder) for folder in folders], None, Attr.RDONLY)


def mapped(layers: Path, chain: Sequence[str], userns: int | Fd) -> Fd:
    """Return the overlay of the folders `chain` (below `layers`, base first), read-only, its owners mapped through `userns`."""
    if len(chain) == 1:
        tree = _clone(layers / chain[0], userns)
        try:
            set_attributes(tree, set_=Attr.RDONLY)
        except BaseException:
            tree.close()
            raise
        return tree
    with _clone(layers, userns) as lower, _attached(lower):
        return _overlay(lower, list(reversed(chain)), None, Attr.RDONLY)


def part(tree: Fd, find: Callable[[Fd], Fd]) -> Fd:
    """Return a part of the detached mount `tree` as a detached mount of its own; what is left of `tree` is good for nothing.

    find: opens the part below the descriptor that it is given.  Raises what `find` raises, OSError.
    """
    if kernel_version() >= _DETACHED:
        with find(tree) as place:
            return clone_tree("", at=place)
    with _attached(tree) as stage, open_fd(stage / "0", os.O_PATH | os.O_DIRECTORY) as top, find(top) as place:
        return clone_tree("", at=place)


def _clone(folder: Path, userns: int | Fd | None) -> Fd:
    tree = clone_tree(str(folder))
    try:
        if userns is not None:
            set_attributes(tree, userns=userns)
    except BaseException:
        tree.close()
        raise
    return tree


@contextmanager
def _attached(*trees: Fd) -> Iterator[Path]:
    """Where the kernel wants attached mounts, attach them for a moment, at the folders 0, 1, ... of what is yielded.

    In a tmpfs of our own, private, so that other mount namespaces see no more than that come and go.
    """
    if kernel_version() >= _DETACHED:
        yield Path()
        return
    with ExitStack() as held:
        stage = _stage(held)
        with new_mount("tmpfs", {"mode": "0700", "size": "64k"}) as tmpfs:
            attach(tmpfs, str(stage))
            held.callback(unmount, str(stage), detach=True)
            set_attributes(tmpfs, propagation=Propagation.PRIVATE)
        for number, tree in enumerate(trees):
            (stage / str(number)).mkdir()
            attach(tree, str(stage / str(number)))
        yield stage


def _stage(held: ExitStack) -> Path:
    """Make a folder to mount on; it goes with `held`."""
    owner = os.getpid()
    place = _STAGES / f"sampan-mount-{owner}-{_birth(owner)}-{secrets.token_hex(8)}"
    place.mkdir(mode=0o700)
    held.callback(place.rmdir)
    return place


def sweep_stages() -> list[str]:
    """Take away the folders that killed processes left mounted; return their names.  Those of living ones stay."""
    gone = []
    for place in _STAGES.glob("sampan-mount-*-*-*"):
        owner, birth = place.name.split("-")[2:4]
        if not owner.isdigit() or _birth(int(owner)) == birth:
            continue
        with suppress(OSError):  # EINVAL: nothing is mounted there
            while True:
                unmount(str(place), detach=True)
        with suppress(OSError):
            place.rmdir()
            gone.append(place.name)
    return gone


def _birth(process: int) -> str:
    """Return when a process began, in ticks since boot, "" when there is none: a number alone may be another's by now."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _overlay(
    base: Fd | None, lowers: Sequence[str], upper: tuple[str, str] | None, attributes: int, *, volatile: bool = False
) -> Fd:
    """Make the mount; `lowers`, top first, are relative to the descriptor `base` when there is one."""
    prefix = f"{base.path}/" if base is not None else ""
    if kernel_version() < _CHECKED:
        return _classic(prefix, lowers, upper, attributes, volatile=volatile)
    with FsContext("overlay") as context:
        try:
            for lower in lowers:
                context.set_string("lowerdir+", prefix + lower)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return _classic(prefix, lowers, upper, attributes, volatile=volatile)
        for key, value in _OPTIONS.items():
            context.set_string(key, value)
        if upper is not None:
            context.set_string("upperdir", upper[0])
            context.set_string("workdir", upper[1])
        if volatile:
            context.set_flag("volatile")
        context.set_string("source", "overlay")
        return context.mount(attributes)


def _classic(prefix: str, lowers: Sequence[str], upper: tuple[str, str] | None, attributes: int, *, volatile: bool) -> Fd:
    """The same by mount(2), for Linux before 6.8: mounted for a moment on a folder of our own, taken, and let go."""
    with ExitStack() as held:
        fds = [held.enter_context(open_fd(prefix + lower, os.O_PATH | os.O_DIRECTORY)) for lower in lowers]
        options = ["lowerdir=" + ":".join(fd.path for fd in fds)]
        options += [f"{key}={value}" for key, value in _OPTIONS.items()]
        options += ["volatile"] if volatile else []
        if upper is not None:
            options += [f"upperdir={upper[0]}", f"workdir={upper[1]}"]
        data = ",".join(options)
        if len(data) > _MAX_CLASSIC:
            raise OSError(errno.E2BIG, f"{len(lowers)} layers are too many for this kernel's mount(2)", "overlay")
        place = _stage(held)
        mount("overlay", str(place), "overlay", data=data)
        held.callback(unmount, str(place), detach=True)
        tree = clone_tree(str(place))
        with ExitStack() as undo:
            undo.callback(tree.close)
            # A mount made below a shared one is shared, and pivot_root(2) takes no such root.
            set_attributes(tree, set_=attributes, propagation=Propagation.PRIVATE)
            undo.pop_all()
        return tree
