"""Capabilities and file-system ids of one thread; each test works in a child so that nothing stays changed."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from sampan.kernel import caps

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def in_child(work: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException:  # noqa: BLE001  # a child of the test must never come back
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_names_and_numbers_are_the_kernels() -> None:
    assert len(caps.NAMES) == 41
    assert (caps.NAMES["CAP_CHOWN"], caps.NAMES["CAP_SYS_ADMIN"], caps.NAMES["CAP_CHECKPOINT_RESTORE"]) == (0, 21, 40)
    assert caps.mask(["CAP_CHOWN", "CAP_SYS_ADMIN"]) == 1 | 1 << 21
    with pytest.raises(ValueError, match="unknown capability"):
        caps.mask(["chown"])


def test_what_is_set_is_what_the_kernel_shows() -> None:
    def work() -> bool:
        last, keep = caps.last_cap(), caps.mask(["CAP_CHOWN", "CAP_SETPCAP", "CAP_KILL"])
        caps.drop_bounding(keep, last)
        caps.clear_ambient()
        caps.set_(keep, keep, 1)
        caps.raise_ambient(1)
        shown = caps.status()
        return caps.get() == (keep, keep, 1) and (
            shown["CapBnd"],
            shown["CapEff"],
            shown["CapPrm"],
            shown["CapInh"],
            shown["CapAmb"],
        ) == (keep, keep, keep, 1, 1)

    assert in_child(work)


def test_file_system_ids_change_with_capabilities_kept_and_come_back(tmp_path: object) -> None:
    def work() -> bool:
        before = caps.get()
        path = os.path.join(str(tmp_path), "made")
        with caps.set_fs_ids(12345, 54321):
            inside = caps.get()
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        made = os.stat(path)
        os.close(os.open(path + "2", os.O_CREAT | os.O_WRONLY))
        return inside == before == caps.get() and (made.st_uid, made.st_gid) == (12345, 54321) and os.stat(path + "2").st_uid == 0

    assert in_child(work)
