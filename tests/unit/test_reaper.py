"""The init program: a listing becomes bytes, and the bytes do what the listing says."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from sampan.errors import Unsupported
from sampan.launch import reaper

EMULATOR = {"x86_64": "qemu-x86_64", "aarch64": "qemu-aarch64"}


def test_distances_are_counted_from_where_each_machine_counts() -> None:
    assert reaper.assemble("back:\n 90\n eb>>back ; comment\n e9>back\n e9>name", words=False)[:-12] == bytes.fromhex(
        "90ebfde9f8ffffffe900000000"
    )
    words = reaper.assemble("back:\n d503201f\n 54000000>back/5/19\n 14000000>back/0/26", words=True)[:-12]
    assert words == bytes.fromhex("1f2003d5 e0ffff54 feffff17")


def test_it_is_tiny_and_both_machines_have_one() -> None:
    for machine in ("x86_64", "aarch64"):
        assert reaper.program(machine).startswith(b"\x7fELF") and len(reaper.program(machine)) < 512
    with pytest.raises(Unsupported, match="riscv64"):
        reaper.program("riscv64")


def test_the_sealed_copy_can_be_neither_written_nor_grown() -> None:
    with reaper.sealed() as made:
        assert os.pread(made.fileno(), 4, 0) == b"\x7fELF"
        with pytest.raises(PermissionError):
            os.pwrite(made.fileno(), b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(made.fileno(), 10_000)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_exit_codes_on_the_real_or_an_emulated_machine(machine: str, tmp_path: Path) -> None:
    runner = [] if platform.machine() == machine else [shutil.which(EMULATOR[machine]) or ""]
    if runner == [""]:
        pytest.skip(f"needs {EMULATOR[machine]}")
    program = tmp_path / "init"
    program.write_bytes(reaper.program(machine))
    program.chmod(0o700)

    def code(*words: str) -> int:
        return subprocess.run([*runner, program, *words], timeout=20, check=False, stderr=subprocess.DEVNULL).returncode

    assert code("/bin/sh", "sh", "-c", "exit 7") == 7
    assert code("/bin/sh", "sh", "-c", "kill -9 $$") == 137
    assert code("/bin/sh", "sh", "-c", "sleep 0.05 & exit 3") == 3
    assert code("/nosuch/program", "program") == 127
    assert code("/etc", "etc") == 126
