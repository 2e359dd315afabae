"""Walk a plan: the dull loop.  Runs in the container's init, in its new mount namespace, before the program starts.

Every target is resolved inside the new root with openat2 (RESOLVE_IN_ROOT, no magic links) to a descriptor, created
component by component, and mounted onto that descriptor, never onto a name (SECURITY.md rows 1, 2, 3, 6, 7).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from sampan.errors import StepFailed
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.mount import (
    Attr,
    Propagation,
    attach,
    clone_tree,
    new_mount,
    pivot_root,
    set_attributes,
    unmount,
)  # fmt: skip
from sampan.kernel.paths import Resolve, open_in
from sampan.kernel.pty import open_terminal
from sampan.oci.runtime import Device
from sampan.runtime.mount_options import Options
from sampan.runtime.plan import (
    CgroupMount,
    Console,
    Mask,
    NewMount,
    Node,
    Pivot,
    ReadOnly,
    ReadOnlyRoot,
    ReadyMount,
    Step,
    Symlink,
    TreeMount,
)  # fmt: skip

PLACE = os.O_PATH | os.O_DIRECTORY
_NULL = (1, 3)
_SLAVE_MAJORS = range(136, 144)
_BARE = frozenset({"proc", "sysfs", "mqueue"})  # their mount points may not be symbolic links (row 5)


@dataclass
class Walk:
    """What the steps share: the new root, the descriptors that came with the Task, and what was made on the way."""

    root: Fd
    trees: Mapping[int, Fd]
    in_userns: bool
    own_netns: bool
    controllers: tuple[tuple[str, str], ...]  # (name of the folder, mount options); () means cgroup v2
    terminal: tuple[Fd, Fd] | None = None
    proc: Fd | None = None
    host_null: Fd | None = None
    warnings: list[str] = field(default_factory=list)
    systems: dict[str, Fd] = field(default_factory=dict)  # the mounts of /proc and /sys, by target

    def system_path(self, path: str) -> Fd:
        """Return what `path` is.  In /proc and /sys it is looked up in the mount itself: a name in the image that somebody
        swaps must not hide what is to be masked (row 2).  Raises OSError."""
        for target, mount in self.systems.items():
            if path == target or path.startswith(f"{target}/"):
                return open_in(mount, path[len(target) + 1 :] or ".", os.O_PATH)
        return open_in(self.root, path, os.O_PATH)


def enter(root_tree: Fd, place: str) -> Fd:
    """Cut propagation to the host and attach the root file system at the host folder `place`; return the root."""
    with open_fd("/", PLACE) as slash:
        set_attributes(slash, propagation=Propagation.PRIVATE, recursive=True)
    attach(root_tree, place)
    return open_fd(place, PLACE)


def walk(steps: Sequence[Step], state: Walk) -> None:
    """Take every step in order.  Raises StepFailed naming the step."""
    for step in steps:
        name = describe(step)
        try:
            _WALKERS[type(step)](state, step)
        except OSError as error:
            subject = f"{error.filename}: " if error.filename and str(error.filename) not in name else ""
            raise StepFailed(name, error.errno or 0, f"{subject}{error.strerror}") from None


def describe(step: Step) -> str:
    """Return the step's name for people, such as "mount /proc"."""
    if isinstance(step, NewMount | ReadyMount | TreeMount | CgroupMount):
        return f"mount {step.target}"
    if isinstance(step, Node):
        return f"device {step.device.path}"
    if isinstance(step, Symlink):
        return f"link {step.path}"
    return {
        Console: "console",
        Mask: "mask",
        ReadOnly: "read-only paths",
        ReadOnlyRoot: "read-only root",
        Pivot: "pivot",
    }[type(step)]


def open_target(root: Fd, path: str, *, directory: bool, bare: bool = False) -> Fd:
    """Return the mount point `path` inside `root`, creating what is missing (folders 0755, an empty file 0644).

    bare: the last component may not be a symbolic link.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    current = open_in(root, ".", PLACE)
    for depth in range(1, len(parts) + 1):
        last = depth == len(parts)
        want_directory = directory or not last
        so_far = "/" + "/".join(parts[:depth])
        flags = os.O_PATH | (os.O_DIRECTORY if want_directory else 0)
        try:
            following = open_in(root, so_far, flags | (os.O_NOFOLLOW if bare and last else 0))
        except FileNotFoundError:
            # The parent is a descriptor inside the root, and one name is created in it: no path to race (row 7).
            if want_directory:
                os.mkdir(parts[depth - 1], 0o755, dir_fd=current.fileno())
            else:
                os.close(
                    os.open(
                        parts[depth - 1],
                        os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                        0o644,
                        dir_fd=current.fileno(),
                    )
                )
            following = open_in(current, parts[depth - 1], flags, resolve=Resolve.BENEATH | Resolve.NO_SYMLINKS)
        current.close()
        current = following
    if bare and stat.S_ISLNK(os.fstat(current.fileno()).st_mode):
        current.close()
        raise OSError(errno.ELOOP, f"{path} is a symbolic link in the image", path)
    return current


def _set(tree: Fd, options: Options) -> None:
    if options.set_ or options.clear:
        clear = options.clear | (Attr.ATIME_MASK if options.set_ & Attr.ATIME_MASK else Attr.NONE)
        set_attributes(tree, set_=options.set_, clear=clear & ~Attr.STRICTATIME if not options.set_ & Attr.ATIME_MASK else clear)
    if options.recursive_set:
        set_attributes(tree, set_=options.recursive_set, recursive=True)
    if options.propagation is not None:
        set_attributes(tree, propagation=options.propagation, recursive=options.recursive_propagation)


def _new_mount(state: Walk, step: NewMount) -> None:
    with open_target(state.root, step.target, directory=True, bare=step.kind in _BARE) as target:
        if step.kind == "sysfs" and state.in_userns and not state.own_netns:
            # sysfs can only be mounted by the owner of the network namespace: show the host's, read-only.
            tree = clone_tree("/sys", recursive=True)
            set_attributes(tree, set_=Attr.RDONLY | Attr.NOSUID | Attr.NODEV | Attr.NOEXEC, recursive=True)
        else:
            tree = new_mount(step.kind, dict(step.options.data), step.options.set_)
        attach(tree, "", at=target)
        if step.kind in ("proc", "sysfs"):
            state.systems["/" + step.target.strip("/")] = tree  # closed by execve
        else:
            tree.close()


def _ready_mount(state: Walk, step: ReadyMount) -> None:
    with open_target(state.root, step.target, directory=True, bare=True) as target:
        attach(state.systems[step.target], "", at=target)


def _tree_mount(state: Walk, step: TreeMount) -> None:
    tree = state.trees[step.tree]
    directory = stat.S_ISDIR(os.fstat(tree.fileno()).st_mode)
    with open_target(state.root, step.target, directory=directory) as target:
        _set(tree, step.options)
        attach(tree, "", at=target)


def _cgroup_mount(state: Walk, step: CgroupMount) -> None:
    attributes = step.options.set_
    with open_target(state.root, step.target, directory=True, bare=True) as target:
        if not state.controllers:
            with new_mount("cgroup2", {}, attributes) as tree:
                attach(tree, "", at=target)
            return
        with new_mount("tmpfs", {"mode": "755", "size": "64k"}, attributes & ~Attr.RDONLY) as top:
            attach(top, "", at=target)
            for name, options in state.controllers:
                os.mkdir(name, 0o755, dir_fd=top.fileno())
                words: dict[str, str | None] = {}
                for word in options.split(","):
                    key, equals, value = word.partition("=")
                    words[key] = value if equals else None
                with new_mount("cgroup", words, attributes) as tree, open_in(top, name, os.O_PATH) as place:
                    attach(tree, "", at=place)
            if attributes & Attr.RDONLY:
                set_attributes(top, set_=Attr.RDONLY)


def _node(state: Walk, step: Node) -> None:
    device = step.device
    parent_path, _, name = device.path.rpartition("/")
    with open_target(state.root, parent_path or "/", directory=True) as parent:
        if state.in_userns:
            _bind_node(parent, name, device)
            return
        kind = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[device.type]
        mode = device.file_mode if device.file_mode is not None else 0o666
        # With its mode from the first moment: a chmod afterwards follows what somebody may have put there (rows 6, 35).
        before = os.umask(0)
        os.mknod(name, kind | mode, os.makedev(device.major, device.minor), dir_fd=parent.fileno())
        os.umask(before)
        if device.uid or device.gid:
            os.chown(name, device.uid or 0, device.gid or 0, dir_fd=parent.fileno(), follow_symlinks=False)


def _bind_node(parent: Fd, name: str, device: Device) -> None:
    """In a user namespace mknod is forbidden: bind the host's node, once it is seen to be the right one."""
    source = device.source or device.path
    with open_fd(source, os.O_PATH | os.O_NOFOLLOW) as node:
        check_device(node, source, device.major, device.minor, block=device.type == "b")
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open_fd(name, flags, 0o666, at=parent) as target, clone_tree("", at=node) as tree:
            attach(tree, "", at=target)


def check_device(node: Fd, path: str, major: int, minor: int, *, block: bool = False) -> None:
    """Raise OSError(ENODEV) unless the descriptor is that device node (row 2)."""
    found = os.fstat(node.fileno())
    right_kind = stat.S_ISBLK(found.st_mode) if block else stat.S_ISCHR(found.st_mode)
    if not right_kind or found.st_rdev != os.makedev(major, minor):
        raise OSError(errno.ENODEV, f"{path} is not device {major}:{minor}", path)


def _symlink(state: Walk, step: Symlink) -> None:
    parent_path, _, name = step.path.rpartition("/")
    with open_target(state.root, parent_path, directory=True) as parent:
        try:
            os.symlink(step.points_to, name, dir_fd=parent.fileno())
        except FileExistsError:
            pass


def _console(state: Walk, _: Console) -> None:
    with open_in(state.root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY) as multiplexer:
        master, slave = open_terminal(multiplexer)
    state.terminal = (master, slave)
    if os.major(os.fstat(slave.fileno()).st_rdev) not in _SLAVE_MAJORS:
        raise OSError(errno.ENODEV, "the terminal's other end is not a pty", "/dev/console")
    with open_target(state.root, "/dev/console", directory=False) as target, clone_tree("", at=slave) as tree:
        attach(tree, "", at=target)


def _read_only(state: Walk, step: ReadOnly) -> None:
    for path in step.paths:
        try:
            place = state.system_path(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with place, clone_tree("", at=place, recursive=True) as tree:
            set_attributes(tree, set_=Attr.RDONLY, recursive=True)
            attach(tree, "", at=place)


_NOTHING: dict[str, str | None] = {"size": "0", "nr_inodes": "1"}
_SEALED = Attr.RDONLY | Attr.NOSUID | Attr.NODEV | Attr.NOEXEC


def _mask(state: Walk, step: Mask) -> None:
    """Cover files with the true null device, folders with one empty file system: SECURITY.md row 2.

    The first cover of a kind is attached itself and copied after that: no copy of a detached mount before Linux 6.15.
    """
    with open_fd("/dev/null", os.O_PATH | os.O_NOFOLLOW) as device, clone_tree("", at=device) as null, ExitStack() as held:
        check_device(device, "/dev/null", *_NULL)
        # It is the host's own inode: without a user namespace the container's root could change its mode and times.
        set_attributes(null, set_=Attr.RDONLY | Attr.NOSUID | Attr.NOEXEC)
        attached: dict[bool, Fd] = {}
        for path in step.paths:
            try:
                place = state.system_path(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            with place:
                folder = stat.S_ISDIR(os.fstat(place.fileno()).st_mode)
                if folder in attached:
                    with clone_tree("", at=attached[folder]) as cover:
                        attach(cover, "", at=place)
                    continue
                cover = held.enter_context(new_mount("tmpfs", _NOTHING, _SEALED)) if folder else null
                attach(cover, "", at=place)
                attached[folder] = cover


def _read_only_root(state: Walk, _: ReadOnlyRoot) -> None:
    set_attributes(state.root, set_=Attr.RDONLY)


def _pivot(state: Walk, _: Pivot) -> None:
    os.fchdir(state.root.fileno())
    # The old root ends up stacked over the new one at "."; detaching it there leaves no trace of the host (row 13).
    pivot_root(".", ".")
    unmount(".", detach=True)
    os.chdir("/")


_WALKERS: dict[type[Any], Callable[[Walk, Any], None]] = {
    NewMount: _new_mount, ReadyMount: _ready_mount, TreeMount: _tree_mount, CgroupMount: _cgroup_mount, Node: _node,
    Symlink: _symlink, Console: _console, ReadOnly: _read_only, Mask: _mask, ReadOnlyRoot: _read_only_root, Pivot: _pivot,
}  # fmt: skip
