"""Volumes, simply: a folder each; sources of `-v` that are missing are made; an empty volume gets the image's files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sampan.engine.containers.container import Container
from sampan.engine.containers.places import volume_folder
from sampan.engine.records import Place
from sampan.errors import InvalidRequest
from sampan.kernel.fds import open_fd
from sampan.kernel.paths import open_in


def fill(container: Container) -> None:
    """Make sources exist.  Ids on the disk are the container's own, as in layers.  Blocks; raises InvalidRequest, OSError."""
    for place in container.record.places:
        if place.kind == "bind" and not os.path.lexists(place.source):
            try:
                Path(place.source).mkdir(mode=0o755, parents=True)
            except OSError as error:
                raise InvalidRequest(f"error while creating mount source path '{place.source}': {error.strerror}") from None
        elif place.kind == "volume":
            folder = volume_folder(container.rooms.data_root, place.volume)
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if place.copy and not container.record.started and not any(folder.iterdir()):
                _copy_up(container, place, folder)


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
        else:
            continue
        os.chown(where, found.st_uid, found.st_gid, follow_symlinks=False)
        if not entry.is_symlink():
            os.chmod(where, found.st_mode & 0o7777)
            os.utime(where, ns=(found.st_atime_ns, found.st_mtime_ns))


def remove_anonymous(container: Container) -> None:
    """Remove the volumes that nobody named.  Blocks."""
    for place in container.record.places:
        if place.kind == "volume" and place.anonymous:
            shutil.rmtree(volume_folder(container.rooms.data_root, place.volume).parent, ignore_errors=True)
