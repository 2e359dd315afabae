"""Where the result of a build goes besides the daemon's images: a folder, a tar, an archive of the image."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass

from sampan.cli.main import Exit
from sampan.cli.output import check_target, write_tar
from sampan.client.api import Client
from sampan.files.tar_apply import Options, Whiteouts, apply
from sampan.kernel.fds import open_fd
from sampan.wire.containers import CreateBody

KINDS = ("local", "tar", "oci", "docker", "image", "registry")


@dataclass(frozen=True)
class Output:
    """One --output.  place: a file, a folder, "" for stdout; names: further tags; packed: an image as one archive."""

    kind: str
    place: str = ""
    names: tuple[str, ...] = ()
    push: bool = False
    packed: bool = True


def parse(wanted: str) -> Output:
    """Read `--output`: DIR, `-`, or type=...,dest=....  Raises Exit before anything is built."""
    if "=" not in wanted:
        return Output("tar") if wanted == "-" else Output("local", wanted)
    fields = {name.strip().lower(): value for name, _, value in (part.partition("=") for part in next(csv.reader([wanted])))}
    kind = fields.get("type", "")
    if kind not in KINDS:
        raise Exit(125, f"unknown output type {kind!r}: {', '.join(KINDS)}")
    place = fields.get("dest") or fields.get("destination") or ""
    names = tuple(one for one in fields.get("name", "").split(",") if one)
    packed = fields.get("tar", "true").lower() not in ("false", "0")
    if kind in ("image", "registry"):
        return Output(kind, "", names, kind == "registry" or fields.get("push", "").lower() in ("true", "1"))
    if not place and kind == "docker":
        return Output("image", "", names)
    if not place:
        raise Exit(125, f"output of type {kind} needs dest=")
    if place == "-" and (kind == "local" or not packed):
        raise Exit(125, f"output of type {kind} needs a folder")
    if place != "-" and packed and kind != "local":
        check_target(place)
    return Output(kind, "" if place == "-" else place, names, packed=packed)


def deliver(client: Client, image: str, output: Output, tags: list[str]) -> None:
    """Write the image where it is wanted, or push its names.  Raises Exit."""
    if output.kind in ("image", "registry"):
        if output.push:
            _push(client, tags)
        return
    if output.kind in ("oci", "docker"):
        pieces = client.images.save(tags or [image])
        if output.packed:
            write_tar(output.place, pieces)
        else:
            unpack(output.place, pieces)
        return
    container = client.containers.create(CreateBody(image=image, cmd=["-"], entrypoint=[])).id
    try:
        pieces = client.builder.export(container)
        if output.kind == "tar":
            write_tar(output.place, pieces)
        else:
            unpack(output.place, pieces)
    finally:
        client.containers.remove(container, force=True)


def _push(client: Client, tags: list[str]) -> None:
    from sampan.cli import credentials
    from sampan.cli.progress import follow
    from sampan.cli.registry import split

    if not tags:
        raise Exit(1, "nothing to push: the image has no name (-t, or name= of the output)")
    for name in tags:
        repository, tag = split(name)
        follow(client.images.push(repository, tag or "latest", auth=credentials.header(name)), quiet=False)


class _Reader:
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int = 1 << 18, /) -> bytes:
        self._left = self._left or next(self._pieces, b"")
        data, self._left = self._left[:size], self._left[size:]
        return data


def unpack(destination: str, pieces: Iterator[bytes]) -> None:
    """Unpack as the user who asks: no devices, no ownership, nothing outside of the folder (SECURITY.md row 73)."""
    os.makedirs(destination, exist_ok=True)
    owner = (os.geteuid(), os.getegid())
    with open_fd(destination, os.O_RDONLY | os.O_DIRECTORY) as folder:
        apply(_Reader(pieces), folder, whiteouts=Whiteouts.PLAIN, options=Options(owner=owner, special=False))
