"""Giving an image another name."""

from __future__ import annotations

import time

from sampan.engine.images.context import Event, Stores
from sampan.errors import InvalidRequest
from sampan.oci.reference import with_tag


def tag(stores: Stores, ref: str, repo: str, new_tag: str) -> list[Event]:
    """Name the image `repo:new_tag` (`latest` by default), which may take the name from another.

    Raises NotFound, InvalidRequest.
    """
    image, _ = stores.catalogue.resolve(ref)
    if repo in ("sha256", "sha512"):
        raise InvalidRequest(f"refusing to create an ambiguous tag using digest algorithm as name: {repo}")
    reference = with_tag(repo, new_tag)
    with stores.catalogue.adding():
        stores.catalogue.get(image)
        stores.catalogue.tag(reference, image, time.time_ns())
    return [stores.event("tag", image, reference.familiar)]
