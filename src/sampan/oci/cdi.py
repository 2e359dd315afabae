"""Device specifications of the Container Device Interface (CDI 1.0: /etc/cdi/*.json, *.yaml), as pure data.

What a specification says and is not known here is refused: a device is given whole or not at all.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from sampan.errors import InvalidRequest
from sampan.oci import yaml

_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*[A-Za-z0-9]/[A-Za-z][A-Za-z0-9_.-]*")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
CLASS = "org.mobyproject.buildkit.device.class"
ALLOWED = "org.mobyproject.buildkit.device.autoallow"
Annotations = dict[str, str | bool | int]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    pass


class DeviceNode(_Strict, frozen=True, kw_only=True):
    """path: in the container; host_path: "" for the same; numbers of None: the host's."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class Mount(_Strict, frozen=True, kw_only=True):
    host_path: str
    container_path: str
    options: list[str] = []
    type: str = ""


class Hook(_Strict, frozen=True, kw_only=True):
    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class Edits(_Strict, frozen=True, kw_only=True):
    """What is changed of a container that gets a device."""

    env: list[str] = []
    device_nodes: list[DeviceNode] = []
    mounts: list[Mount] = []
    hooks: list[Hook] = []
    additional_gids: list[int] = msgspec.field(name="additionalGids", default=[])
    intel_rdt: dict[str, Any] | None = None
    net_devices: list[dict[str, Any]] = []


class Device(_Strict, frozen=True, kw_only=True):
    name: str
    annotations: Annotations = {}
    container_edits: Edits = Edits()


class Spec(_Strict, frozen=True, kw_only=True):
    """One file.  container_edits: for every device of it."""

    cdi_version: str
    kind: str
    annotations: Annotations = {}
    devices: list[Device] = []
    container_edits: Edits = Edits()


def decode(content: bytes, subject: str) -> Spec:
    """Return a specification in JSON or YAML.  Raises InvalidRequest naming the subject."""
    try:
        value = msgspec.json.decode(content) if content.lstrip()[:1] == b"{" else yaml.loads(content, subject)
        spec = msgspec.convert(value, Spec)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise InvalidRequest(f"{subject}: {error}") from None
    if not _KIND.fullmatch(spec.kind):
        raise InvalidRequest(f"{subject}: invalid kind {spec.kind[:80]!r}: vendor.com/class is expected")
    names = [one.name for one in spec.devices]
    for name in names:
        if not _NAME.fullmatch(name) or names.count(name) > 1:
            raise InvalidRequest(f"{subject}: the name {name[:80]!r} of a device is malformed, or there twice")
    return spec
