"""The devices that the host's CDI specifications offer, by name.  The files are read when somebody asks: they change under us."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sampan.errors import InvalidRequest, NotFound
from sampan.oci import cdi

DIRS = ("/etc/cdi", "/var/run/cdi")  # what a later folder has counts
_MAX_SPEC = 4 << 20
_MOUNT_WORDS = frozenset("ro rw bind rbind nosuid nodev noexec private rprivate slave rslave suid dev exec".split())


@dataclass(frozen=True)
class Device:
    """A device.  name: vendor.com/class=name; group: the word that stands for several; allowed: to every build, says the host."""

    name: str
    edits: tuple[cdi.Edits, ...]
    group: str = ""
    allowed: bool = False


def find(folders: Iterable[str | Path], pattern: str) -> list[Device]:
    """Return the devices of `vendor/class=name`, of `vendor/class=*` all, of `vendor/class` the first, or those of a group.

    Raises NotFound, which says also what could not be read; InvalidRequest for a device that cannot be given here.
    """
    broken: list[str] = []
    known = dict(sorted(dict(_devices(folders, broken)).items()))
    kind, equals, name = pattern.partition("=")
    if "/" not in pattern:
        found = [one for one in known.values() if one.group == pattern]
    elif equals and name != "*":
        found = [known[pattern]] if pattern in known else []
    else:
        found = [one for key, one in known.items() if key.partition("=")[0] == kind]
        found = found if equals else found[:1]
    if not found:
        hint = f" ({'; '.join(broken)[:500]})" if broken else ""
        raise NotFound(f"CDI device injection failed: unresolvable CDI devices {pattern[:128]}{hint}")
    for one in found:
        _givable(one)
    return found


def _devices(folders: Iterable[str | Path], broken: list[str]) -> Iterator[tuple[str, Device]]:
    """Yield every device, the ones that count last; what cannot be read is noted."""
    for folder in folders:
        for path in sorted(Path(folder).glob("*")):
            if path.suffix not in (".json", ".yaml", ".yml"):
                continue
            try:
                with path.open("rb") as file:
                    content = file.read(_MAX_SPEC + 1)
                if len(content) > _MAX_SPEC:
                    raise InvalidRequest(f"{path}: larger than {_MAX_SPEC} bytes")
                spec = cdi.decode(content, str(path))
            except OSError as error:
                broken.append(f"{path}: {error.strerror}")
            except InvalidRequest as error:
                broken.append(str(error))
            else:
                for device in spec.devices:
                    said = {**spec.annotations, **device.annotations}
                    name = f"{spec.kind}={device.name}"
                    yield name, Device(
                        name, (spec.container_edits, device.container_edits), str(said.get(cdi.CLASS, "")),
                        str(said.get(cdi.ALLOWED, "")).lower() in ("true", "1"),
                    )  # fmt: skip


def _absolute(path: str) -> bool:
    return path.startswith("/") and ".." not in path.split("/") and "\0" not in path and path.strip("/") != ""


def _givable(device: Device) -> None:
    """Raise InvalidRequest for what a specification asks for and containers here cannot have."""
    for edits in device.edits:
        if edits.hooks:
            reason = f"its hook {edits.hooks[0].hook_name} ({edits.hooks[0].path}): no program is started on a container's way"
        elif edits.intel_rdt or edits.net_devices:
            reason = "its intelRdt or netDevices"
        elif any(node.file_mode is not None or node.uid is not None or node.gid is not None for node in edits.device_nodes):
            reason = "fileMode, uid or gid: a node has those of the host's"
        elif wrong := [
            mount for mount in edits.mounts if mount.type not in ("", "bind", "none") or set(mount.options) - _MOUNT_WORDS
        ]:
            reason = f"the mount at {wrong[0].container_path[:200]} of type {wrong[0].type or 'bind'}, {','.join(wrong[0].options)}"
        elif any(not _absolute(path) for mount in edits.mounts for path in (mount.host_path, mount.container_path)):
            reason = "a mount whose paths are not absolute"
        elif any("=" not in one or "\0" in one or one.startswith("=") for one in edits.env):
            reason = "a variable that is none"
        else:
            continue
        raise InvalidRequest(f"CDI device {device.name} cannot be given: {reason}")
