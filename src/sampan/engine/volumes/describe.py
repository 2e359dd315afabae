"""A volume in the API's shape."""

from __future__ import annotations

import time

from msgspec import UNSET

from sampan.storage.volumes import VolumeRecord, Volumes
from sampan.wire import volumes as v


def describe(volumes: Volumes, name: str, record: VolumeRecord, usage: v.UsageData | None = None) -> v.Volume:
    return v.Volume(
        name=name, created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created // 10**9)), labels=record.labels,
        mountpoint=str(volumes.folder(name)), options=record.options, usage_data=usage if usage is not None else UNSET,
    )  # fmt: skip
