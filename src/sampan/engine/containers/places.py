"""Binds, mounts, tmpfs and volumes of a create body, as places (engine-api 4.2, 4.5)."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from msgspec import UNSET

from sampan.engine.records import Place
from sampan.errors import InvalidRequest, Unsupported
from sampan.oci.proc_mounts import refuse_over_proc
from sampan.wire import containers as c

_FLAGS = ("z", "Z", "consistent", "cached", "delegated", "nocopy")
_PROPAGATION = ("shared", "rshared", "slave", "rslave", "private", "rprivate")
_TMPFS_FLAGS = frozenset(
    "defaults async auto consistent cached delegated z Z ro rw nosuid suid nodev dev noexec exec noatime atime strictatime "
    "relatime nodiratime diratime nosymfollow symfollow private rprivate shared rshared slave rslave unbindable runbindable".split()
)
_TMPFS = {
    "size": re.compile(r"[0-9]{1,19}[kmgKMG%]?"), "nr_inodes": re.compile(r"[0-9]{1,19}[kmgKMG]?"),
    "nr_blocks": re.compile(r"[0-9]{1,19}[kmgKMG]?"), "mode": re.compile(r"[0-7]{1,4}"), "uid": re.compile(r"[0-9]{1,10}"),
    "gid": re.compile(r"[0-9]{1,10}"),
}  # fmt: skip
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def target(text: str) -> str:
    """Return a mount's destination, clean.  Raises InvalidRequest."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not text.startswith("/") or "\0" in text or ".." in parts or not parts:
        raise InvalidRequest(f"invalid mount path: '{text[:128]}' mount path must be absolute, and not the root")
    if len(os.fsencode(text)) > 4095 or any(len(os.fsencode(part)) > 255 for part in parts):
        raise InvalidRequest(f"invalid mount path: '{text[:128]}...' is too long")
    refuse_over_proc("/" + "/".join(parts))
    return "/" + "/".join(parts)


def volume_folder(data_root: Path, name: str) -> Path:
    """Return where a volume's files are.  Raises InvalidRequest for what is no volume's name."""
    if not 2 <= len(name) <= 255 or set(name) - _LETTERS or not name[0].isalnum():
        raise InvalidRequest(
            f'create {name[:64]}: "{name[:64]}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    return data_root / "volumes" / name / "_data"


def of_body(data_root: Path, config: c.ContainerConfig, host: c.HostConfig) -> tuple[Place, ...]:
    """Return the places, each target once.  Raises InvalidRequest, Unsupported."""
    made: dict[str, Place] = {}
    for text in host.binds or ():
        _add(made, bind(data_root, text))
    for mount in () if host.mounts is UNSET else host.mounts or ():
        _add(made, _mount(data_root, mount))
    for path, options in ({} if host.tmpfs is UNSET else host.tmpfs or {}).items():
        _add(made, _tmpfs(path, tuple(word for word in options.split(",") if word)))
    for path in config.volumes or ():
        clean = target(path)
        if clean not in made:
            name = secrets.token_hex(32)
            made[clean] = Place(
                kind="volume", source=str(volume_folder(data_root, name)), target=clean, volume=name, anonymous=True,
                copy=True,
            )  # fmt: skip
    return tuple(made.values())


def _add(made: dict[str, Place], place: Place) -> None:
    if place.target in made:
        raise InvalidRequest(f"Duplicate mount point: {place.target}")
    made[place.target] = place


def bind(data_root: Path, text: str) -> Place:
    """Understand `src:dst[:opts]`.  Raises InvalidRequest."""
    parts = text.split(":")
    if len(parts) == 1:
        parts = ["", parts[0]]
    if len(parts) not in (2, 3) or "\0" in text:
        raise InvalidRequest(f"invalid volume specification: '{text[:128]}'")
    source, where, options = parts[0], target(parts[1]), parts[2] if len(parts) == 3 else ""
    propagation, readonly, copy = "", False, True
    for word in options.split(",") if options else ():
        if word in ("ro", "rw"):
            readonly = word == "ro"
        elif word in _PROPAGATION:
            propagation = word
        elif word not in _FLAGS:
            raise InvalidRequest(f"invalid mode: {options[:64]}")
        copy = copy and word != "nocopy"
    common = {"target": where, "mode": options, "readonly": readonly}
    if source.startswith("/"):
        if ".." in source.split("/"):
            source = os.path.normpath(source)
        return Place(kind="bind", source=source, propagation=propagation, **common)  # type: ignore[arg-type]  # a literal
    if propagation:
        raise InvalidRequest(f"invalid mode: {options[:64]}")
    anonymous = not source
    name = source or secrets.token_hex(32)
    return Place(
        kind="volume", source=str(volume_folder(data_root, name)), volume=name, anonymous=anonymous, copy=copy,
        **{**common, "mode": options or "z"},  # type: ignore[arg-type]  # a literal
    )  # fmt: skip


def _tmpfs(path: str, words: tuple[str, ...], extra: tuple[str, ...] = ()) -> Place:
    for word in (*words, *extra):
        key, equals, value = word.partition("=")
        if word not in _TMPFS_FLAGS and not (equals and key in _TMPFS and _TMPFS[key].fullmatch(value)):
            raise InvalidRequest(f"invalid tmpfs option {word[:80]!r}")
    return Place(
        kind="tmpfs", source="", target=target(path), mode=",".join(words),
        options=("noexec", "nosuid", "nodev", "rprivate", *extra, *words), readonly="ro" in words,
    )  # fmt: skip


def _mount(data_root: Path, mount: c.Mount) -> Place:
    where = target(mount.target) if mount.target else None
    if where is None:
        raise InvalidRequest(f'invalid mount config for type "{mount.type[:16]}": field Target must not be empty')
    for kind, value in (("bind", mount.bind_options), ("volume", mount.volume_options), ("tmpfs", mount.tmpfs_options)):
        if value is not None and kind != mount.type:
            raise InvalidRequest(f'{kind.capitalize()}Options must not be specified on mount type "{mount.type[:16]}"')
    if mount.type == "bind":
        options = mount.bind_options or c.BindOptions()
        if not mount.source.startswith("/"):
            raise InvalidRequest(f"invalid mount config for type \"bind\": invalid mount path: '{mount.source[:64]}'")
        if options.propagation and options.propagation not in _PROPAGATION:
            raise InvalidRequest(f"invalid propagation mode: {options.propagation[:16]}")
        if not os.path.exists(mount.source) and not options.create_mountpoint:
            raise InvalidRequest(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
        return Place(
            kind="bind", source=mount.source, target=where, readonly=mount.read_only,
            recursive=not options.non_recursive, propagation=options.propagation,
        )  # fmt: skip
    if mount.type == "tmpfs":
        wanted = mount.tmpfs_options or c.TmpfsOptions()
        if wanted.size_bytes < 0 or not 0 <= wanted.mode <= 0o7777:
            raise InvalidRequest(f"invalid tmpfs size {wanted.size_bytes} or mode {wanted.mode:o}")
        extra = [f"size={wanted.size_bytes}"] if wanted.size_bytes else []
        extra += [f"mode={wanted.mode:o}"] if wanted.mode else []
        extra += ["ro"] if mount.read_only else []
        return _tmpfs(where, tuple("=".join(pair) for pair in wanted.options or ()), tuple(extra))
    if mount.type == "volume":
        volume = mount.volume_options or c.VolumeOptions()
        if volume.subpath or (volume.driver_config and volume.driver_config.name not in ("", "local")):
            raise Unsupported("volumes with a subpath or another driver are not supported yet")
        name = mount.source or secrets.token_hex(32)
        return Place(
            kind="volume", source=str(volume_folder(data_root, name)), target=where, volume=name, mode="z",
            anonymous=not mount.source, readonly=mount.read_only, copy=not volume.no_copy,
        )  # fmt: skip
    if mount.type in ("image", "npipe", "cluster"):
        raise Unsupported(f"mounts of type {mount.type} are not supported yet")
    raise InvalidRequest(f'invalid mount config: mount type unknown: "{mount.type[:16]}"')
