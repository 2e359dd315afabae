"""--build-context NAME=SOURCE: what the daemon fetches is told it, what is here is sent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from sampan.cli.main import Exit
from sampan.client.builder import Sent

_ELSEWHERE = ("docker-image://", "http://", "https://", "git://", "ssh://", "git@")
_LAYOUT = "oci-layout://"
_NAME = "org.opencontainers.image.ref.name"
_CHUNK = 1 << 18


class Contexts:
    """The named contexts of a build.  sources: those that the daemon finds by itself, as NAME=SOURCE."""

    def __init__(self, given: list[str]) -> None:
        self.sources: list[str] = []
        self._here: list[tuple[str, str]] = []
        for one in given:
            name, equals, source = one.partition("=")
            if not (name and equals and source):
                raise Exit(125, f"invalid build context {one!r}: NAME=SOURCE is expected")
            if source.startswith(_ELSEWHERE):
                self.sources.append(one)
            else:
                self._here.append((name, source))
                self._check(name, source)

    @staticmethod
    def _check(name: str, source: str) -> None:
        path = _place(source)[0] if source.startswith(_LAYOUT) else source
        if not (os.path.isdir(path) or (os.path.isfile(path) and not source.startswith(_LAYOUT))):
            raise Exit(1, f'build context {name}: path "{path}" not found')

    def uploads(self) -> tuple[Sent, ...]:
        """Return what is to be sent; can be asked for several times.  Raises Exit."""
        return tuple(self._upload(name, source) for name, source in self._here)

    @staticmethod
    def _upload(name: str, source: str) -> Sent:
        from sampan.client import context

        if source.startswith(_LAYOUT):
            return Sent("image", name, _layout(name, *_place(source)))
        if os.path.isfile(source):
            return Sent("context", name, _file(source))
        return Sent("context", name, context.tar(source, context.ignore_of(source, "Dockerfile"), {}))


def _file(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while data := file.read(_CHUNK):
            yield data


def _place(source: str) -> tuple[str, str, str]:
    """Return folder, tag and digest of `oci-layout://FOLDER[:TAG][@DIGEST]`."""
    path, _, digest = source.removeprefix(_LAYOUT).partition("@")
    head, colon, tag = path.rpartition(":")
    return (head, tag, digest) if colon and "/" not in tag else (path, "", digest)


def _layout(name: str, folder: str, tag: str, digest: str) -> Iterator[bytes]:
    """Yield an archive of the layout with one image in its index: the one of the digest or the tag, or the only one."""
    from sampan.client import context
    from sampan.files.ignore import Ignore

    try:
        with open(os.path.join(folder, "index.json"), "rb") as file:
            index = json.load(file)
        found = [one for one in index["manifests"] if (not digest or one["digest"] == digest) and (not tag or tag == _tag(one))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Exit(1, f"build context {name}: {folder} is no OCI layout: {error}") from None
    if len(found) != 1:
        raise Exit(1, f"build context {name}: {len(found)} images match in {folder}: name one with :TAG or @DIGEST")
    one = {key: value for key, value in found[0].items() if key != "annotations"}
    chosen = json.dumps({"schemaVersion": 2, "manifests": [one]}).encode()
    yield from context.tar(folder, Ignore(["*", "!blobs", "!oci-layout"]), {"index.json": chosen})


def _tag(descriptor: dict[str, dict[str, str]]) -> str:
    return (descriptor.get("annotations") or {}).get(_NAME, "").rpartition(":")[2]
