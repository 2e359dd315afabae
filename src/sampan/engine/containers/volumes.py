"""A container's volumes from its creation to its end: made, filled from the image, mounted, told of, let go."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

from sampan.engine.containers.container import Container
from sampan.engine.context import Rooms
from sampan.engine.records import ContainerRecord, Place
from sampan.errors import InvalidRequest, SampanError
from sampan.kernel.fds import Fd
from sampan.kernel.paths import open_in
from sampan.storage.copy_up import copy_up
from sampan.wire import containers as c

ANONYMOUS = {"com.docker.volume.anonymous": ""}


def names(record: ContainerRecord) -> list[str]:
    return [place.volume for place in record.places if place.kind == "volume"]


def claim(rooms: Rooms, record: ContainerRecord, options: dict[str, c.VolumeOptions], undo: ExitStack) -> list[str]:
    """Make the volumes that are not there and use all of them; return the new ones.  Raises InvalidRequest."""
    made = []
    for place in record.places:
        if place.kind != "volume":
            continue
        wanted = options.get(place.target if place.anonymous else place.volume) or c.VolumeOptions()
        labels = {**(wanted.labels or {}), **(ANONYMOUS if place.anonymous else {})}
        driver = wanted.driver_config.options if wanted.driver_config is not None else None
        _, new = rooms.volumes.create(place.volume, labels or None, driver, user=record.id)
        undo.callback(rooms.volumes.abandon if new else rooms.volumes.leave, [place.volume], record.id)
        if new:
            made.append(place.volume)
    return made


def fill(container: Container, undo: ExitStack) -> None:
    """Make sources exist.  Ids on the disk are the container's own, as in layers.  Blocks; raises InvalidRequest, OSError."""
    for place in container.record.places:
        if place.kind == "bind":
            check_propagation(place)
            if place.create and not os.path.lexists(place.source):
                try:
                    Path(place.source).mkdir(mode=0o755, parents=True)
                except OSError as error:
                    raise InvalidRequest(f"error while creating mount source path '{place.source}': {error.strerror}") from None
        elif place.kind == "volume":
            volumes = container.rooms.volumes
            folder = volumes.open(place.volume, container.id)
            undo.callback(volumes.close_use, [place.volume], container.id)
            if place.copy and not container.record.started:
                _copy_up(container, place, folder)


def check_propagation(place: Place) -> None:
    """A shared or slave mount needs a source that is one.  Raises InvalidRequest in docker's words."""
    wanted = place.propagation.removeprefix("r")
    if wanted not in ("shared", "slave"):
        return
    target, shared, slave = _mount_of(place.source)
    if wanted == "shared" and not shared:
        raise InvalidRequest(f"path {place.source} is mounted on {target} but it is not a shared mount")
    if wanted == "slave" and not shared and not slave and place.mode:
        raise InvalidRequest(f"path {place.source} is mounted on {target} but it is not a shared or slave mount")


def _mount_of(path: str) -> tuple[str, bool, bool]:
    """Return (mount point, shared?, slave?) of the mount that `path` is on."""
    real = os.path.realpath(path)
    best, words = "/", []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.partition(" - ")[0].split()
            point = fields[4].replace("\\040", " ")
            if (point == "/" or real == point or real.startswith(point + "/")) and len(point) >= len(best):
                best, words = point, fields[6:]
    return best, any(w.startswith("shared:") for w in words), any(w.startswith("master:") for w in words)


def _copy_up(container: Container, place: Place, folder: Path) -> None:
    """Fill an empty volume; links of the image resolve inside the image (SECURITY.md rows 14, 15)."""

    def source() -> Fd | None:
        with container.rooms.layers.view(container.id) as root:
            try:
                return open_in(root, place.target, os.O_RDONLY | os.O_DIRECTORY)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                return None

    copy_up(folder.parent, source)


def tell_mounts(container: Container) -> None:
    """Emit the events of a start."""
    for place in container.record.places:
        if place.kind == "volume":
            container.rooms.bus.emit("volume", "mount", place.volume, {
                "container": container.id, "destination": place.target, "driver": "local", "propagation": place.propagation,
                "read/write": "false" if place.readonly else "true",
            })  # fmt: skip


def let_go(container: Container) -> None:
    """The container has ended: unmount what nobody uses, and tell."""
    held = names(container.record)
    container.rooms.volumes.close_use(held, container.id)
    for name in held:
        container.rooms.bus.emit("volume", "unmount", name, {"container": container.id, "driver": "local"})


def leave(container: Container, *, anonymous: bool) -> list[str]:
    """The container is no more; with `anonymous` its nameless volumes go too, unless others use them.  Blocks."""
    volumes = container.rooms.volumes
    volumes.leave(names(container.record), container.id)
    gone = []
    for place in container.record.places if anonymous else ():
        if place.kind == "volume" and place.anonymous:
            try:
                volumes.remove(place.volume)
                gone.append(place.volume)
            except (SampanError, OSError):
                continue
    return gone
