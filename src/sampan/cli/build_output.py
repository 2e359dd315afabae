"""Where the result of a build goes besides the daemon's images: a folder, a tar, an archive of the image."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sampan.cli.main import Exit
from sampan.cli.output import write_tar
from sampan.client.api import Client
from sampan.files.tar_apply import Options, Whiteouts, apply
from sampan.kernel.fds import open_fd
from sampan.wire.containers import CreateBody

KINDS = ("local", "tar", "oci", "docker")


def deliver(client: Client, image: str, wanted: str) -> None:
    """Write the image as `--output` says: DIR, `-`, or type=...,dest=....  Raises Exit."""
    kind, destination = _parse(wanted)
    if kind in ("oci", "docker"):
        write_tar(_file(destination), client.images.save([image]))
        return
    container = client.containers.create(CreateBody(image=image, cmd=["-"], entrypoint=[])).id
    try:
        pieces = client.builder.export(container)
        if kind == "tar":
            write_tar(_file(destination), pieces)
        else:
            _unpack(destination, pieces)
    finally:
        client.containers.remove(container, force=True)


def _parse(wanted: str) -> tuple[str, str]:
    if "=" not in wanted:
        return ("tar", "-") if wanted == "-" else ("local", wanted)
    fields = dict(part.partition("=")[::2] for part in wanted.split(","))
    kind, destination = fields.get("type", ""), fields.get("dest") or fields.get("destination") or ""
    if kind not in KINDS:
        raise Exit(125, f"unknown output type {kind!r}: {', '.join(KINDS)}")
    if not destination:
        raise Exit(125, f"output of type {kind} needs dest=")
    return kind, destination


def _file(destination: str) -> str:
    return "" if destination == "-" else destination


class _Reader:
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int = 1 << 18, /) -> bytes:
        self._left = self._left or next(self._pieces, b"")
        data, self._left = self._left[:size], self._left[size:]
        return data


def _unpack(destination: str, pieces: Iterator[bytes]) -> None:
    """Unpack as the user who asks: no devices, no ownership, nothing outside of the folder (SECURITY.md row 73)."""
    os.makedirs(destination, exist_ok=True)
    owner = (os.geteuid(), os.getegid())
    with open_fd(destination, os.O_RDONLY | os.O_DIRECTORY) as folder:
        apply(_Reader(pieces), folder, whiteouts=Whiteouts.PLAIN, options=Options(owner=owner, special=False))
