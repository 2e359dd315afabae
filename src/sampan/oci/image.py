"""Image manifests, indexes and configurations as data, and the strict JSON reader they come through.

Sources: image-spec 1.1 (descriptor.md, manifest.md, image-index.md, config.md) and Docker's schema 2, whose shape is the
same.  A stored document is kept byte for byte; these values are only what Sampan reads from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from sampan.errors import InvalidRequest
from sampan.oci.digest import Digest
from sampan.oci.digest import parse as parse_digest

MAX_DOCUMENT = 4 << 20  # bytes of one manifest, index or configuration
MAX_DEPTH = 64
MAX_VALUES = 100_000  # commas and opening brackets: bounds what a document can unfold to in memory
MAX_LAYERS = 1000
MAX_INDEX_DEPTH = 4
MAX_INDEX_NODES = 1000

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"  # of artifacts; its content is {}
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
INDEX_TYPES = frozenset((OCI_INDEX, DOCKER_LIST))
MANIFEST_TYPES = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))

T = TypeVar("T")


class Camel(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """An object of a manifest or an index."""


class Platform(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(name="os.version", default=None)


class Descriptor(Camel, frozen=True, kw_only=True):
    """What names a blob: its type, digest and size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    artifact_type: str | None = None
    platform: Platform | None = None

    def checked(self) -> Digest:
        """Return the digest.  Raises InvalidRequest when the digest or the size cannot be."""
        if self.size < 0:
            raise InvalidRequest(f"descriptor {self.digest[:160]!r} has a negative size")
        return parse_digest(self.digest)


class Manifest(Camel, frozen=True, kw_only=True):
    schema_version: int = 2
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: list[Descriptor]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(Camel, frozen=True, kw_only=True):
    schema_version: int = 2
    media_type: str = ""
    manifests: list[Descriptor]
    annotations: dict[str, str] | None = None


class Health(msgspec.Struct, rename="pascal", omit_defaults=True, frozen=True, kw_only=True):
    """HEALTHCHECK; durations are nanoseconds."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Settings(msgspec.Struct, rename="pascal", omit_defaults=True, frozen=True, kw_only=True):
    """`config` of an image: how its containers run unless told otherwise."""

    user: str = ""
    exposed_ports: dict[str, dict[str, str]] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, str]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    healthcheck: Health | None = None
    on_build: list[str] | None = None
    shell: list[str] | None = None
    args_escaped: bool = False


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "layers"
    diff_ids: list[str] = []


class History(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    created: str | None = None
    author: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """The document whose sha256 is the image's ID."""

    created: str | None = None
    author: str = ""
    architecture: str
    os: str
    variant: str | None = None
    os_version: str | None = msgspec.field(name="os.version", default=None)
    config: Settings | None = None
    rootfs: RootFs
    history: list[History] | None = None

    def diff_ids(self) -> tuple[Digest, ...]:
        """Return the layers' identities, base first.  Raises InvalidRequest."""
        if self.rootfs.type != "layers":
            raise InvalidRequest(f"unknown rootfs type {self.rootfs.type[:40]!r} in the image configuration")
        if len(self.rootfs.diff_ids) > MAX_LAYERS:
            raise InvalidRequest(f"image has {len(self.rootfs.diff_ids)} layers, at most {MAX_LAYERS}")
        return tuple(parse_digest(diff_id) for diff_id in self.rootfs.diff_ids)


def strict(content: bytes, subject: str) -> Any:
    """Return the JSON value `content`, refusing what two readers could read in two ways.

    Refused, all InvalidRequest: more than 4 MiB, not UTF-8, a key twice in one object, NaN and infinities, numbers of
    thousands of digits, nesting beyond 64, more than 100 000 values (SECURITY.md row 49).  A null member counts as absent.
    """
    if len(content) > MAX_DOCUMENT:
        raise InvalidRequest(f"{subject} is larger than {MAX_DOCUMENT} bytes")
    if sum(content.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES:
        raise InvalidRequest(f"{subject} holds too many values")
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could never be written out again
    except RecursionError:
        raise InvalidRequest(f"{subject} is nested too deep") from None
    except ValueError as error:
        raise InvalidRequest(f"{subject} is not valid JSON: {str(error)[:200]}") from None
    if any(depth > MAX_DEPTH for depth in _depths(value)):
        raise InvalidRequest(f"{subject} is nested too deep")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return {key: value for key, value in pairs if value is not None}


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _depths(value: Any) -> Iterator[int]:
    """Yield the depth of every container, stopping one below the limit."""
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, dict | list):
            yield depth
            if depth <= MAX_DEPTH:
                waiting += [(child, depth + 1) for child in (item.values() if isinstance(item, dict) else item)]


def decode(content: bytes, kind: type[T], subject: str) -> T:
    """Return `content` as a `kind`, read strictly.  Raises InvalidRequest."""
    value = strict(content, subject)
    _no_look_alikes(value, kind, subject)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{subject}: {str(error)[:300]}") from None


def _no_look_alikes(value: Any, kind: type[Any], subject: str) -> None:
    """Refuse top-level keys that are a known key in other letters: Go's reader would take them, this one would not."""
    fields = getattr(kind, "__struct_encode_fields__", ())
    known = {field.lower(): field for field in fields}
    for key in value if isinstance(value, dict) else ():
        if known.get(key.lower(), key) != key:
            raise InvalidRequest(f"{subject}: key {key[:80]!r} differs from {known[key.lower()]!r} in its letters only")


def read_manifest(content: bytes, media_type: str, subject: str) -> Manifest | Index:
    """Return the manifest or the index in `content`, which must be what `media_type` says (SECURITY.md row 47).

    Raises InvalidRequest when the document says otherwise, or could be read as both.
    """
    value = strict(content, subject)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{subject} is not an object")
    stated = value.get("mediaType")
    if stated not in (None, "", media_type):
        raise InvalidRequest(f"{subject} calls itself {str(stated)[:100]!r}, and was announced as {media_type!r}")
    if "manifests" in value and ("layers" in value or "config" in value):
        raise InvalidRequest(f"{subject} is a manifest and an index at once")
    if value.get("schemaVersion") != 2:
        raise InvalidRequest(f"{subject} has an unsupported schemaVersion")
    if media_type in INDEX_TYPES:
        return decode(content, Index, subject)
    if media_type in MANIFEST_TYPES:
        return decode(content, Manifest, subject)
    raise InvalidRequest(f"{subject} has the unsupported type {media_type[:100]!r}")
