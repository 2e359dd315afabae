"""What RUN --mount asks for, as detached trees that are lent to the step's container (spec: dockerfile.md 3, RUN).

A source is resolved below its own root by descriptor, once; what the container gets is that descriptor's tree, so no later
change of a name leads anywhere else (SECURITY.md rows 62, 65).  Secrets are files of a tmpfs that exists for the step alone
(row 71).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import shutil
import socket
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sampan.build import agents, inputs
from sampan.build.cache import short_digest
from sampan.build.copying import Target, copy
from sampan.build.digests import Digests
from sampan.build.image import Built
from sampan.build.instructions import Mount as Wanted
from sampan.build.options import Options
from sampan.build.select import Picked, Root, walk
from sampan.build.steps import RunOp
from sampan.engine.containers import step
from sampan.engine.containers.container import Container
from sampan.errors import InvalidRequest, NotFound
from sampan.files.ignore import Ignore, clean
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.mount import clone_tree, new_mount, set_attributes
from sampan.kernel.paths import open_in
from sampan.oci.runtime import Mount
from sampan.storage.mounts import part, writable
from sampan.storage.overlay import Overlay

_ABOUT = "about"
Sources = Mapping[str, tuple[Root, Built | None]]


@dataclass
class Mounts:
    """What the mounts of all builds share.  folder: the cache mounts' contents."""

    folder: Path
    layers: Overlay
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)  # private caches, by folder

    def caches(self) -> list[Path]:
        """Return the folders of cache mounts that nothing uses."""
        found = [path for path in self.folder.iterdir() if path.is_dir()]
        return [path for path in found if not self.busy.get(path.name) and not path.name.startswith("tmp-")]


class Lent:
    """The mounts of one RUN.  host: those that come with its devices."""

    def __init__(self, shared: Mounts, op: RunOp, sources: Sources, options: Options, host: Sequence[Mount] = ()) -> None:
        self._host = host
        self._shared = shared
        self._op = op
        self._sources = sources
        self._options = options
        self._folders: dict[int, str] = {}
        self._loop = asyncio.get_running_loop()

    def digests(self, digests: Digests) -> dict[str, str]:
        """Return what is in the sources of bind mounts.  Blocks.  Raises NotFound."""
        found = {}
        for mount in self._op.mounts:
            if mount.type != "bind":
                continue
            root, _ = self._sources[mount.source_from]
            path = clean(mount.source)
            try:
                seen = root.follow(path)
            except OSError:
                raise _missing(mount, root) from None
            picked = list(walk(root, path, Ignore(()))) if stat.S_ISDIR(seen.st_mode) else [Picked(path, "", seen)]
            files = inputs.of_files(root, picked, digests)
            name = f"{mount.source_from or 'context'}:{mount.source or '/'}"
            found[name] = short_digest("\n".join(f"{key}={value}" for key, value in sorted(files.items())))
        return found

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Take the cache mounts: locked ones wait, private ones get a folder that nobody else has at the moment."""
        async with AsyncExitStack() as held:
            wanted = [(self._cache_id(mount), number, mount) for number, mount in enumerate(self._op.mounts)
                      if mount.type == "cache"]  # fmt: skip
            for name, number, mount in sorted(wanted, key=lambda one: one[:2]):
                if mount.sharing == "locked":
                    await held.enter_async_context(self._shared.locks.setdefault(name, asyncio.Lock()))
                if mount.sharing == "private":
                    name = next(one for one in _names(name) if not self._shared.busy.get(one))
                self._shared.busy[name] = self._shared.busy.get(name, 0) + 1
                held.callback(self._done, name)
                self._folders[number] = name
            yield

    def _done(self, name: str) -> None:
        self._shared.busy[name] -= 1

    def _cache_id(self, mount: Wanted) -> str:
        space = (self._options.request.arguments or {}).get("BUILDKIT_CACHE_MOUNT_NS") or ""
        return hashlib.sha256(f"{space}\n{mount.identity or mount.target}".encode()).hexdigest()

    def lend(self, container: Container, held: ExitStack) -> list[tuple[Mount, Fd]]:
        """Return the mounts with their trees; `held` takes away what was made for them.  Blocks."""
        userns = step.userns(container)
        if userns is not None:
            held.enter_context(userns)
        made: list[tuple[Mount, Fd]] = []
        try:
            self._lend(container, userns, made, held)
        except BaseException:
            close_trees(made)
            raise
        return sorted(made, key=lambda one: one[0].destination.count("/"))

    def _lend(self, container: Container, userns: Fd | None, made: list[tuple[Mount, Fd]], held: ExitStack) -> None:
        base = container.record.uid_base
        for number, mount in enumerate(self._op.mounts):
            if mount.type == "secret":
                self._secret(container, mount, base or 0, made)
            elif mount.type == "ssh":
                self._agent(container, mount, base or 0, made, held)
            elif mount.type == "bind":
                made.append((_mount(mount, readonly=mount.readonly is not False), self._bind(mount, base, userns, held)))
            elif mount.type == "cache":
                made.append((_mount(mount, readonly=mount.readonly is True), self._cache(mount, number, userns)))
        for wanted in self._host:
            try:
                with open_fd(wanted.source, os.O_PATH) as place:
                    tree = clone_tree("", at=place)
            except OSError as error:
                raise NotFound(f"RUN --device: {wanted.source[:200]}: {error.strerror}") from None
            made.append((wanted, _mapped(tree, userns)))
        for path, content in self._op.files:
            tree = file_tree(content.encode(errors="surrogateescape"), 0o755, base or 0, base or 0)
            made.append((Mount(destination=path, source=path, options=("rprivate", "ro")), tree))

    def _secret(self, container: Container, mount: Wanted, base: int, made: list[tuple[Mount, Fd]]) -> None:
        name = mount.identity or os.path.basename(mount.target)
        content = self._options.secrets.get(name)
        if content is None:
            if mount.required:
                raise InvalidRequest(f"secret {name[:80]}: not found: the build was not given it (--secret id={name[:80]})")
            return
        if mount.env:
            container.lent_env.append(f"{mount.env}={content.decode(errors='surrogateescape')}")
        if mount.target or not mount.env:
            mode = 0o400 if mount.mode is None else mount.mode
            tree = file_tree(content, mode, base + (mount.uid or 0), base + (mount.gid or 0))
            target = mount.target or f"/run/secrets/{name}"
            made.append((Mount(destination=target, source="secret", options=("rprivate", "ro")), tree))

    def _agent(self, container: Container, mount: Wanted, base: int, made: list[tuple[Mount, Fd]], held: ExitStack) -> None:
        """A socket behind which the client's agent answers."""
        name = mount.identity or "default"
        session = self._options.session
        if session is None or name not in session.agents:
            if mount.required:
                raise InvalidRequest(f"ssh agent {name[:80]}: the build was not given it (--ssh {name[:80]})")
            return
        target = mount.target or f"/run/buildkit/ssh_agent.{sum(one.source == 'ssh-agent' for one, _ in made)}"
        owner = (0o600 if mount.mode is None else mount.mode, base + (mount.uid or 0), base + (mount.gid or 0))
        listening, tree = socket_tree(*owner)
        made.append((Mount(destination=target, source="ssh-agent", options=("rprivate", "ro")), tree))

        async def begin() -> None:
            agents.serve(listening, session, name, held)

        asyncio.run_coroutine_threadsafe(begin(), self._loop).result()
        if not any(one.startswith("SSH_AUTH_SOCK=") for one in container.lent_env):
            container.lent_env.append(f"SSH_AUTH_SOCK={target}")

    def _bind(self, mount: Wanted, base: int | None, userns: Fd | None, held: ExitStack) -> Fd:
        root, built = self._sources[mount.source_from]
        if built is not None:
            snapshot = f"build-{secrets.token_hex(16)}"
            self._shared.layers.prepare(snapshot, built.chain)
            held.callback(self._shared.layers.remove, snapshot)
            tree = self._shared.layers.mount(snapshot, uid_base=base, userns=userns)
        elif mount.readonly is False:
            tree = self._discarded(root, base, userns, held)
        else:
            with _inside(root.fd, mount, root) as place:
                tree = clone_tree("", at=place)
            return _mapped(tree, userns)
        if not clean(mount.source):
            return tree
        with tree:
            return subtree(tree, mount, root)

    def _discarded(self, root: Root, base: int | None, userns: Fd | None, held: ExitStack) -> Fd:
        """An overlay over the build context, whose changes go nowhere."""
        context = Path(os.readlink(root.fd.path))
        place = context.parent / f"rw-{secrets.token_hex(8)}"
        for name in ("upper", "work"):
            (place / name).mkdir(mode=0o755, parents=True)
        return writable(context.parent, [context.name], place, uid_base=base, userns=userns)

    def _cache(self, mount: Wanted, number: int, userns: Fd | None) -> Fd:
        folder = self._shared.folder / self._folders[number]
        while True:
            if not folder.exists():
                self._new_cache(mount, folder)
            with suppress(FileNotFoundError):  # pruned a moment ago
                os.utime(folder)  # for prune by age
                with open_fd(folder / "data", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW) as place:
                    return _mapped(clone_tree("", at=place), userns)

    def _new_cache(self, mount: Wanted, folder: Path) -> None:
        made = folder.with_name(f"tmp-{secrets.token_hex(8)}")
        try:
            self._fill_cache(mount, made)
            try:
                made.rename(folder)
            except OSError as error:  # somebody else was first
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _fill_cache(self, mount: Wanted, made: Path) -> None:
        (made / "data").mkdir(parents=True)
        made.chmod(0o700)
        (made / _ABOUT).write_text(f"{mount.identity or mount.target} mounted at {mount.target}"[:512], errors="replace")
        with open_fd(made / "data", os.O_RDONLY | os.O_DIRECTORY) as data:
            if mount.source_from:
                root, _ = self._sources[mount.source_from]
                path = clean(mount.source)
                with _inside(root.fd, mount, root):
                    picked = walk(root, path, Ignore(()))
                copy(root, picked, data, Target("", True, None), lambda: None)
            os.fchown(data.fileno(), mount.uid or 0, mount.gid or 0)
            os.fchmod(data.fileno(), 0o755 if mount.mode is None else mount.mode)


def close_trees(mounts: Sequence[tuple[Mount, Fd]]) -> None:
    for _, tree in mounts:
        tree.close()


def about(folder: Path) -> str:
    """Return what a cache mount is, for people."""
    try:
        return (folder / _ABOUT).read_text(errors="replace")
    except OSError:
        return ""


def _names(name: str) -> list[str]:
    return [name, *(f"{name}-{number}" for number in range(1, 1000))]


def _mount(mount: Wanted, *, readonly: bool) -> Mount:
    return Mount(destination=mount.target, source=mount.type, options=("rprivate", "ro") if readonly else ("rprivate",))


def _missing(mount: Wanted, root: Root) -> NotFound:
    return NotFound(f"RUN --mount: source {mount.source[:200] or '/'} not found in {root.name[:100]}")


def _inside(root: Fd, mount: Wanted, where: Root) -> Fd:
    """Open a mount's source inside its root, links resolved there."""
    try:
        return open_in(root, clean(mount.source) or ".", os.O_PATH)
    except OSError:
        raise _missing(mount, where) from None


def subtree(tree: Fd, mount: Wanted, root: Root) -> Fd:
    """Return a part of a detached tree as one of its own; the tree is good for nothing after it."""
    return part(tree, lambda top: _inside(top, mount, root))


def _mapped(tree: Fd, userns: Fd | None) -> Fd:
    try:
        if userns is not None:
            set_attributes(tree, userns=userns)
    except BaseException:
        tree.close()
        raise
    return tree


def socket_tree(mode: int, uid: int, gid: int) -> tuple[socket.socket, Fd]:
    """Return a listening socket and its name as a detached tree, on a tmpfs of its own that only this process can write to."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with new_mount("tmpfs", {"size": "65536", "mode": "0700"}) as memory:
            listening.bind(f"{memory.path}/agent")
            os.chown("agent", uid, gid, dir_fd=memory.fileno(), follow_symlinks=False)
            os.chmod("agent", mode, dir_fd=memory.fileno())
            listening.listen(16)
            return listening, subtree(memory, Wanted(source="agent"), Root(memory, Ignore(()), "memory"))
    except BaseException:
        listening.close()
        raise


def file_tree(content: bytes, mode: int, uid: int, gid: int) -> Fd:
    """Return a file of a tmpfs of its own as a detached tree; it is gone with the last mount of it."""
    with new_mount("tmpfs", {"size": str(max(len(content) + 65536, 1 << 17)), "mode": "0755"}) as memory:
        made = os.open("file", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=memory.fileno())
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(made, view) :]
            os.fchown(made, uid, gid)
            os.fchmod(made, mode)
        finally:
            os.close(made)
        return subtree(memory, Wanted(source="file"), Root(memory, Ignore(()), "memory"))
