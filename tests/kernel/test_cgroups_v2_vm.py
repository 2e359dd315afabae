"""Control groups v2 in a stock kernel: the same tests as here, run inside the virtual machine of ../shared/vm."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = Path(os.environ.get("SAMPAN_VM_RUN", ROOT.parent / "shared/vm/vm-run"))
SITE = Path(sysconfig.get_path("purelib"))
TESTS = ("tests/unit/test_cgroups.py", "tests/kernel/test_cgroups_kernel.py")
STEPS = ("limits", "devices", "out_of_memory", "security", "builds", "explained")
RUN_TIME = (
    "aiohttp", "aiohappyeyeballs", "aiosignal", "attr", "attrs", "frozenlist", "idna", "isal", "msgspec", "multidict", "propcache",
    "yarl", "zstandard",
)  # fmt: skip
IN_VM = """
import sys
sys.path[:0] = ["/s/src", "/s/tests"]
import pytest
sys.exit(pytest.main(["-q", "-rfEs", "-p", "no:cacheprovider", "-c", "/dev/null", "--noconftest", "-W", "error", *sys.argv[1:]]))
"""


COMMAND = """#!/bin/sh
exec python3 -IBc 'from sampan.cli.main import entry; entry()' "$@"
"""


def in_vm(place: Path, packages: tuple[str, ...], *words: str, timeout: int = 240) -> str:
    """Run a command in /s of the machine, which holds Sampan and its tests; return its output."""
    if not RUN.exists():
        pytest.skip(f"needs the virtual machine harness ({RUN})")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs qemu-system-x86_64")
    site, copied = place / "site", place / "s"
    site.mkdir()
    for name in packages:
        shutil.copytree(SITE / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in SITE.glob("*.py"):
        shutil.copy(file, site)
    for folder in ("src/sampan", "tests/unit", "tests/kernel", "tests/support", "tests/contracts"):
        shutil.copytree(ROOT / folder, copied / folder, ignore=shutil.ignore_patterns("__pycache__", "conftest.py"))
    for folder in (site, copied):  # compiling takes the emulated machine a minute
        compileall.compile_dir(folder, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH, stripdir=folder)
    (copied / "run.py").write_text(IN_VM)
    command = copied / ".venv/bin/sampan"
    command.parent.mkdir(parents=True)
    command.write_text(COMMAND)
    command.chmod(0o755)
    shutil.copy("/bin/busybox", copied / "busybox")
    done = subprocess.run(
        [
            str(RUN), "--no-net", "--copy-in", f"{copied}:/s", "--copy-in", f"{site}:/site",
            "--before", "cp /s/busybox /bin/busybox; printf '/s/src\\n/site\\n' > /usr/lib/python3/dist-packages/s.pth",
            "--cwd", "/s", "--timeout", str(timeout), "--", "python3", "-B", *words,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_row_103_v2_limits_and_device_programs_in_a_stock_kernel(tmp_path: Path) -> None:
    shown = in_vm(tmp_path, ("msgspec",), "/s/run.py", *TESTS)

    assert "failed" not in shown and "skipped" not in shown and " passed" in shown, shown[-3000:]


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_row_103_p17_a_whole_run_with_limits_devices_and_no_memory_left_in_a_stock_kernel(tmp_path: Path) -> None:
    """Debian's kernel, cgroup v2 alone, AppArmor on: the daemon, the command, containers (tests/support/vm_steps.py)."""
    shown = in_vm(tmp_path, RUN_TIME, "/s/tests/support/vm_steps.py", timeout=480)

    assert shown.split() == [word for step in STEPS for word in ("passed", step)], shown[-3000:]
