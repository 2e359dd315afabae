"""--cache-from and --cache-to: registries are the daemon's, folders are ours."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator

from sampan.cli.main import Exit
from sampan.client.api import Client
from sampan.client.builder import Sent


class Caches:
    """What a build imports from and exports to.  names, exports: what the daemon is told."""

    def __init__(self, cache_from: list[str], cache_to: list[str]) -> None:
        self.names: list[str] = []
        self._folders: list[str] = []
        for one in cache_from:
            fields = _fields(one)
            kind = fields.get("type", "registry")
            if kind == "local":
                self._folder(fields.get("src", ""))
            elif kind == "registry" and fields.get("ref"):
                self.names.append(fields["ref"])
            else:
                raise Exit(125, f"invalid cache-from {one!r}: NAME, type=registry,ref=NAME or type=local,src=FOLDER")
        self.exports: list[str] = []
        self._targets: list[str] = []
        for one in cache_to:
            fields = _fields(one)
            if fields.get("type") == "local":
                if not fields.get("dest"):
                    raise Exit(125, f"invalid cache-to {one!r}: type=local needs dest=FOLDER")
                self._targets.append(fields["dest"])
                one = f"type=local,mode={fields.get('mode', 'min')}"
            self.exports.append(one)

    def _folder(self, folder: str) -> None:
        if os.path.isfile(os.path.join(folder, "index.json")):
            self._folders.append(folder)
        else:  # the first build of a series has nothing to import yet
            print(f"[Warning] cache-from {folder}: no cache is there", file=sys.stderr)

    def uploads(self) -> tuple[Sent, ...]:
        """Return what is to be sent; can be asked for several times."""
        from sampan.client import context
        from sampan.files.ignore import Ignore

        return tuple(Sent("cache", "", context.tar(folder, Ignore(()), {})) for folder in self._folders)

    def fetch(self, client: Client, steps: list[list[str]]) -> None:
        """Put the steps into their folders: what was there before is replaced by a whole cache, or stays."""
        for target, keys in zip(self._targets, steps, strict=True):
            _replace(target, client.builder.steps(keys))


def _fields(text: str) -> dict[str, str]:
    if "=" not in text:
        return {"ref": text}
    return {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in text.split(","))}


def _replace(target: str, pieces: Iterator[bytes]) -> None:
    from sampan.cli.build_output import unpack

    target = target.rstrip("/")
    if os.path.isdir(target) and os.listdir(target) and not os.path.isfile(os.path.join(target, "oci-layout")):
        raise Exit(1, f"{target} is neither empty nor a cache: it is left alone")
    made = f"{target}.{secrets.token_hex(8)}"
    try:
        unpack(made, pieces)
        if os.path.isdir(target):
            os.rename(target, f"{made}.old")
        os.rename(made, target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(f"{made}.old", ignore_errors=True)
