"""An image as containers are made from it, and the conversions between documents and the API's shapes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from sampan.content.images import Catalogue, ImageRecord
from sampan.oci.digest import Digest
from sampan.oci.image import ImageConfig, Settings
from sampan.wire.containers import ContainerConfig
from sampan.wire.shape import NEVER


@dataclass(frozen=True)
class Image:
    """What a container needs to know of its image.  size: bytes unpacked; created: RFC 3339.

    Labels in `config` are the image author's words: data for the user, never settings of the engine (SECURITY.md row 55).
    """

    id: Digest
    chain_ids: tuple[Digest, ...]
    diff_ids: tuple[Digest, ...]
    config: ContainerConfig
    architecture: str
    os: str
    variant: str
    created: str
    size: int
    tags: tuple[str, ...]
    digests: tuple[str, ...]


def image_of(catalogue: Catalogue, record: ImageRecord) -> Image:
    """Return the image behind a record.  Raises Broken when its configuration is damaged."""
    config = catalogue.config(record.id)
    return Image(
        id=record.id,
        chain_ids=record.chain_ids,
        diff_ids=tuple(layer.diff_id for layer in record.layers),
        config=container_config(config.config),
        architecture=config.architecture,
        os=config.os,
        variant=config.variant or "",
        created=config.created or NEVER,
        size=record.size,
        tags=tuple(reference.familiar for reference in catalogue.tags(record.id)),
        digests=tuple(reference.familiar for reference in catalogue.repo_digests(record.id)),
    )


def container_config(settings: Settings | None) -> ContainerConfig:
    """Return an image's settings in the API's shape."""
    return msgspec.convert(msgspec.to_builtins(settings or Settings()), ContainerConfig)


def labels_of(config: ImageConfig) -> dict[str, str]:
    return (config.config.labels if config.config else None) or {}


def short(digest: str) -> str:
    """Return the twelve digits that people see."""
    return digest.removeprefix("sha256:")[:12]


def nanoseconds(text: str | None) -> int:
    """Return an RFC 3339 time as nanoseconds since the epoch; 0 for none, for Go's zero time and for what is no time."""
    if not text or not text.isascii() or len(text) > 40:
        return 0
    whole, dot, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))] if dot else ""
    try:
        found = datetime.fromisoformat(whole + rest[len(digits) :])
    except ValueError:
        return 0
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return max(0, int(found.timestamp()) * 1_000_000_000 + int((digits + "0" * 9)[:9]))


def rfc3339(moment: int) -> str:
    """Return nanoseconds since the epoch as RFC 3339 in UTC, fractions only where there are any."""
    seconds, fraction = divmod(moment, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else text + "Z"
