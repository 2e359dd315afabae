"""What an archive says is in it: docker-save's manifest.json, or an OCI layout's index.json, read into plans.

Nothing here is believed: paths are keys into the files that the archive really had, digests are checked against them, an
index is walked no deeper than 4 and no wider than 1000 entries, each once (SECURITY.md rows 47, 48, 49, 53).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from sampan.engine.images.archive import Part
from sampan.errors import InvalidRequest
from sampan.oci import image as oci
from sampan.oci.digest import Digest, algorithm, encoded
from sampan.oci.image import Descriptor, Index, Manifest
from sampan.oci.reference import Reference, parse

MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "s390x": "s390x", "ppc64le": "ppc64le"}
_NAME_KEYS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MAX_IMAGES = 1000
_MAX_TAGS = 1000


def host_architecture() -> str:
    """Return GOARCH's name of this machine."""
    machine = platform.machine()
    return MACHINES.get(machine, machine)


@dataclass(frozen=True)
class Plan:
    """One image to be stored: its configuration, its layers base first, its names, and its manifest (with its type), if any."""

    config: Part
    layers: tuple[Part, ...]
    tags: tuple[Reference, ...]
    manifest: Part | None = None
    media_type: str = ""


class Item(msgspec.Struct, rename="pascal", frozen=True, kw_only=True):
    """An element of manifest.json."""

    config: str
    repo_tags: list[str] = []
    layers: list[str] = []


class Layout(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    image_layout_version: str = ""


def plans(files: Mapping[str, Part], architecture: str = "") -> list[Plan]:
    """Return the images of an archive.  Raises InvalidRequest in Docker's words."""
    if "oci-layout" in files:
        version = oci.decode(files["oci-layout"].document(), Layout, "oci-layout").image_layout_version
        if version != "1.0.0":
            raise InvalidRequest(f"unsupported OCI version {version[:40]}")
        if "index.json" not in files:
            raise InvalidRequest("missing index.json in OCI layout 1.0.0")
    if "manifest.json" in files:
        return _docker(files)
    if "oci-layout" in files:
        return _Walk(files, architecture or host_architecture()).run()
    raise InvalidRequest("invalid archive: does not contain a manifest.json")


def _docker(files: Mapping[str, Part]) -> list[Plan]:
    value: Any = oci.strict(files["manifest.json"].document(), "manifest.json")
    if value is None:
        raise InvalidRequest("invalid manifest, manifest cannot be null (but can be [])")
    try:
        items = msgspec.convert(value, list[Item])
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"manifest.json: {str(error)[:300]}") from None
    if len(items) > _MAX_IMAGES or sum(len(item.repo_tags) for item in items) > _MAX_TAGS:
        raise InvalidRequest("manifest.json names too many images")
    manifests = _Walk(files, "").manifests() if "index.json" in files and "oci-layout" in files else {}
    found = []
    for item in items:
        if len(item.layers) > oci.MAX_LAYERS:
            raise InvalidRequest(f"image has {len(item.layers)} layers, at most {oci.MAX_LAYERS}")
        tags = tuple(_tag(text) for text in item.repo_tags)
        config, layers = _file(files, item.config), tuple(_file(files, layer) for layer in item.layers)
        found.append(Plan(config, layers, tags, *manifests.get((config, layers), (None, ""))))
    return found


def _tag(text: str) -> Reference:
    reference = parse(text)
    if not reference.tag or reference.digest is not None:
        raise InvalidRequest(f"invalid tag {text[:120]!r}")
    return reference


def _file(files: Mapping[str, Part], name: str) -> Part:
    """Return the archive's file `name`; one that is called after a digest must have it."""
    part = files.get(name.removeprefix("./"))
    if part is None:
        raise InvalidRequest(f"invalid archive: {name[:200]!r} is missing")
    folder, _, last = name.rpartition("/")
    if folder.endswith("blobs/sha256") and encoded(part.digest) != last:
        raise InvalidRequest(f"content of {name[:200]!r} is {part.digest}")
    return part


Chosen = tuple[Manifest, Part, str]  # a manifest as it is read and as it is stored, and its type


class _Walk:
    """The walk over an OCI layout from index.json.  architecture: "" for any."""

    def __init__(self, files: Mapping[str, Part], architecture: str) -> None:
        self._files = files
        self._architecture = architecture
        self._nodes = 0
        self._seen: set[Digest] = set()

    def _listed(self) -> list[Descriptor]:
        index = oci.decode(self._files["index.json"].document(), Index, "index.json")
        oci.read_manifest(self._files["index.json"].document(), index.media_type or oci.OCI_INDEX, "index.json")
        return index.manifests

    def run(self) -> list[Plan]:
        found: dict[Part, Plan] = {}
        listed = self._listed()
        for descriptor in listed:
            if not _is_image(descriptor):
                continue
            self._seen.clear()
            chosen = self._choose(descriptor, 1)
            if chosen is None or chosen[0].config.media_type == oci.EMPTY_CONFIG or chosen[0].subject is not None:
                continue  # an artifact
            manifest, part, kind = chosen
            config, layers = self._blob(manifest.config), tuple(self._blob(layer) for layer in manifest.layers)
            tags = (*(found[config].tags if config in found else ()), *_names(descriptor))
            found[config] = Plan(config, layers, tuple(dict.fromkeys(tags)), part, kind)
        if listed and not found:
            raise InvalidRequest(f"archive has no image for linux/{self._architecture}")
        return list(found.values())

    def manifests(self) -> dict[tuple[Part, tuple[Part, ...]], tuple[Part, str]]:
        """Return the manifest, with its type, of each (configuration, layers) that is whole in the archive."""
        found: dict[tuple[Part, tuple[Part, ...]], tuple[Part, str]] = {}
        for descriptor in self._listed():
            for manifest, part, kind in self._below(descriptor, 1):
                parts = [self._part(one) for one in (manifest.config, *manifest.layers)]
                whole = [one for one in parts if one is not None]
                if len(whole) == len(parts):
                    found[whole[0], tuple(whole[1:])] = (part, kind)
        return found

    def _below(self, descriptor: Descriptor, depth: int) -> Iterator[Chosen]:
        """Yield every manifest at and below `descriptor` that is in the archive, as far as the limits go."""
        digest, self._nodes = descriptor.checked(), self._nodes + 1
        part = self._part(descriptor) if digest not in self._seen and self._nodes <= oci.MAX_INDEX_NODES else None
        self._seen.add(digest)
        if part is None or depth > oci.MAX_INDEX_DEPTH or descriptor.media_type not in oci.INDEX_TYPES | oci.MANIFEST_TYPES:
            return
        document = oci.read_manifest(part.document(), descriptor.media_type, f"manifest {digest}")
        if isinstance(document, Manifest):
            yield document, part, descriptor.media_type
            return
        for child in document.manifests:
            yield from self._below(child, depth + 1)

    def _choose(self, descriptor: Descriptor, depth: int) -> Chosen | None:
        """Return the first manifest below `descriptor` that is for the architecture."""
        digest = descriptor.checked()
        self._nodes += 1
        if depth > oci.MAX_INDEX_DEPTH or self._nodes > oci.MAX_INDEX_NODES:
            raise InvalidRequest("image index is nested too deep or too wide")
        if digest in self._seen or descriptor.media_type not in oci.INDEX_TYPES | oci.MANIFEST_TYPES:
            return None
        self._seen.add(digest)
        part = self._part(descriptor)
        if part is None:  # left out by the tool that wrote the archive
            return None
        document = oci.read_manifest(part.document(), descriptor.media_type, f"manifest {digest}")
        if isinstance(document, Manifest):
            return document, part, descriptor.media_type
        for child in document.manifests:
            if _is_image(child, self._architecture) and (manifest := self._choose(child, depth + 1)) is not None:
                return manifest
        return None

    def _part(self, descriptor: Descriptor) -> Part | None:
        digest = descriptor.checked()
        part = self._files.get(f"blobs/{algorithm(digest)}/{encoded(digest)}")
        if part is not None and (part.size != descriptor.size or part.digest_as(digest) != digest):
            raise InvalidRequest(f"content of blob {digest} is {part.digest} of {part.size} bytes")
        return part

    def _blob(self, descriptor: Descriptor) -> Part:
        part = self._part(descriptor)
        if part is None:
            raise InvalidRequest(f"invalid archive: blob {descriptor.digest[:160]} is missing")
        return part


def _is_image(descriptor: Descriptor, architecture: str = "") -> bool:
    """Return whether the entry may be an image for the architecture, "" for any (attestations say unknown/unknown)."""
    wanted = descriptor.platform
    if (descriptor.annotations or {}).get("vnd.docker.reference.type"):
        return False
    if not architecture:
        return wanted is None or wanted.os != "unknown"
    return wanted is None or (wanted.os in ("", "linux") and wanted.architecture in ("", architecture))


def _names(descriptor: Descriptor) -> tuple[Reference, ...]:
    """Return the full name that the annotations give, if they do; a bare tag names no repository."""
    for key in _NAME_KEYS:
        text = (descriptor.annotations or {}).get(key, "")
        if ":" in text or "/" in text:
            return (parse(text).tagged(),)
    return ()
