"""The root file system around a busybox: folders, accounts, applets; written as one tar, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.files.tar_entry import Entry, Kind
from sampan.files.tar_header import END, header, padding

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FOLDERS = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "lib": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755,
    "sbin": 0o755, "sys": 0o555, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "usr/local": 0o755,
    "usr/local/bin": 0o755, "var": 0o755, "var/log": 0o755, "var/spool": 0o755, "var/tmp": 0o1777, "var/www": 0o755,
}  # fmt: skip
_ACCOUNTS = (
    ("root", 0, "/root", "/bin/sh"), ("daemon", 1, "/usr/sbin", "/bin/false"), ("bin", 2, "/bin", "/bin/false"),
    ("sys", 3, "/dev", "/bin/false"), ("www-data", 33, "/var/www", "/bin/false"), ("nobody", 65534, "/home", "/bin/false"),
)  # fmt: skip
_GROUPS = (("tty", 5), ("disk", 6), ("wheel", 10), ("users", 100))


def busybox_tar(program: bytes, applets: Iterable[str], epoch: int) -> bytes:
    """Return the tar of a root file system with `program` at /bin/busybox and a link to it for each applet's path."""
    files = {
        "bin/busybox": (program, 0o755),
        "etc/passwd": ("".join(f"{n}:x:{i}:{i}:{n}:{home}:{sh}\n" for n, i, home, sh in _ACCOUNTS).encode(), 0o644),
        "etc/group": ("".join(f"{n}:x:{i}:\n" for n, i in (*((a[0], a[1]) for a in _ACCOUNTS), *_GROUPS)).encode(), 0o644),
        "etc/shadow": ("".join(f"{account[0]}:*:::::::\n" for account in _ACCOUNTS).encode(), 0o640),
    }
    links = {path.lstrip("/") for path in applets} - set(files) - set(_FOLDERS)
    links = {path for path in links if path.rpartition("/")[0] in _FOLDERS and ".." not in path}
    out = bytearray()
    for name in sorted({*_FOLDERS, *files, *links}):
        if name in _FOLDERS:
            out += header(Entry(name + "/", Kind.DIRECTORY, mode=_FOLDERS[name], mtime_ns=epoch * 10**9))
        elif name in files:
            content, mode = files[name]
            out += header(Entry(name, Kind.FILE, mode=mode, size=len(content), mtime_ns=epoch * 10**9, stored=len(content)))
            out += content + padding(len(content))
        else:
            out += header(Entry(name, Kind.SYMLINK, mode=0o777, linkname="/bin/busybox", mtime_ns=epoch * 10**9))
    return bytes(out + END)
