"""Mounts of type image: another image's files, read-only (engine-api 4.5)."""

from __future__ import annotations

import os

from msgspec import structs

from sampan.engine.context import Rooms
from sampan.engine.records import Place
from sampan.errors import InvalidRequest, NotFound
from sampan.kernel.fds import Fd
from sampan.kernel.paths import Resolve, open_in
from sampan.storage.mounts import part


def resolved(rooms: Rooms, found: tuple[Place, ...]) -> tuple[Place, ...]:
    """Return the places with each image's id beside what it was called.  Raises NotFound."""
    return tuple(
        structs.replace(place, volume=str(rooms.images.resolve(place.source).id)) if place.kind == "image" else place
        for place in found
    )


def tree(rooms: Rooms, place: Place, userns: Fd | None) -> Fd:
    """Return the image's files as a detached mount.  Raises NotFound, InvalidRequest, OSError.  Blocks."""
    image = rooms.images.find(place.volume)
    if image is None:
        raise NotFound(f"No such image: {place.source}")
    whole = rooms.layers.view_chain(image.chain_ids, userns=userns)
    if not place.subpath:
        return whole
    with whole:
        try:
            return part(whole, lambda top: open_in(top, place.subpath, os.O_PATH, resolve=Resolve.BENEATH | Resolve.NO_MAGICLINKS))
        except OSError as error:
            why = (error.strerror or "").lower()
            raise InvalidRequest(f"cannot access path {place.subpath} of image {place.source}: {why}") from None
