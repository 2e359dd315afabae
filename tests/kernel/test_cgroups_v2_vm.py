"""Control groups v2 in a stock kernel: the same tests as here, run inside the virtual machine of ../shared/vm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = Path(os.environ.get("SAMPAN_VM_RUN", ROOT.parent / "shared/vm/vm-run"))
SITE = Path(sysconfig.get_path("purelib"))
TESTS = ("tests/unit/test_cgroups.py", "tests/kernel/test_cgroups_kernel.py")
IN_VM = """
import sys
sys.path[:0] = ["/s/src", "/s/tests"]
import pytest
sys.exit(pytest.main(["-q", "-rfEs", "-p", "no:cacheprovider", "-c", "/dev/null", "--noconftest", "-W", "error", *sys.argv[1:]]))
"""


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_row_103_v2_limits_and_device_programs_in_a_stock_kernel(tmp_path: Path) -> None:
    if not RUN.exists():
        pytest.skip(f"needs the virtual machine harness ({RUN})")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs qemu-system-x86_64")
    site = tmp_path / "site"
    site.mkdir()
    shutil.copytree(SITE / "msgspec", site / "msgspec")
    copied = tmp_path / "s"
    for folder in ("src/sampan", "tests/unit", "tests/kernel", "tests/support"):
        shutil.copytree(ROOT / folder, copied / folder, ignore=shutil.ignore_patterns("__pycache__", "conftest.py"))
    (copied / "run.py").write_text(IN_VM)

    done = subprocess.run(
        [
            str(RUN), "--no-net", "--copy-in", f"{copied}:/s", "--copy-in", f"{site}:/site", "--env", "PYTHONPATH=/site",
            "--cwd", "/s", "--timeout", "240", "--", "python3", "-B", "/s/run.py", *TESTS,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "failed" not in done.stdout and "skipped" not in done.stdout, done.stdout[-3000:]
    assert " passed" in done.stdout
