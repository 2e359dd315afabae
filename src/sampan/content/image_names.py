"""What images are called: `tag` by full name (docker.io/library/busybox:latest), `repo-digest` by full canonical name.

A name belongs to one image.  The records are read once and kept in memory, since every list, look-up and container asks for
them; the database is what counts, and is written first.
"""

from __future__ import annotations

import msgspec

from sampan.errors import InvalidRequest
from sampan.oci.digest import Digest
from sampan.oci.reference import Reference, recorded
from sampan.state import State, Table


class Name(msgspec.Struct, frozen=True, kw_only=True):
    """A name's record: the image, and since when (nanoseconds)."""

    image: Digest
    since: int = 0


class _Kind:
    """The names of one kind.  Used under the state's mutex."""

    def __init__(self, state: State, kind: str) -> None:
        self.table = Table(state, kind, Name)
        self._names: dict[Reference, Name] = {}
        self._by_image: dict[Digest, set[Reference]] = {}
        self._read = False
        state.rolled_back.append(self._forget)

    def _forget(self) -> None:
        self._read = False

    def names(self) -> dict[Reference, Name]:
        if not self._read:
            self._names = {recorded(key): name for key, name in self.table.items()}
            self._by_image = {}
            for reference, name in self._names.items():
                self._by_image.setdefault(name.image, set()).add(reference)
            self._read = True
        return self._names

    def of(self, image: Digest) -> list[Reference]:
        self.names()
        return sorted(self._by_image.get(image, ()), key=str)

    def images(self) -> dict[Digest, set[Reference]]:
        self.names()
        return self._by_image

    def put(self, reference: Reference, name: Name) -> Name | None:
        before = self.names().get(reference)
        self.table.put(str(reference), name)
        self._drop(reference)
        self._names[reference] = name
        self._by_image.setdefault(name.image, set()).add(reference)
        return before

    def delete(self, reference: Reference) -> bool:
        self.names()
        there = self.table.delete(str(reference))
        self._drop(reference)
        return there

    def _drop(self, reference: Reference) -> None:
        before = self._names.pop(reference, None)
        if before is not None:
            self._by_image[before.image].discard(reference)
            if not self._by_image[before.image]:
                del self._by_image[before.image]


class ImageNames:
    """The names of all images.  Thread-safe; every change is durable when it returns."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._tags = _Kind(state, "tag")
        self._digests = _Kind(state, "repo-digest")

    def _kind(self, reference: Reference) -> _Kind:
        if bool(reference.tag) == bool(reference.digest):
            raise InvalidRequest(f"{reference} is not a name with either a tag or a digest")
        return self._digests if reference.digest else self._tags

    def tag(self, reference: Reference, image: Digest, since: int) -> Digest | None:
        """Give the image a name; return the other image that lost it, if one did."""
        with self.state.batch():
            before = self._kind(reference).put(reference, Name(image=image, since=since))
        return before.image if before is not None and before.image != image else None

    def untag(self, reference: Reference) -> bool:
        """Take the name away; return whether it was there."""
        with self.state.batch():
            return self._kind(reference).delete(reference)

    def since(self, reference: Reference) -> int:
        """Return since when the image has this name, in nanoseconds; 0 when there is no such name."""
        with self.state.mutex:
            found = self._kind(reference).names().get(reference)
        return found.since if found is not None else 0

    def named(self, reference: Reference) -> Digest | None:
        """Return the image that has exactly this name (a digest must belong to this very repository: row 57)."""
        with self.state.mutex:
            found = self._kind(reference).names().get(reference)
        return found.image if found is not None else None

    def tags(self, image: Digest | None = None) -> list[Reference]:
        """Return the tagged names (of one image), sorted."""
        with self.state.mutex:
            return sorted(self._tags.names(), key=str) if image is None else self._tags.of(image)

    def repo_digests(self, image: Digest | None = None) -> list[Reference]:
        with self.state.mutex:
            return sorted(self._digests.names(), key=str) if image is None else self._digests.of(image)

    def names(self) -> dict[Digest, tuple[list[Reference], list[Reference]]]:
        """Return (tags, repository digests) of every image that has a name: one pass for lists."""
        found: dict[Digest, tuple[list[Reference], list[Reference]]] = {}
        with self.state.mutex:
            for place, kind in enumerate((self._tags, self._digests)):
                for image, references in kind.images().items():
                    found.setdefault(image, ([], []))[place].extend(sorted(references, key=str))
        return found

    def last_tagged(self, image: Digest) -> int:
        """Return when the image was last given a name, in nanoseconds; 0 for never."""
        with self.state.mutex:
            return max((self._tags.names()[one].since for one in self._tags.of(image)), default=0)
