"""sampan build: the context is sent, the progress shown; and builder prune."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.cli.build_cache import Caches
from sampan.cli.build_contexts import Contexts
from sampan.cli.build_ssh import lent
from sampan.cli.build_ssh import parse as agents
from sampan.cli.main import Exit
from sampan.cli.mounts import ulimit
from sampan.client.api import Parameters
from sampan.client.builder import Along

if TYPE_CHECKING:
    from sampan.cli.build_output import Output
    from sampan.cli.main import Invocation
    from sampan.cli.options import Options
    from sampan.client.api import Client
    from sampan.files.ignore import Ignore
    from sampan.wire.images import Progress


@dataclass(frozen=True)
class Before:
    """What travels before the context."""

    secrets: Mapping[str, bytes]
    contexts: Contexts
    caches: Caches
    session: str = ""


MANY = 200  # files from which on it pays to tell before sending


class Source:
    """Where the context comes from: a folder, an archive or a Dockerfile on stdin, or a URL that the daemon fetches.

    epoch: the newest time in the context, seconds.  shown: what the user calls a Dockerfile that is not in it.
    """

    def __init__(self, path: str, file: str) -> None:
        self.remote = path if path.startswith(("http://", "https://", "git://", "git@")) else ""
        self.dockerfile = file or "Dockerfile"
        self.folder = self.shown = ""
        self.extra: dict[str, bytes] = {}
        self._stdin = b""
        if self.remote:
            return
        if path == "-":
            self._stdin = sys.stdin.buffer.read()
            if not _is_archive(self._stdin):
                self.extra["Dockerfile"] = self._stdin
                self._stdin = b""
            return
        if not os.path.isdir(path):
            raise Exit(1, f'unable to prepare context: path "{path}" not found')
        self.folder = path
        self._place(file)

    def _place(self, file: str) -> None:
        """Find the Dockerfile; one outside of the context is sent along under a name of its own."""
        if file == "-":
            self.extra[".dockerfile.stdin"] = sys.stdin.buffer.read()
            self.dockerfile, self.shown = ".dockerfile.stdin", "stdin"
            return
        where = file or os.path.join(self.folder, "Dockerfile")
        if not file and not os.path.exists(where):
            where = os.path.join(self.folder, "dockerfile")
        if not os.path.isfile(where):
            raise Exit(1, f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: {where}: no such file")
        real, root = os.path.realpath(where), os.path.realpath(self.folder)
        if real.startswith(root + os.sep):
            self.dockerfile = os.path.relpath(real, root)
            return
        with open(where, "rb") as opened:
            self.extra[".dockerfile.outside"] = opened.read()
        self.dockerfile, self.shown = ".dockerfile.outside", file

    def ignore(self) -> Ignore:
        from sampan.client.context import ignore_of
        from sampan.files.ignore import Ignore

        return ignore_of(self.folder, self.dockerfile) if self.folder else Ignore(())

    def pieces(self) -> Iterator[bytes]:
        """Yield the tar; can be asked for several times."""
        from sampan.client import context
        from sampan.files.tar_entry import Entry, Kind
        from sampan.files.tar_header import END, header, padding

        if self.folder:
            yield from context.tar(self.folder, self.ignore(), self.extra)
        elif self._stdin:
            yield self._stdin
        else:
            for name, content in self.extra.items():
                yield header(Entry(name, Kind.FILE, size=len(content), stored=len(content))) + content + padding(len(content))
            yield END

    def kept(self, client: Client) -> tuple[Iterator[bytes], str]:
        """Return what to send and the token of the context that the daemon keeps; of a small one everything and no token."""
        import hashlib

        from sampan.client import context
        from sampan.client.errors import ApiError

        if not self.folder or self.extra:
            return self.pieces(), ""
        begun = time.time_ns()
        found = dict(context.entries(self.folder, self.ignore()))
        if len(found) < MANY:
            return self.pieces(), ""
        where = f"{os.uname().nodename}\n{os.geteuid()}\n{os.path.realpath(self.folder)}\n{self.dockerfile}"
        try:
            answer = client.builder.tell(hashlib.sha256(os.fsencode(where)).hexdigest(), context.told(self.folder, found, begun))
        except (ApiError, UnicodeEncodeError):  # another daemon, a build of it under way, names that JSON cannot say
            return self.pieces(), ""
        return context.wanted_tar(self.folder, found, answer.wanted), answer.token

    def epoch(self) -> int:
        """Return the newest modification time of what is sent, in seconds."""
        from sampan.client.context import entries

        if not self.folder:
            return 0
        return max((int(seen.st_mtime) for _, seen in entries(self.folder, self.ignore())), default=0)


def _is_archive(data: bytes) -> bool:
    return data[257:262] == b"ustar" or data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"))


def run(call: Invocation) -> int:
    o = call.options
    source = Source(call.arguments[0], o.file)
    contexts = Contexts(o.build_context)
    outputs = _outputs(o)
    tags = [*o.tag, *(name for one in outputs for name in one.names)]
    caches = Caches(o.cache_from, o.cache_to)
    query = {**_query(o, source), "t": tags, "sampan-context": contexts.sources, "sampan-cache-to": caches.exports}
    query["cachefrom"] = json.dumps(caches.names) if caches.names else None
    if o.check or o.plan:
        wanted = {"sampan-check": o.check, "sampan-plan": o.plan}
        along = Along(uploads=contexts.uploads())
        return _show_plain(call.client.builder.build(source.pieces(), {**query, **wanted}, along=along))
    with lent(call.client, agents(o.ssh)) as session:
        before = Before(_secrets(o.secret), contexts, caches, session)
        if o.verify:
            return _verify(call, source, query, before)
        image = _build(call, source, query, before)
    if o.iidfile:
        with open(o.iidfile, "w", encoding="ascii") as file:
            file.write(image)
    for output in outputs:
        from sampan.cli.build_output import deliver

        deliver(call.client, image, output, tags)
    return 0


def _outputs(o: Options) -> list[Output]:
    """Return where the result goes besides the daemon's images.  Raises Exit."""
    if not (o.output or o.push):
        return []
    from sampan.cli.build_output import parse

    return [parse(one) for one in [*o.output, *(["type=registry"] if o.push else [])]]


def _build(call: Invocation, source: Source, query: Parameters, before: Before) -> str:
    """Build, show, and return the image's ID.  Raises Exit with the exit code of the command that failed."""
    from sampan.cli.build_display import follow, on_terminal

    o = call.options
    style = "quiet" if o.quiet else o.progress
    if style not in ("auto", "plain", "tty", "quiet"):
        raise Exit(125, f"invalid progress mode {style!r}: auto, plain, tty or quiet")
    query = {**query, "sampan-live": on_terminal(style) or None}
    pieces, token = source.kept(call.client)
    uploads = before.contexts.uploads() + before.caches.uploads()
    along = Along(before.secrets, token, before.session, uploads)
    messages = call.client.builder.build(pieces, query, along=along, auths=_auths())
    result = follow(messages, style)
    failure = result.failure
    if failure is not None:
        raise Exit(failure.error_detail.code if failure.error_detail and failure.error_detail.code else 1, failure.error)
    before.caches.fetch(call.client, result.steps)
    if o.quiet:
        print(result.image)
    return result.image


def _verify(call: Invocation, source: Source, query: dict[str, Any], before: Before) -> int:
    """Build twice from nothing and compare."""
    query = {**query, "nocache": "1"}
    if query.get("sampan-epoch") is None and not any(one.startswith("SOURCE_DATE_EPOCH=") for one in call.options.build_arg):
        query["sampan-epoch"] = source.epoch()
    first, second = (_build(call, source, query, before) for _ in range(2))
    if first == second:
        print(f"Verified: both builds gave {first}")
        return 0
    layers = [call.client.images.inspect_json(image)["RootFS"]["Layers"] for image in (first, second)]
    differing = [number for number, pair in enumerate(zip(*layers, strict=False), 1) if pair[0] != pair[1]]
    where = f"layers {', '.join(map(str, differing))} differ" if differing else "their configurations differ"
    raise Exit(1, f"not reproducible: {first} and {second}: {where}")


def _query(o: Options, source: Source) -> dict[str, Any]:
    """Return the request's parameters.  Raises Exit."""
    from sampan.cli.environment import labels

    arguments = {}
    for one in o.build_arg:
        name, equals, value = one.partition("=")
        arguments[name] = value if equals else os.environ.get(name)
    limits = [{"Name": one.name, "Soft": one.soft, "Hard": one.hard} for one in map(ulimit, o.ulimit)]
    epoch = source.epoch() if o.reproducible and "SOURCE_DATE_EPOCH" not in arguments else None
    return {
        "dockerfile": source.dockerfile, "sampan-file": source.shown or None,
        "remote": source.remote or None, "target": o.target or None,
        "buildargs": json.dumps(arguments) if arguments else None,
        "labels": json.dumps(labels(o.label, [])) if o.label else None, "nocache": o.no_cache, "pull": o.pull, "q": o.quiet,
        "squash": o.squash,
        "networkmode": o.network, "memory": o.memory, "memswap": o.memory_swap, "cpushares": o.cpu_shares,
        "cpuperiod": o.cpu_period, "cpuquota": o.cpu_quota, "cpusetcpus": o.cpuset_cpus or None,
        "cpusetmems": o.cpuset_mems or None, "cgroupparent": o.cgroup_parent or None, "shmsize": o.shm_size,
        "ulimits": json.dumps(limits) if limits else None, "extrahosts": [one.replace("=", ":", 1) for one in o.add_host],
        "platform": o.platform or None, "sampan-explain": o.explain, "sampan-no-cache-filter": list(o.no_cache_filter),
        "sampan-allow": list(o.allow), "sampan-epoch": epoch,
    }  # fmt: skip


def _secrets(given: list[str]) -> dict[str, bytes]:
    """Read the secrets.  Raises Exit naming the secret, never its value."""
    found = {}
    for one in given:
        fields = dict(part.partition("=")[::2] for part in one.split(","))
        name = fields.get("id") or os.path.basename(fields.get("src") or fields.get("source") or "")
        path, variable = fields.get("src") or fields.get("source"), fields.get("env")
        if not name:
            raise Exit(125, "a secret needs an id: --secret id=NAME,src=FILE")
        try:
            if variable or (not path and name in os.environ):
                found[name] = os.environb[os.fsencode(variable or name)]
            else:
                with open(path or name, "rb") as file:
                    found[name] = file.read()
        except KeyError:
            raise Exit(1, f"secret {name}: the environment has no {variable}") from None
        except OSError as error:
            raise Exit(1, f"secret {name}: {path or name}: {error.strerror}") from None
    return found


def _auths() -> str:
    """Return X-Registry-Config: the logins that were stored."""
    import base64

    from sampan.cli.credentials import Config

    found = Config().every()
    return base64.urlsafe_b64encode(json.dumps(found).encode()).decode() if found else ""


def _show_plain(messages: Iterator[Progress]) -> int:
    warned = False
    for one in messages:
        print(one.stream, end="", flush=True)
        warned = warned or "rule/" in one.stream
    return 1 if warned else 0


def prune(call: Invocation) -> int:
    from sampan.cli.table import filters
    from sampan.cli.units import size
    from sampan.cli.verbs import confirmed

    o = call.options
    warning = f"WARNING! This will remove all {'' if o.all else 'dangling '}build cache."
    if not o.force and not confirmed(warning):
        return 0
    done = call.client.builder.prune(all=o.all, keep=o.keep_storage or 0, wanted=filters(o.filter))
    if done.caches_deleted:
        print("Deleted build cache objects:\n" + "\n".join(done.caches_deleted) + "\n")
    print(f"Total reclaimed space: {size(done.space_reclaimed, 4)}")
    return 0
