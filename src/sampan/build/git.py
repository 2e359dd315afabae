"""Git repositories as sources and contexts, fetched by git(1) with nothing of the host's and nothing of the repository's trusted.

SECURITY.md row 67: no local transport (neither for the repository nor for its submodules), no hooks, no configuration of the
host, options ended by `--`, references that cannot be options; it runs as nobody in a folder of its own, and what it wrote is
read back through a resolver that stays inside.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import urllib.parse
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from sampan.errors import InvalidRequest, Unavailable, Unsupported
from sampan.files.ignore import clean
from sampan.files.tar_write import Source, tree_tar
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.paths import open_in

NOBODY = 65534
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*")
_ADDRESS = re.compile(r"(https?|git|ssh)://[A-Za-z0-9_.@:%\[\]-]+/[A-Za-z0-9_.~%/+@:-]*|git@[A-Za-z0-9_.-]+:[A-Za-z0-9_.~/+-]+")
_TIMEOUT = 600  # seconds for one command of git's
_SETTINGS = {
    "core.hooksPath": "/dev/null", "protocol.allow": "never", "protocol.https.allow": "always", "protocol.http.allow": "always",
    "protocol.git.allow": "always", "protocol.ssh.allow": "always", "core.fsmonitor": "false", "core.symlinks": "true",
    "core.logAllRefUpdates": "false", "transfer.fsckObjects": "true", "advice.detachedHead": "false", "credential.helper": "",
}  # fmt: skip


@dataclass(frozen=True)
class Repository:
    """Where something is: address, reference ("" for the default), folder inside ("" for the top)."""

    address: str
    ref: str = ""
    folder: str = ""


def parse(text: str) -> Repository:
    """Understand `URL[#ref[:folder]]` and `URL?ref=&subdir=`.  Raises InvalidRequest for what could mean something else."""
    address, _, fragment = text.partition("#")
    address, _, query = address.partition("?")
    ref, _, folder = fragment.partition(":")
    fields = dict(urllib.parse.parse_qsl(query))
    ref = fields.get("ref") or fields.get("branch") or fields.get("tag") or ref
    folder = fields.get("subdir") or folder
    if not _ADDRESS.fullmatch(address) or "/-" in address or "@-" in address or len(address) > 2000:
        raise InvalidRequest(f"invalid git address {address[:200]!r}")
    if ref and (not _REF.fullmatch(ref) or ".." in ref or len(ref) > 250):
        raise InvalidRequest(f"invalid git reference {ref[:100]!r}")
    if ".." in folder.split("/") or "\0" in folder:
        raise InvalidRequest(f"invalid folder {folder[:100]!r} of a git repository")
    return Repository(address, ref, clean(folder))


def line_of(name: str, secret: bytes) -> str:
    """Return a secret as part of a header.  Raises InvalidRequest, which names it and does not tell it."""
    text = secret.decode("latin-1").strip()
    if not text.isprintable() or not text.isascii():
        raise InvalidRequest(f"secret {name[:200]}: one line of printable ASCII is expected")
    return text


def login(address: str, secrets: Mapping[str, bytes]) -> dict[str, str]:
    """Return the git setting that logs in at the address's host and nowhere else; none without a secret, or without HTTP."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return {}
    for suffix in (f".{parts.netloc.rpartition('@')[2]}", ""):
        header, token = f"GIT_AUTH_HEADER{suffix}", f"GIT_AUTH_TOKEN{suffix}"
        if header in secrets:
            value = line_of(header, secrets[header])
        elif token in secrets:
            value = "basic " + b64encode(f"x-access-token:{line_of(token, secrets[token])}".encode()).decode()
        else:
            continue
        return {f"http.{parts.scheme}://{parts.netloc}/.extraHeader": f"Authorization: {value}"}
    return {}


class Checkout:
    """A repository at one commit, in a folder that goes with `held`.  commit: its full name."""

    def __init__(
        self, repository: Repository, check: Callable[[], None], held: ExitStack, secrets: Mapping[str, bytes] | None = None
    ) -> None:
        self._settings = {**_SETTINGS, **login(repository.address, secrets or {})}
        if shutil.which("git") is None:
            raise Unsupported(f"{repository.address}: git is not installed on the daemon's host")
        self._top = tempfile.mkdtemp(prefix="sampan-git-", dir="/var/tmp")
        held.callback(shutil.rmtree, self._top, ignore_errors=True)
        os.chown(self._top, NOBODY, NOBODY)  # mkdtemp made it 0700
        self._check = check
        self._fetch(repository)
        self.commit = self._git("rev-parse", "HEAD").strip()

    def _git(self, *words: str) -> str:
        """Run one command of git's as nobody.  Raises Unavailable with what it said."""
        self._check()
        settings = {f"GIT_CONFIG_KEY_{n}": key for n, key in enumerate(self._settings)}
        settings |= {f"GIT_CONFIG_VALUE_{n}": value for n, value in enumerate(self._settings.values())}
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": self._top, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "LANG": "C",
            "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes", "GIT_CONFIG_COUNT": str(len(self._settings)),
            **settings,
        }  # fmt: skip
        try:
            done = subprocess.run(
                ["git", *words], cwd=self._top, env=environment, user=NOBODY, group=NOBODY, extra_groups=[],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"git {words[0]}: {error}") from None
        if done.returncode:
            raise Unavailable(f"git {words[0]} failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
        return done.stdout.decode(errors="replace")

    def _fetch(self, repository: Repository) -> None:
        self._git("init", "--quiet", "--template=", ".")
        ref = repository.ref or "HEAD"
        try:
            self._git("fetch", "--quiet", "--depth=1", "--no-tags", "--", repository.address, ref)
        except Unavailable:  # a commit that is not the tip of anything, or a server that knows no depth
            self._git(
                "fetch", "--quiet", "--", repository.address, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"
            )
            known = [one for one in (f"refs/remotes/origin/{ref}", f"refs/tags/{ref}", ref) if self._knows(one)]
            if not known:
                raise Unavailable(f"{repository.address}: no branch, tag or commit {ref!r}") from None
            self._git("checkout", "--quiet", "--force", "--detach", known[0], "--")
        else:
            self._git("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD", "--")
        self._git("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")

    def _knows(self, ref: str) -> bool:
        try:
            self._git("rev-parse", "--quiet", "--verify", "--end-of-options", f"{ref}^{{commit}}")
        except Unavailable:
            return False
        return True

    def tar(self, folder: str, *, keep_git: bool = False) -> Iterator[bytes]:
        """Yield the files as an archive.  Raises InvalidRequest when the folder is not there, or leads out."""
        with open_fd(self._top, os.O_RDONLY | os.O_DIRECTORY) as top:
            if not keep_git:
                shutil.rmtree(os.path.join(self._top, ".git"), ignore_errors=True)
            with self._inside(top, folder) as inside:
                yield from tree_tar(inside, Source())

    def _inside(self, top: Fd, folder: str) -> Fd:
        try:
            return open_in(top, folder or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise InvalidRequest(f"folder {folder[:100]!r} of the git repository: {error.strerror}") from None
