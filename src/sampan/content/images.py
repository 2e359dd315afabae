"""Which images there are, what they are made of, and what they are called.

An image's ID is the digest of its configuration, and the key of its record (state.py).  It may have any number of names
(image_names.py), or none (dangling).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from sampan.content.blobs import Blobs
from sampan.content.image_names import ImageNames
from sampan.errors import Conflict, InvalidRequest, NotFound
from sampan.oci.digest import Digest, is_hex
from sampan.oci.image import ImageConfig, decode
from sampan.oci.reference import Reference, parse
from sampan.state import State, Table

HOUR = 3600 * 10**9  # nanoseconds
MAX_REFERRERS = 8  # documents attached to one image


class LayerRef(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of an image: its identities, and the blob it came as.  sizes: bytes; `size` unpacked, `blob_size` stored."""

    diff_id: Digest
    chain_id: Digest
    blob: Digest
    blob_size: int
    media_type: str
    size: int


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lists need of a configuration, kept in the record so that a list opens no blob."""

    created: str = ""
    labels: dict[str, str] = {}


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An image.  Times are nanoseconds since the epoch; `manifest` is the digest of a stored manifest, if any.

    facts: None in records of an older Sampan.
    """

    id: Digest
    layers: tuple[LayerRef, ...]
    manifest: Digest | None = None
    media_type: str = ""
    parent: str = ""
    added: int = 0
    facts: Facts | None = None

    @property
    def chain_ids(self) -> tuple[Digest, ...]:
        return tuple(layer.chain_id for layer in self.layers)

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)

    def blobs(self) -> Iterator[Digest]:
        """Yield every blob the image needs."""
        yield self.id
        if self.manifest is not None:
            yield self.manifest
        for layer in self.layers:
            yield layer.blob


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that was pulled whole before its image was; since: nanoseconds."""

    layer: LayerRef
    since: int


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """When a container was last made from an image, to the hour; at: nanoseconds."""

    at: int


class Referrer(msgspec.Struct, frozen=True, kw_only=True):
    """A document about an image, such as its SBOM: the manifest that attaches it to `subject`, its type, and its blobs."""

    manifest: Digest
    subject: Digest
    artifact_type: str
    blobs: tuple[Digest, ...]


class Referrers(msgspec.Struct, frozen=True, kw_only=True):
    """What is attached to an image."""

    found: tuple[Referrer, ...] = ()


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Repositories (full names) known to hold a blob, newest last."""

    repositories: tuple[str, ...] = ()


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """How a layer that is stored plain was compressed for a registry."""

    digest: Digest
    size: int


class Catalogue(ImageNames):
    """Images and their names.  Thread-safe; every change is durable when it returns."""

    def __init__(self, state: State, blobs: Blobs) -> None:
        super().__init__(state)
        self.blobs = blobs
        self._images = Table(state, "image", ImageRecord)
        self._kept = Table(state, "kept-layer", Kept)
        self._used = Table(state, "image-used", Used)
        self._referrers = Table(state, "image-referrers", Referrers)
        self.sources = Table(state, "blob-source", Sources)
        self.packed = Table(state, "packed-layer", Packed)
        self._configs: dict[Digest, ImageConfig] = {}
        self._users = 0
        self._quiet = threading.Condition()
        self.settlers: list[Callable[[], None]] = []  # called before a record needs what is stored
        self.holders: list[Callable[[], Iterable[LayerRef]]] = []  # who else needs layers: the build cache

    # Images

    def add(self, record: ImageRecord, referrers: Iterable[Referrer] = ()) -> None:
        """Make the image known, with what is attached to it; its blobs and layers must be stored already."""
        for settle in self.settlers:
            settle()
        if record.facts is None:
            record = msgspec.structs.replace(record, facts=facts_of(self.config(record.id)))
        with self.state.batch():
            self._images.put(record.id, record)
            for layer in record.layers:
                self._kept.delete(layer.chain_id)
            self.attach(record.id, referrers)

    def attach(self, image: Digest, referrers: Iterable[Referrer]) -> None:
        """Attach documents to an image, each content once and MAX_REFERRERS at most; to one that is gone, nothing."""
        with self.state.batch():
            found = list(self.referrers(image))
            for one in referrers:
                if all((one.artifact_type, one.blobs) != (known.artifact_type, known.blobs) for known in found):
                    found.append(one)
            if found and self._images.get(image) is not None:
                self._referrers.put(image, Referrers(found=tuple(found[:MAX_REFERRERS])))

    def detach(self, blob: Digest) -> bool:
        """Take away every attached document that needs the blob; return whether there was one."""
        done = False
        with self.state.batch():
            for image, kept in list(self._referrers.items()):
                rest = tuple(one for one in kept.found if blob != one.manifest and blob not in one.blobs)
                if rest != kept.found:
                    self._referrers.put(image, Referrers(found=rest))
                    done = True
        return done

    def referrers(self, image: Digest) -> tuple[Referrer, ...]:
        """Return what is attached to the image."""
        kept = self._referrers.get(image)
        return kept.found if kept is not None else ()

    def used(self, image: Digest, now: int) -> None:
        """Remember that the image is used; written once an hour, so that most starts cost nothing."""
        found = self._used.get(image)
        if found is None or now - found.at > HOUR:
            self._used.put(image, Used(at=now))

    def last_used(self, record: ImageRecord) -> int:
        """Return when the image was last used, named or brought here, in nanoseconds."""
        found = self._used.get(record.id)
        return max(found.at if found is not None else 0, record.added, self.last_tagged(record.id))

    def keep_layer(self, layer: LayerRef, now: int) -> None:
        """Keep a layer whose image is not here yet, for a day: a pull that goes on finds it."""
        self._kept.put(layer.chain_id, Kept(layer=layer, since=now))

    def find_layer(self, chain_id: Digest) -> LayerRef | None:
        """Return a layer of any image, or one that is kept for an image to come."""
        kept = self._kept.get(chain_id)
        if kept is not None:
            return kept.layer
        for _, record in self._images.items():
            for layer in record.layers:
                if layer.chain_id == chain_id:
                    return layer
        return None

    def drop_kept(self, before: int) -> int:
        """Keep layers without an image no longer that were pulled before `before` (nanoseconds); return how many."""
        old = [chain for chain, kept in self._kept.items() if kept.since < before]
        for chain in old:
            self._kept.delete(chain)
        return len(old)

    def add_source(self, digest: Digest, repository: str) -> None:
        """Remember that a repository (its full name) holds the blob; the ten newest are kept."""
        found = self.sources.get(digest) or Sources()
        if found.repositories[-1:] != (repository,):
            rest = tuple(one for one in found.repositories if one != repository)
            self.sources.put(digest, Sources(repositories=(*rest, repository)[-10:]))

    def get(self, image: Digest) -> ImageRecord:
        """Return the record.  Raises NotFound."""
        found = self._images.get(image)
        if found is None:
            raise NotFound(f"No such image: {image}")
        return found

    def find(self, image: Digest) -> ImageRecord | None:
        """Return the record, or None."""
        return self._images.get(image)

    def all(self) -> list[ImageRecord]:
        return [record for _, record in self._images.items()]

    def forget(self, image: Digest) -> None:
        """Remove the image and every name it has."""
        with self.state.batch():
            for reference in (*self.tags(image), *self.repo_digests(image)):
                self.untag(reference)
            self._images.delete(image)
            self._used.delete(image)
            self._referrers.delete(image)
        self._configs.pop(image, None)

    def config(self, image: Digest) -> ImageConfig:
        """Return the image's configuration, kept in memory once read.  Raises NotFound, Broken."""
        found = self._configs.get(image)
        if found is None:
            found = decode(self.blobs.read(image), ImageConfig, f"configuration of {image}")
            self._configs[image] = found
        return found

    def facts(self, record: ImageRecord) -> Facts:
        """Return what lists need.  Raises NotFound, Broken for an old record whose configuration is damaged."""
        return record.facts if record.facts is not None else facts_of(self.config(record.id))

    # By what people write

    def resolve(self, text: str) -> tuple[Digest, Reference | None]:
        """Return the image that `text` means, and the name if it is one: name, ID, or the start of an ID.

        Raises NotFound `No such image: NAME:TAG`, InvalidRequest for what can be no reference, Conflict when the start of
        an ID fits several.
        """
        bare = text.removeprefix("sha256:")
        if is_hex(bare, 64):
            if self._images.get(f"sha256:{bare}") is None:
                raise NotFound(f"No such image: {text}")
            return Digest(f"sha256:{bare}"), None
        if text.startswith("sha256:"):
            return self._by_prefix(bare, text), None
        reference = parse(text)
        if reference.digest is not None:  # the digest decides; a tag beside it says nothing
            reference = Reference(reference.domain, reference.path, "", reference.digest)
        image = self.named(reference.tagged())
        if image is not None:
            return image, reference.tagged()
        if not reference.tag and reference.digest is None and 4 <= len(text) < 64 and is_hex(text, len(text)):
            try:
                return self._by_prefix(text, f"{text}:latest"), None
            except NotFound:
                pass
        raise NotFound(f"No such image: {reference.tagged().familiar}")

    def _by_prefix(self, prefix: str, text: str) -> Digest:
        if not prefix or not is_hex(prefix, len(prefix)):
            raise InvalidRequest("invalid reference format")
        found = [key for key, _ in self._images.items() if key.startswith(f"sha256:{prefix}")]
        if len(found) > 1:
            raise Conflict(f"ambiguous image ID prefix {prefix}: {len(found)} images fit")
        if not found:
            raise NotFound(f"No such image: {text}")
        return Digest(found[0])

    # Garbage

    @contextmanager
    def adding(self) -> Iterator[None]:
        """While inside, blobs and layers that no record names yet are not garbage."""
        with self._quiet:
            self._users += 1
        try:
            yield
        finally:
            with self._quiet:
                self._users -= 1

    @contextmanager
    def collecting(self) -> Iterator[bool]:
        """Keep `adding` out while inside; gives False, and nothing may be deleted, when somebody is adding."""
        with self._quiet:
            yield self._users == 0

    def reachable(self) -> tuple[set[Digest], set[Digest]]:
        """Return every (blob, layer chain) that an image needs."""
        blobs: set[Digest] = set()
        chains: set[Digest] = set()
        for record in self.all():
            blobs.update(record.blobs())
            chains.update(record.chain_ids)
        for _, attached in self._referrers.items():
            for one in attached.found:
                blobs.update((one.manifest, *one.blobs))
        for chain, kept in self._kept.items():
            blobs.add(kept.layer.blob)
            chains.add(Digest(chain))
        for layer in [one for holder in self.holders for one in holder()]:
            blobs.add(layer.blob)
            chains.add(layer.chain_id)
        return blobs, chains

    def broken(self) -> list[tuple[str, str]]:
        """Return (key, reason) of every record that cannot be read."""
        tables = (self._images, self._tags.table, self._digests.table, self._kept, self._referrers)
        return [one for table in tables for one in table.broken()]


def facts_of(config: ImageConfig) -> Facts:
    return Facts(created=config.created or "", labels=(config.config.labels if config.config else None) or {})
