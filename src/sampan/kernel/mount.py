"""Mounts: the descriptor-based API (fsopen, fsconfig, fsmount, open_tree, move_mount, mount_setattr) and the classic one.

Sources: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2), mount(2), pivot_root(2),
include/uapi/linux/mount.h.  Flags bear the header's names.
"""

from __future__ import annotations

import ctypes
import errno
import os

from sampan.kernel.calls import bind
from sampan.kernel.fds import Fd

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

_fsopen = bind("fsopen", ctypes.c_char_p, ctypes.c_uint)
_fsconfig = bind("fsconfig", ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
_fsmount = bind("fsmount", ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
_open_tree = bind("open_tree", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_move_mount = bind("move_mount", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_mount_setattr = bind("mount_setattr", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_size_t)
_mount = bind("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = bind("umount2", ctypes.c_char_p, ctypes.c_int)
_pivot_root = bind("pivot_root", ctypes.c_char_p, ctypes.c_char_p)


class Attr:
    """MOUNT_ATTR_*, include/uapi/linux/mount.h."""

    NONE = 0
    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    NOATIME = 0x10
    STRICTATIME = 0x20
    ATIME_MASK = 0x70
    NODIRATIME = 0x80
    IDMAP = 0x100000
    NOSYMFOLLOW = 0x200000


class Propagation:
    """MS_* propagation types, include/uapi/linux/mount.h."""

    UNBINDABLE = 1 << 17
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20


class MS:
    """Flags of the classic mount(2)."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    BIND = 4096
    MOVE = 8192
    REC = 16384
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20


MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_SET_FD, _FSCONFIG_CMD_CREATE = 0, 1, 5, 6


class MountAttributes(ctypes.Structure):
    """struct mount_attr; 32 bytes since Linux 5.12."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


if ctypes.sizeof(MountAttributes) != 32:
    raise ImportError("struct mount_attr is not 32 bytes")


def _explain(context: int, error: OSError, subject: str) -> OSError:
    """Return `error` with the file system context's own message, which says more than errno."""
    try:
        message = os.read(context, 4096)[2:].decode(errors="replace").strip()
    except OSError:
        message = ""
    return OSError(error.errno, f"{error.strerror}: {message}" if message else error.strerror, subject)


class FsContext:
    """A file system being configured: fsopen(2).  Linux 5.2.  Close it after `mount`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._fd = Fd(_fsopen(kind.encode(), 1, subject=kind))  # FSOPEN_CLOEXEC

    def __enter__(self) -> FsContext:
        return self

    def __exit__(self, *_: object) -> None:
        self._fd.close()

    def _configure(self, command: int, key: bytes | None, value: bytes | None, aux: int) -> None:
        try:
            _fsconfig(self._fd.fileno(), command, key, value, aux, subject=self.kind)
        except OSError as error:
            what = f"{self.kind} {os.fsdecode(key or b'')}".rstrip()
            raise _explain(self._fd.fileno(), error, what) from None

    def set_string(self, key: str, value: str) -> None:
        """Set the parameter `key`."""
        self._configure(_FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)

    def set_flag(self, key: str) -> None:
        """Set the valueless parameter `key`."""
        self._configure(_FSCONFIG_SET_FLAG, key.encode(), None, 0)

    def set_fd(self, key: str, fd: int | Fd) -> None:
        """Set the parameter `key` to an open descriptor."""
        self._configure(_FSCONFIG_SET_FD, key.encode(), None, int(fd))

    def mount(self, attributes: int = Attr.NONE) -> Fd:
        """Make the superblock and return it as a detached mount."""
        self._configure(_FSCONFIG_CMD_CREATE, None, None, 0)
        try:
            return Fd(_fsmount(self._fd.fileno(), 1, int(attributes), subject=self.kind))  # FSMOUNT_CLOEXEC
        except OSError as error:
            raise _explain(self._fd.fileno(), error, self.kind) from None


def new_mount(kind: str, options: dict[str, str | None] | None = None, attributes: int = Attr.NONE) -> Fd:
    """Return a fresh, detached mount of file system `kind`.  Linux 5.2, CAP_SYS_ADMIN in the mount namespace."""
    with FsContext(kind) as context:
        for key, value in (options or {}).items():
            if value is None:
                context.set_flag(key)
            else:
                context.set_string(key, value)
        return context.mount(attributes)


def clone_tree(path: str, *, at: int | Fd = AT_FDCWD, recursive: bool = False, follow: bool = True) -> Fd:
    """Return a detached copy of the mount at `path` (open_tree(2) OPEN_TREE_CLONE).  Linux 5.2.

    With an empty `path`, copy the mount that the descriptor `at` is on, rooted at what it refers to.
    """
    flags = 1 | os.O_CLOEXEC  # OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
    if recursive:
        flags |= AT_RECURSIVE
    if not path:
        flags |= AT_EMPTY_PATH
    if not follow:
        flags |= AT_SYMLINK_NOFOLLOW
    return Fd(_open_tree(int(at), os.fsencode(path), flags, subject=path or f"fd {int(at)}"))


def attach(tree: int | Fd, target: str, *, at: int | Fd = AT_FDCWD) -> None:
    """Attach the detached mount `tree` at `target`, or on the descriptor `at` when `target` is empty (move_mount(2))."""
    flags = 0x4 | (0x40 if not target else 0)  # MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH
    _move_mount(int(tree), b"", int(at), os.fsencode(target), flags, subject=target or f"fd {int(at)}")


def set_attributes(
    tree: int | Fd,
    *,
    set_: int = Attr.NONE,
    clear: int = Attr.NONE,
    propagation: int | None = None,
    userns: int | Fd | None = None,
    recursive: bool = False,
    path: str = "",
) -> None:
    """Change a mount's attributes (mount_setattr(2)).  Linux 5.12.  `userns` makes the (detached) mount idmapped."""
    attributes = MountAttributes(
        int(set_ | (Attr.IDMAP if userns is not None else 0)), int(clear), int(propagation or 0),
        0 if userns is None else int(userns),
    )  # fmt: skip
    flags = (AT_RECURSIVE if recursive else 0) | (AT_EMPTY_PATH if not path else 0)
    _mount_setattr(
        int(tree), os.fsencode(path), flags, ctypes.byref(attributes), ctypes.sizeof(attributes),
        subject=path or f"mount fd {int(tree)}",
    )  # fmt: skip


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """The classic mount(2), for what the new API cannot do on older kernels."""
    _mount(
        None if source is None else os.fsencode(source), os.fsencode(target), None if kind is None else kind.encode(),
        int(flags), None if data is None else data.encode(), subject=target,
    )  # fmt: skip


def unmount(target: str, *, detach: bool = False) -> None:
    """umount2(2), never following a symbolic link."""
    _umount2(os.fsencode(target), UMOUNT_NOFOLLOW | (MNT_DETACH if detach else 0), subject=target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _pivot_root(os.fsencode(new_root), os.fsencode(put_old), subject=new_root)


def supports(call: str) -> bool:
    """Return whether the kernel knows the mount call (probed with arguments it must refuse)."""
    probes = {
        "open_tree": lambda: _open_tree(-1, b"", 0),
        "mount_setattr": lambda: _mount_setattr(-1, b"", 0, None, 0),
    }
    try:
        probes[call]()
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True
