"""Images: list, history, load, save, import, tag, remove, prune, bootstrap."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO

from sampan.cli import units
from sampan.cli.main import Exit, describe
from sampan.cli.table import filters, raw, short, show, table
from sampan.client.errors import ApiError

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.wire.images import ImageSummary

COLUMNS = [("Repository", "REPOSITORY"), ("Tag", "TAG"), ("ID", "IMAGE ID"), ("CreatedSince", "CREATED"), ("Size", "SIZE")]
HISTORY = [("ID", "IMAGE"), ("CreatedSince", "CREATED"), ("CreatedBy", "CREATED BY"), ("Size", "SIZE"), ("Comment", "COMMENT")]
RAW = (("repository", "Repository"), ("tag", "Tag"), ("image_id", "ID"), ("created_at", "CreatedAt"), ("virtual_size", "Size"))
NONE = "<none>"


def listing(call: Invocation) -> int:
    o = call.options
    wanted = filters(o.filter)
    if call.arguments:
        wanted.setdefault("reference", []).append(call.arguments[0])
    if o.tree:
        if o.quiet or o.format or o.digests or o.no_trunc:
            raise Exit(1, "--tree goes with none of --quiet, --format, --digests, --no-trunc")
        return _tree(call.client.images.list(all=o.all, wanted=wanted, manifests=True))
    rows = [row for one in call.client.images.list(all=o.all, wanted=wanted) for row in _rows(one, o.no_trunc, o.digests)]
    if o.quiet and not o.format:
        for row in rows:
            print(row["ID"])
        return 0
    columns = [*COLUMNS[:2], ("Digest", "DIGEST"), *COLUMNS[2:]] if o.digests else COLUMNS
    if o.format == "raw":
        raw(rows, RAW)
    else:
        show(rows, columns, o.format, "*formatter.imageContext")
    return 0


def _tree(found: list[ImageSummary]) -> int:
    """Print every image with its names, and its manifest below it."""
    rows: list[list[str]] = []
    for one in found:
        manifests = one.manifests or []
        names = [tag for tag in one.repo_tags or () if not tag.startswith(NONE)]
        total, content = sum(of.size.total for of in manifests), sum(of.size.content for of in manifests)
        used = "U" if any(of.image_data.containers for of in manifests) else ""
        rows.append(["\n".join(names) or "<untagged>", short_id(one.id), units.size(total), units.size(content), used])
        for number, of in enumerate(manifests, 1):
            given = of.image_data.platform
            name = "/".join(part for part in (given.os, given.architecture, given.variant) if part)
            branch = "\u2514\u2500" if number == len(manifests) else "\u251c\u2500"
            used = "U" if of.image_data.containers else ""
            rows.append([f"{branch} {name}", short_id(of.id), units.size(of.size.total), units.size(of.size.content), used])
    lines = [[line, *(row[1:] if not place else [""] * 4)] for row in rows for place, line in enumerate(row[0].split("\n"))]
    table(lines, ["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "IN USE"])
    return 0


def _rows(one: ImageSummary, whole: bool, digests: bool) -> list[dict[str, Any]]:
    """A row for each tag (and with `digests` for each digest); one of <none> when there is neither."""
    names: list[tuple[str, str, str]] = []
    by_repository: dict[str, list[str]] = {}
    for digest in one.repo_digests or ():
        repository, _, value = digest.partition("@")
        by_repository.setdefault(repository, []).append(value)
    for tag in one.repo_tags or ():
        repository, _, name = tag.rpartition(":")
        if repository == NONE:
            continue
        found = by_repository.pop(repository, []) if digests else []
        names += [(repository, name, value) for value in found or [NONE]]
    if digests or not names:
        names += [(repository, NONE, value) for repository, values in by_repository.items() for value in values]
    now = time.time()
    return [
        {
            "Repository": repository, "Tag": tag, "Digest": digest, "ID": one.id if whole else short_id(one.id),
            "CreatedSince": units.ago(now - one.created) + " ago" if one.created > 0 else "N/A",
            "CreatedAt": units.stamp(one.created), "Size": units.size(one.size), "VirtualSize": units.size(one.size),
            "Containers": "N/A" if one.containers < 0 else str(one.containers),
            "SharedSize": "N/A" if one.shared_size < 0 else units.size(one.shared_size), "UniqueSize": "N/A",
        }
        for repository, tag, digest in names or [(NONE, NONE, NONE)]
    ]  # fmt: skip


def short_id(text: str) -> str:
    return text.partition(":")[2][:12] if ":" in text else text[:12]


def history(call: Invocation) -> int:
    o, now = call.options, time.time()
    rows = []
    for one in call.client.images.history(call.arguments[0], platform=o.platform):
        created = units.ago(now - one.created) + " ago" if o.human else _iso(one.created)
        words = one.created_by.replace("\t", " ")
        rows.append({
            "ID": one.id if o.no_trunc or one.id == "<missing>" else short_id(one.id),
            "CreatedSince": created if one.created else "N/A",
            "CreatedAt": _iso(one.created), "CreatedBy": words if o.no_trunc else short(words, 45),
            "Size": units.size(one.size) if o.human else str(one.size), "Comment": one.comment,
        })  # fmt: skip
    if o.quiet and not o.format:
        for row in rows:
            print(row["ID"])
        return 0
    columns = HISTORY if o.human else [HISTORY[0], ("CreatedSince", "CREATED AT"), *HISTORY[2:]]
    show(rows, columns, o.format, "*formatter.historyContext")
    return 0


def _iso(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def tag(call: Invocation) -> int:
    source, target = call.arguments
    repository, name = _split(target)
    call.client.images.tag(source, repository, name)
    return 0


def _split(reference: str) -> tuple[str, str]:
    head, colon, last = reference.rpartition(":")
    return (head, last) if colon and "/" not in last else (reference, "")


def remove(call: Invocation) -> int:
    """Print what was untagged and deleted; 1 when one could not be removed, 0 with -f when none was there."""
    o, errors, missing = call.options, [], True
    for ref in call.arguments:
        try:
            for one in call.client.images.remove(ref, force=o.force, prune=not o.no_prune, platforms=o.platform):
                print(f"Deleted: {one.deleted}" if one.deleted else f"Untagged: {one.untagged}")
        except ApiError as error:
            errors.append(describe(error))
            missing = missing and error.status == 404
    sys.stdout.flush()
    for text in errors:
        print(text, file=sys.stderr)
    return 1 if errors and not (o.force and missing) else 0


def prune(call: Invocation) -> int:
    from sampan.cli.verbs import confirmed

    o = call.options
    what = "all images without at least one container associated to them" if o.all else "all dangling images"
    wanted = {**filters(o.filter), "dangling": ["false" if o.all else "true"]}
    if o.keep is not None:
        wanted["keep"] = [str(o.keep)]
        what = f"all but the {o.keep} newest tags of every repository, unless a container uses them"
    if o.unused_for:
        wanted["unused-for"] = [o.unused_for]
        what += f", if they were not used for {o.unused_for}" if o.keep is not None else ""
        what = what if o.keep is not None else f"all images that were not used for {o.unused_for}"
    if not o.force and not confirmed(f"WARNING! This will remove {what}."):
        return 0
    done = call.client.images.prune(wanted)
    if done.images_deleted:
        print("Deleted Images:")
        for one in done.images_deleted:
            print(f"deleted: {one.deleted}" if one.deleted else f"untagged: {one.untagged}")
        print()
    print(f"Total reclaimed space: {units.size(done.space_reclaimed, 4)}")
    return 0


def _input(stack: ExitStack, path: str) -> BinaryIO:
    if path not in ("", "-"):
        return stack.enter_context(open(path, "rb"))
    if sys.stdin.isatty():
        raise Exit(1, "requested load from stdin, but stdin is empty")
    return sys.stdin.buffer


def load(call: Invocation) -> int:
    from sampan.cli.progress import follow

    with ExitStack() as stack:
        o = call.options
        quiet = o.quiet or not sys.stdout.isatty()
        follow(call.client.images.load(_input(stack, o.input), quiet=quiet, platform=o.platform))
    return 0


def import_(call: Invocation) -> int:
    from sampan.cli.progress import follow

    o, source = call.options, call.arguments[0]
    repository, name = _split(call.arguments[1]) if len(call.arguments) > 1 else ("", "")
    with ExitStack() as stack:
        tar = source if source.startswith(("http://", "https://")) else _input(stack, source)
        follow(call.client.images.import_(
            tar, repo=repository, tag=name, message=o.message, changes=o.change, platform=o.platform))  # fmt: skip
    return 0


def save(call: Invocation) -> int:
    from sampan.cli.output import write_tar

    write_tar(call.options.output, call.client.images.save(call.arguments, platform=call.options.platform))
    return 0


def sbom(call: Invocation) -> int:
    from sampan.cli.output import write_tar

    content = call.client.images.sbom(call.arguments[0])
    if call.options.output:
        write_tar(call.options.output, (content,))
    else:
        sys.stdout.buffer.write(content)
    return 0


def bootstrap(call: Invocation) -> int:
    from sampan.cli import serve
    from sampan.cli.progress import follow
    from sampan.client.errors import NoDaemon

    o = call.options
    try:
        call.client.system.ping()
    except NoDaemon:
        if not serve.start_for(call):
            raise
    last = follow(call.client.images.bootstrap(" ".join(call.arguments), tag=o.tag), quiet=o.quiet)
    if o.quiet and last:
        print(last)
    return 0
