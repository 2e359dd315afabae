"""A container's volumes from its creation to its end: made, filled from the image, mounted, told of, let go."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import ExitStack
from pathlib import Path

from sampan.engine.containers.container import Container
from sampan.engine.context import Rooms
from sampan.engine.records import ContainerRecord, Place
from sampan.errors import InvalidRequest, SampanError
from sampan.kernel.fds import open_fd
from sampan.kernel.paths import open_in
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
            if place.copy and not container.record.started and not any(folder.iterdir()):
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
    layers = container.rooms.layers
    with layers.view(container.id) as root:
        try:
            source = open_in(root, place.target, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return
        with source, open_fd(folder, os.O_RDONLY | os.O_DIRECTORY) as target:
            found = os.fstat(source.fileno())
            _copy_tree(source.path, str(folder))
            os.fchown(target.fileno(), found.st_uid, found.st_gid)
            os.fchmod(target.fileno(), found.st_mode & 0o7777)


def _copy_tree(source: str, target: str) -> None:
    """Copy without following links: the image's tree is read-only and its links stay links."""
    for entry in os.scandir(source):
        where = os.path.join(target, entry.name)
        found = entry.stat(follow_symlinks=False)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), where)
        elif entry.is_dir(follow_symlinks=False):
            os.mkdir(where, 0o700)
            _copy_tree(entry.path, where)
        elif entry.is_file(follow_symlinks=False):
            shutil.copyfile(entry.path, where, follow_symlinks=False)
        elif stat.S_ISFIFO(found.st_mode):
            os.mkfifo(where, 0o600)
        else:
            continue
        os.chown(where, found.st_uid, found.st_gid, follow_symlinks=False)
        if not entry.is_symlink():
            for name in os.listxattr(entry.path, follow_symlinks=False):
                if name.startswith(("user.", "security.capability")):
                    os.setxattr(where, name, os.getxattr(entry.path, name, follow_symlinks=False), follow_symlinks=False)
            os.chmod(where, found.st_mode & 0o7777)
        os.utime(where, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


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
