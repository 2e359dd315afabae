"""Binds, mounts, tmpfs and volumes of a create body, as places (engine-api 4.2, 4.5)."""

from __future__ import annotations

import os
import posixpath
import secrets
from pathlib import Path

from msgspec import UNSET, structs

from sampan.engine.containers.place_options import bind_options, mode_of, tmpfs_words
from sampan.engine.context import Rooms
from sampan.engine.records import Place
from sampan.errors import InvalidRequest, NotFound
from sampan.oci.proc_mounts import refuse_over_proc
from sampan.storage.volumes import check_name
from sampan.wire import containers as c


def target(text: str, kind: str) -> str:
    """Return a mount's destination, clean.  Raises InvalidRequest."""
    prefix = f'invalid mount config for type "{kind[:16]}": '
    if not text:
        raise InvalidRequest(f"{prefix}field Target must not be empty")
    if not text.startswith("/") or "\0" in text:
        raise InvalidRequest(f"{prefix}invalid mount path: '{text[:128]}' mount path must be absolute")
    clean = posixpath.normpath("/" + text.lstrip("/"))
    if clean == "/":
        raise InvalidRequest(f"{prefix}invalid specification: destination can't be '/'")
    if len(os.fsencode(text)) > 4095 or any(len(os.fsencode(part)) > 255 for part in clean.split("/")):
        raise InvalidRequest(f"{prefix}invalid mount path: '{text[:128]}...' is too long")
    refuse_over_proc(clean)
    return clean


def of_body(data_root: Path, config: c.ContainerConfig, host: c.HostConfig, others: tuple[Place, ...] = ()) -> tuple[Place, ...]:
    """Return the places, each target once; `others` come from other containers.  Raises InvalidRequest, NotFound, Unsupported."""
    made: dict[str, Place] = {}
    inherited = {place.target: place for place in others}
    for text in host.binds or ():
        _add(made, bind(data_root, text, host.volume_driver))
    for mount in () if host.mounts is UNSET else host.mounts or ():
        _add(made, _mount(data_root, mount))
    for path, options in ({} if host.tmpfs is UNSET else host.tmpfs or {}).items():
        place = _tmpfs(path, tuple(word for word in options.split(",") if word))
        if place.target not in made or made[place.target].kind != "tmpfs":
            _add(made, structs.replace(place, listed=False))
    for path in config.volumes or ():
        clean = target(path, "volume")
        if clean not in made and clean not in inherited:
            _local(host.volume_driver, clean)
            made[clean] = _volume(data_root, "", clean, copy=True)
    return (*(place for place in inherited.values() if place.target not in made), *made.values())


def volume_options(host: c.HostConfig) -> dict[str, c.VolumeOptions]:
    """Return what `--mount` says of the volumes it names, should they have to be made."""
    found = {}
    for mount in () if host.mounts is UNSET else host.mounts or ():
        if mount.type == "volume" and mount.volume_options is not None:
            found[mount.source or target(mount.target, "volume")] = mount.volume_options
    return found


def _add(made: dict[str, Place], place: Place) -> None:
    if place.target in made:
        raise InvalidRequest(f"Duplicate mount point: {place.target}")
    made[place.target] = place


def _volume(data_root: Path, name: str, where: str, *, copy: bool, mode: str = "", readonly: bool = False) -> Place:
    chosen = name or secrets.token_hex(32)
    check_name(chosen)
    return Place(
        kind="volume", source=str(data_root / "volumes" / chosen / "_data"), target=where, volume=chosen, anonymous=not name,
        copy=copy, mode=mode, readonly=readonly,
    )  # fmt: skip


def volumes_from(rooms: Rooms, text: str) -> list[Place]:
    """Return the mounts of another container, `NAME[:ro|rw]`.  Raises NotFound, InvalidRequest."""
    ref, colon, mode = text.partition(":")
    if not ref:
        raise InvalidRequest('invalid name or ID supplied: ""')
    words = mode_of(mode if colon else "")
    if set(mode.split(",")) & {"nocopy"}:
        raise InvalidRequest(f"invalid mode: {mode[:64]}")
    try:
        record = rooms.records.get(rooms.index.find(ref))
    except NotFound:
        record = None
    if record is None:  # not 404: clients would take the image to be missing, and pull it
        raise InvalidRequest(f"No such container: {ref}")
    return [
        structs.replace(
            place, copy=False, readonly=place.readonly or words.readonly, mode=mode if colon else place.mode,
        )
        for place in record.places
        if place.kind != "tmpfs"
    ]  # fmt: skip


def bind(data_root: Path, text: str, driver: str = "") -> Place:
    """Understand `src:dst[:opts]`.  Raises InvalidRequest, NotFound for another driver."""
    parts = text.split(":")
    if len(parts) == 1:
        parts = ["", parts[0]]
    if len(parts) not in (2, 3) or "\0" in text or (len(parts) == 3 and not parts[2]):
        raise InvalidRequest(f"invalid volume specification: '{text[:128]}'")
    source, options = parts[0], parts[2] if len(parts) == 3 else ""
    kind = "bind" if source.startswith("/") else "volume"
    words = mode_of(options)
    try:
        where = target(parts[1], kind)
        if kind == "volume" and words.propagation:
            raise InvalidRequest('invalid mount config for type "volume": field BindOptions must not be specified')
    except InvalidRequest as error:
        raise InvalidRequest(f"invalid volume specification: '{text[:128]}': {error}") from None
    if kind == "bind":
        return Place(
            kind="bind", source=_host_path(source), target=where, mode=options, readonly=words.readonly,
            propagation=words.propagation or _default_propagation(source, data_root),
        )  # fmt: skip
    _local(driver, source)
    return _volume(data_root, source, where, copy=not words.nocopy, mode=options or "z", readonly=words.readonly)


def _host_path(text: str) -> str:
    if len(text) > 4095 or "\0" in text:
        raise InvalidRequest("invalid mount source: too long")
    return posixpath.normpath("/" + text.lstrip("/"))


def _default_propagation(source: str, data_root: Path) -> str:
    """What holds the daemon's own mounts is a slave: they can be let go although a container sees them."""
    return "rslave" if data_root.is_relative_to(_host_path(source)) else ""


def _local(driver: str, name: str) -> None:
    if driver not in ("", "local"):
        raise NotFound(f'create {name[:64]}: error looking up volume plugin {driver[:64]}: plugin "{driver[:64]}" not found')


def _tmpfs(path: str, words: tuple[str, ...], extra: tuple[str, ...] = ()) -> Place:
    tmpfs_words((*words, *extra))
    return Place(
        kind="tmpfs", source="", target=target(path, "tmpfs"),
        options=("noexec", "nosuid", "nodev", "rprivate", *extra, *words), readonly="ro" in (*extra, *words),
    )  # fmt: skip


def _mount(data_root: Path, mount: c.Mount) -> Place:
    where = target(mount.target, mount.type)
    for kind, value in (
        ("bind", mount.bind_options),
        ("volume", mount.volume_options),
        ("tmpfs", mount.tmpfs_options),
        ("image", mount.image_options),
    ):
        if value is not None and kind != mount.type:
            raise InvalidRequest(f'{kind.capitalize()}Options must not be specified on mount type "{mount.type[:16]}"')
    if mount.type == "bind":
        return _bind_mount(data_root, mount, where)
    if mount.type == "tmpfs":
        return _tmpfs_mount(mount, where)
    if mount.type == "volume":
        return _volume_mount(data_root, mount, where)
    if mount.type == "image":
        return _image_mount(mount, where)
    if mount.type in ("npipe", "cluster"):
        raise InvalidRequest(f'invalid mount config for type "{mount.type}": there is none such on a Linux host without a swarm')
    raise InvalidRequest(f'invalid mount config for type "{mount.type[:16]}": mount type unknown')


def _image_mount(mount: c.Mount, where: str) -> Place:
    if not mount.source:
        raise InvalidRequest('invalid mount config for type "image": field Source must not be empty')
    subpath = mount.image_options.subpath if mount.image_options else ""
    if subpath.startswith("/") or ".." in subpath.split("/") or "\0" in subpath or len(subpath) > 4095:
        raise InvalidRequest(f"invalid mount config for type \"image\": subpath '{subpath[:64]}' must be a relative path inside")
    return Place(kind="image", source=mount.source, target=where, readonly=True, recursive=False, subpath=subpath)


def _bind_mount(data_root: Path, mount: c.Mount, where: str) -> Place:
    options = mount.bind_options or c.BindOptions()
    if not mount.source:
        raise InvalidRequest('invalid mount config for type "bind": field Source must not be empty')
    if not mount.source.startswith("/"):
        raise InvalidRequest(
            f"invalid mount config for type \"bind\": invalid mount path: '{mount.source[:64]}' mount path must be absolute"
        )
    bind_options(mount, options)
    source = _host_path(mount.source)
    if not os.path.exists(source) and not options.create_mountpoint:
        raise InvalidRequest(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
    return Place(
        kind="bind", source=source, target=where, readonly=mount.read_only, recursive=not options.non_recursive,
        recursive_readonly=not options.read_only_non_recursive, create=options.create_mountpoint,
        propagation=options.propagation or _default_propagation(source, data_root),
    )  # fmt: skip


def _tmpfs_mount(mount: c.Mount, where: str) -> Place:
    wanted = mount.tmpfs_options or c.TmpfsOptions()
    if mount.source:
        raise InvalidRequest('invalid mount config for type "tmpfs": field Source must not be specified')
    if wanted.size_bytes < 0 or not 0 <= wanted.mode <= 0o7777:
        raise InvalidRequest('invalid mount config for type "tmpfs": a negative size, or a mode beyond 07777')
    extra = [f"size={wanted.size_bytes}"] if wanted.size_bytes else []
    extra += [f"mode={wanted.mode:o}"] if wanted.mode else []
    extra += ["ro"] if mount.read_only else []
    return _tmpfs(where, tuple("=".join(pair) for pair in wanted.options or ()), tuple(extra))


def _volume_mount(data_root: Path, mount: c.Mount, where: str) -> Place:
    options = mount.volume_options or c.VolumeOptions()
    if options.driver_config is not None:
        _local(options.driver_config.name, mount.source)
    if mount.read_only and not mount.source:
        raise InvalidRequest('invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes')
    parts = options.subpath.split("/")
    if options.subpath and (options.subpath.startswith("/") or ".." in parts or "\0" in options.subpath):
        raise InvalidRequest(
            f'invalid mount config for type "volume": subpath must be a relative path within the volume: {options.subpath[:64]!r}'
        )
    made = _volume(
        data_root, mount.source, where, copy=not options.no_copy and not options.subpath, mode="z", readonly=mount.read_only
    )
    return structs.replace(made, subpath=options.subpath)
