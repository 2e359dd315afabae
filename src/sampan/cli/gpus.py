"""--gpus all | COUNT | device=...,driver=...,capabilities=...,count=...,options=..."""

from __future__ import annotations

import csv

from sampan.cli.main import Exit
from sampan.wire.resources import DeviceRequest


def gpus(text: str) -> list[DeviceRequest]:
    """Return what is asked of the daemon.  Raises Exit in docker's words."""
    fields: dict[str, str] = {}
    for part in next(iter(csv.reader([text], strict=True)), []):
        key, equals, value = part.partition("=")
        if not equals:
            key, value = "count", part
        if key not in ("driver", "count", "device", "capabilities", "options") or key in fields:
            raise Exit(125, f"invalid argument \"{text}\" for \"--gpus\" flag: unexpected key '{key}' in '{part}'")
        fields[key] = value
    capabilities = [*fields["capabilities"].split(",")] if "capabilities" in fields else []
    devices = fields["device"].split(",") if "device" in fields else None
    options = dict(one.partition("=")[::2] for one in fields["options"].split(",")) if "options" in fields else None
    return [
        DeviceRequest(
            driver=fields.get("driver", ""), count=_count(fields.get("count", ""), devices is None), device_i_ds=devices,
            capabilities=[capabilities if "gpu" in capabilities else [*capabilities, "gpu"]], options=options,
        )
    ]  # fmt: skip


def _count(text: str, wanted: bool) -> int:
    if not text:
        return 1 if wanted else 0
    if text == "all":
        return -1
    if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) < 10):
        why = f'invalid count ({text}): value must be either "all" or an integer: invalid syntax'
        raise Exit(125, f'invalid argument "{text}" for "--gpus" flag: {why}')
    return int(text)
