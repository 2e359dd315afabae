"""A minimal Debian or Ubuntu from the distribution's own archive, as the tar of a root file system.

The archive is the one that this host's apt is configured to use for that distribution: its mirror, its keyring.  The work is
mmdebstrap's, or debootstrap's where that is what there is; both verify what they download.  debootstrap writes the host's
names, logs and the time of day into what it makes; that is taken out again, so that the same packages give the same tar.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sampan.engine.images.host import Stream
from sampan.errors import Broken, Unsupported
from sampan.files.digests import Readable
from sampan.files.tar_write import tree_tar
from sampan.kernel.fds import open_fd

DISTRIBUTIONS = ("debian", "ubuntu")
SUITE = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_POCKETS = ("", "-updates", "-security")
_EMPTIED = ("dev", "proc", "sys", "run", "tmp", "var/tmp", "var/log", "var/cache/apt", "var/lib/apt/lists", "debootstrap")
_REMOVED = (
    "etc/hostname", "etc/resolv.conf", "etc/machine-id", "etc/.pwd.lock", "etc/passwd-", "etc/group-", "etc/shadow-",
    "etc/gshadow-", "etc/subuid-", "etc/subgid-", "var/cache/ldconfig/aux-cache", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/status-old", "var/lib/dpkg/available", "var/lib/dpkg/diversions-old", "var/lib/dpkg/statoverride-old",
    "var/cache/debconf/config.dat-old", "var/cache/debconf/templates.dat-old", "var/lib/systemd/catalog/database",
)  # fmt: skip


@dataclass(frozen=True)
class Host:
    """Where this host has its configuration and its programs."""

    etc: Path = Path("/etc")
    keyrings: Path = Path("/usr/share/keyrings")
    path: str = PATH

    def release(self, key: str) -> str:
        """Return a field of os-release(5), "" for none."""
        try:
            lines = (self.etc / "os-release").read_text().splitlines()
        except FileNotFoundError:
            return ""
        return next((value.strip('"') for name, _, value in (line.partition("=") for line in lines) if name == key), "")


@dataclass(frozen=True)
class Archive:
    """An entry of apt's sources (sources.list(5))."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""

    def line(self, suite: str, keyring: str) -> str:
        options = f"[signed-by={keyring}] " if keyring else ""
        return f"deb {options}{self.uri} {suite} {' '.join(self.components)}"


def archives(host: Host, distribution: str) -> list[Archive]:
    """Return the entries of this host's apt that are the distribution's own, main archive first."""
    folder = host.etc / "apt" / "sources.list.d"
    found: list[Archive] = []
    for path in (host.etc / "apt" / "sources.list", *sorted(folder.glob("*.list")), *sorted(folder.glob("*.sources"))):
        if path.is_file():
            text = path.read_text(errors="replace")
            found += _paragraphs(text) if path.suffix == ".sources" else _lines(text)
    codename = host.release("VERSION_CODENAME")
    own = {codename + pocket for pocket in _POCKETS} if host.release("ID") == distribution and codename else set()

    def is_own(one: Archive) -> bool:
        said = f"{one.uri} {os.path.basename(one.signed_by)}".lower()
        named = [other for other in DISTRIBUTIONS if other in said]
        return distribution in named if named else bool(own.intersection(one.suites))

    return [one for one in found if is_own(one)]


def _lines(text: str) -> Iterator[Archive]:
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words[:1] != ["deb"]:
            continue
        options: list[str] = []
        if words[1:2] and words[1].startswith("["):
            end = next((number for number, word in enumerate(words) if word.endswith("]")), len(words))
            options, words = " ".join(words[1 : end + 1]).strip("[] ").split(), [words[0], *words[end + 1 :]]
        signed = next((one.partition("=")[2] for one in options if one.startswith("signed-by=")), "")
        if len(words) > 3:
            yield Archive(words[1], (words[2],), tuple(words[3:]), signed.partition(",")[0])


def _paragraphs(text: str) -> Iterator[Archive]:
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in kept.split("\n\n"):
        fields: dict[str, str] = {}
        key = ""
        for line in paragraph.splitlines():
            if line[:1].isspace():
                fields[key] = f"{fields.get(key, '')} {line.strip()}".strip()
            else:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in ("no", "false"):
            signed = fields.get("signed-by", "")
            for uri in fields.get("uris", "").split():
                yield Archive(
                    uri, tuple(fields.get("suites", "").split()), tuple(fields.get("components", "").split()),
                    signed.split()[0] if signed.startswith("/") else "",
                )  # fmt: skip


def default_suite(host: Host, distribution: str) -> str:
    """Return the suite of a recipe that names none: this host's own, else the first that apt is configured for."""
    codename = host.release("VERSION_CODENAME")
    if host.release("ID") == distribution and codename and SUITE.issuperset(codename):
        return codename
    suites = [suite for one in archives(host, distribution) for suite in one.suites if "-" not in suite]
    return suites[0] if suites and SUITE.issuperset(suites[0]) else {"debian": "stable"}.get(distribution, "")


def sources(host: Host, distribution: str, suite: str) -> list[tuple[Archive, str, str]]:
    """Return (archive, suite, keyring) of everything to make `suite` from, the main archive first.

    Raises Unsupported when this host knows no mirror of the distribution, or cannot verify it.
    """
    known = archives(host, distribution)
    title = distribution.capitalize()
    if not known or not suite:
        raise Unsupported(
            f"apt of this host has no {title} mirror configured: add one to /etc/apt/sources.list.d, with its Signed-By, and "
            f"install {distribution}-{'archive-' if distribution == 'debian' else ''}keyring"
        )
    wanted = [(one, found) for one in known for found in one.suites if found in {suite + pocket for pocket in _POCKETS}]
    wanted.sort(key=lambda entry: _POCKETS.index(entry[1].removeprefix(suite)))
    if not wanted or wanted[0][1] != suite:  # the mirror has other suites too
        main = next((one for one in known if any("-" not in found for found in one.suites)), known[0])
        wanted.insert(0, (main, suite))
    return [(one, found, _keyring(host, distribution, one)) for one, found in wanted]


def _keyring(host: Host, distribution: str, archive: Archive) -> str:
    usual = host.keyrings / f"{distribution}-archive-keyring.gpg"
    for path in (archive.signed_by, str(usual)):
        if path and os.path.isfile(path):
            return path
    if host.release("ID") == distribution:
        return ""  # apt's own trusted.gpg.d
    raise Unsupported(
        f"the signature of {archive.uri} cannot be verified: there is neither {archive.signed_by or 'a Signed-By'} nor {usual}; "
        f"install {distribution}-{'archive-' if distribution == 'debian' else ''}keyring"
    )


@contextmanager
def made(host: Host, distribution: str, suite: str, epoch: int) -> Iterator[tuple[Readable, str]]:
    """Make a root file system; give (its tar, the program that makes it).

    Raises Unsupported; while the tar is read Broken when the program fails.
    """
    wanted = sources(host, distribution, suite)
    environment = {"PATH": host.path, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", "SOURCE_DATE_EPOCH": str(epoch)}
    program = shutil.which("mmdebstrap", path=host.path)
    if program is not None:
        lines = [one.line(found, keyring) for one, found, keyring in wanted]
        command = [program, "--variant=minbase", "--format=tar", "--quiet", suite, "-", *lines]
        with tempfile.TemporaryFile() as errors, _running(command, environment, errors) as process:
            yield _Checked(process, errors), "mmdebstrap"
        return
    program = shutil.which("debootstrap", path=host.path)
    if program is None:
        raise Unsupported("neither mmdebstrap nor debootstrap is installed: apt-get install mmdebstrap")
    archive, _, keyring = wanted[0]
    with tempfile.TemporaryDirectory(prefix="sampan-bootstrap-", dir="/var/tmp") as scratch:
        root = Path(scratch) / "root"
        signed = [f"--keyring={keyring}"] if keyring else []
        components = f"--components={','.join(archive.components)}"
        # What it mounts below the new root is in a mount namespace of its own, and gone with it.
        command = [
            "unshare", "--mount", "--propagation", "private", program, "--variant=minbase", "--force-check-gpg", *signed,
            components, suite, str(root), archive.uri,
        ]  # fmt: skip
        with tempfile.TemporaryFile() as errors, _running(command, environment, errors) as process:
            for _ in iter(lambda: process.stdout.read(1 << 16) if process.stdout else b"", b""):
                pass
            _succeeded(process, errors)
        tidy(root, [one.line(found, keyring) for one, found, keyring in wanted], epoch)
        with open_fd(root, os.O_RDONLY | os.O_DIRECTORY) as opened:
            yield Stream(tree_tar(opened)), "debootstrap"


def tidy(root: Path, lines: list[str], epoch: int) -> None:
    """Take out of a new root what is this host's or this moment's; times later than `epoch` become that."""
    for name in _EMPTIED:
        place = root / name
        for path in place.iterdir() if place.is_dir() and not place.is_symlink() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name in _REMOVED:
        (root / name).unlink(missing_ok=True)
    if (root / "debootstrap").is_dir():
        (root / "debootstrap").rmdir()
    if (root / "etc/apt").is_dir():
        (root / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in lines))
    for folder, names, files in os.walk(root, topdown=False):
        for name in (*files, *(one for one in names if os.path.islink(os.path.join(folder, one))), ""):
            found = os.path.join(folder, name) if name else folder
            if os.lstat(found).st_mtime > epoch:
                os.utime(found, (epoch, epoch), follow_symlinks=False)


@contextmanager
def _running(command: list[str], environment: dict[str, str], errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a process group of its own; whatever of it still runs at the end is ended."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment, process_group=0
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)


def _succeeded(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    if process.wait() != 0:
        errors.seek(0)
        last = list(lines_of(errors.read()))[-3:]
        words: list[str] = process.args if isinstance(process.args, list) else []
        name = next((os.path.basename(word) for word in words if word.endswith(("debstrap", "debootstrap"))), "it")
        raise Broken(f"{name} failed with status {process.returncode}: {'; '.join(last)[:500]}")


class _Checked:
    """The program's output; at its end the program must have succeeded."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process, self._errors = process, errors

    def read(self, size: int = 1 << 20, /) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if not data:
            _succeeded(self._process, self._errors)
        return data


def lines_of(content: bytes) -> Iterator[str]:
    """Yield the lines that say something."""
    for line in content.decode(errors="replace").splitlines():
        if line.strip():
            yield line.strip()
