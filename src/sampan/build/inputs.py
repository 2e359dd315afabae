"""The named inputs of steps: their digest is the step's key, their difference explains a miss (spec: dockerfile.md 6)."""

from __future__ import annotations

import json
import os

from sampan.build.cache import short_digest
from sampan.build.digests import Digests
from sampan.build.instructions import Mount
from sampan.build.select import Picked, Root
from sampan.build.steps import CopyOp, FolderOp, RunOp

FORMAT = "1"  # changed whenever a step would give something else than before


def of_run(op: RunOp, top: str, host: str, sources: dict[str, str]) -> dict[str, str]:
    """Return a RUN's inputs.  host: limits that change what it sees; sources: the digests of what is mounted from elsewhere."""
    found = {
        "format": FORMAT, "kind": "run", "base": top, "command": short_digest(json.dumps(op.argv)), "user": op.user,
        "folder": op.folder, "network": op.network, "security": op.security, "host": host,
    }  # fmt: skip
    for entry in op.keyed:
        name, _, value = entry.partition("=")
        found[f"variable {name}"] = short_digest(value)
    for path, content in op.files:
        found[f"here-document {path}"] = short_digest(content)
    for number, mount in enumerate(op.mounts):
        if mount.type in ("bind", "cache"):
            found[f"mount {number} at {mount.target}"] = short_digest(_shown(mount))
    return {**found, **{f"mounted {name}": digest for name, digest in sources.items()}}


def _shown(mount: Mount) -> str:
    """A mount without what is not part of the result."""
    if mount.type == "cache":
        return f"cache {mount.target} {mount.mode} {mount.uid} {mount.gid} {mount.readonly}"
    return f"bind {mount.target} {mount.source} {mount.readonly}"


def of_copy(op: CopyOp, top: str) -> dict[str, str]:
    """Return a COPY's or ADD's inputs without its files."""
    found = {
        "format": FORMAT, "kind": "add" if op.adds else "copy", "base": "" if op.link else top, "destination": op.destination,
        "chown": op.chown, "chmod": op.chmod, "link": str(op.link), "parents": str(op.parents), "unpack": str(op.unpack),
        "sources": str(len(op.sources)),
    }  # fmt: skip
    for name, content in op.inline:
        found[f"here-document {name}"] = short_digest(content)
    return found


def of_files(root: Root, picked: list[Picked], digests: Digests) -> dict[str, str]:
    """Return the inputs that files are."""
    return {f"file {one.name or os.path.basename(one.path) or '.'}": digests.entry(root, one) for one in picked}


def of_folder(op: FolderOp, top: str) -> dict[str, str]:
    return {"format": FORMAT, "kind": "folder", "base": top, "path": op.path, "user": op.user}
