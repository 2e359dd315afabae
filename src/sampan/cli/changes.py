"""sampan diff, export and commit: what a container changed, its root file system, an image of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.cli.main import Exit
from sampan.wire.archive import CommitOptions

if TYPE_CHECKING:
    from sampan.cli.main import Invocation

_LETTERS = "CAD"


def diff(call: Invocation) -> int:
    if not call.arguments[0]:
        raise Exit(1, "Container name cannot be empty")
    for change in call.client.containers.changes(call.arguments[0]):
        letter = _LETTERS[change.kind] if 0 <= change.kind < len(_LETTERS) else "?"
        print(letter, change.path.encode("utf-8", "replace").decode())
    return 0


def export(call: Invocation) -> int:
    from sampan.cli.output import check_target, write_tar

    check_target(call.options.output)
    write_tar(call.options.output, call.client.containers.export(call.arguments[0]))
    return 0


def commit(call: Invocation) -> int:
    from sampan.oci.reference import parse

    o = call.options
    repository = tag = ""
    if len(call.arguments) > 1:
        named = parse(call.arguments[1])
        if named.digest is not None:
            raise Exit(1, "a digest cannot be the name of a new image")
        repository, tag = named.familiar_name, named.tag or "latest"
    options = CommitOptions(repo=repository, tag=tag, comment=o.message, author=o.author, pause=o.pause, changes=o.change)
    print(call.client.containers.commit(call.arguments[0], options))
    return 0
