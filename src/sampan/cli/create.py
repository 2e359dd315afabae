"""sampan create, and what it shares with run: making the container, fetching its image when that is missing."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from sampan.cli.create_body import body
from sampan.cli.main import Exit, Invocation, describe
from sampan.client.errors import ApiError, ClientError, NoDaemon

if TYPE_CHECKING:
    from sampan.wire.containers import CreateBody


def create(call: Invocation) -> int:
    try:
        print(make(call, body(call.options, call.arguments[0], call.arguments[1:], detach=False)))
    except (ClientError, Exit) as error:
        return failed(call, error)
    return 0


def failed(call: Invocation, error: Exception) -> int:
    """125 in docker's form, when it was not the container that failed; what the daemon says of a create is 1, and no more words."""
    if call.name.endswith("create") and not isinstance(error, Exit):
        print(describe(error), file=sys.stderr)
        return 1
    text = error.text if isinstance(error, Exit) else describe(error)
    print(f"sampan: {text}\n\nRun 'sampan {call.name} --help' for more information", file=sys.stderr)
    return error.code if isinstance(error, Exit) else 125


def make(call: Invocation, wanted: CreateBody) -> str:
    """Create the container and return its id; warnings go to stderr.  Raises ClientError, Exit."""
    from sampan.cli import serve

    o = call.options
    with_cidfile = None
    if o.cidfile:
        with_cidfile = _cidfile(o.cidfile)
    try:
        try:
            made = _create(call, wanted)
        except NoDaemon:
            if not serve.start_for(call):
                raise
            made = _create(call, wanted)
        if with_cidfile is not None:
            os.write(with_cidfile, made.encode())
        return made
    except BaseException:
        if with_cidfile is not None:
            os.unlink(o.cidfile)
        raise
    finally:
        if with_cidfile is not None:
            os.close(with_cidfile)


def _cidfile(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise Exit(125, f"container ID file found, make sure the other container isn't running or delete {path}") from None
    except OSError as error:
        raise Exit(125, f"failed to create the container ID file: {path}: {error.strerror}") from None


def _create(call: Invocation, wanted: CreateBody) -> str:
    o = call.options
    if o.pull == "always":
        pull(call, wanted.image)
    try:
        made = call.client.containers.create(wanted, name=o.name, platform=o.platform)
    except ApiError as error:
        if error.status != 404 or o.pull != "missing" or "No such image" not in error.message:
            raise
        if not o.quiet:
            print(f"Unable to find image '{tagged(wanted.image)}' locally", file=sys.stderr)
        pull(call, wanted.image)
        made = call.client.containers.create(wanted, name=o.name, platform=o.platform)
    for warning in made.warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    return made.id


def tagged(image: str) -> str:
    return image if "@" in image or ":" in image.rsplit("/", 1)[-1] else image + ":latest"


def pull(call: Invocation, image: str) -> None:
    from sampan.cli.credentials import header
    from sampan.cli.progress import follow
    from sampan.cli.registry import split

    name, tag = split(tagged(image))
    auth = header(image)
    follow(call.client.images.pull(name, tag, platform=call.options.platform, auth=auth), quiet=call.options.quiet, file=sys.stderr)
