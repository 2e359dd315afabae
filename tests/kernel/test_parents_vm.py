"""VLANs, ipvlan and SCTP in a stock kernel, which has them: the same tests inside the virtual machine of ../shared/vm."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel.test_cgroups_v2_vm import in_vm


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_vlans_ipvlan_and_sctp_in_a_stock_kernel(tmp_path: Path) -> None:
    shown = in_vm(tmp_path, ("msgspec",), "/s/run.py", "tests/kernel/test_parents.py", "tests/kernel/test_sctp.py")

    assert "failed" not in shown and re.search(r"\d\d passed, 3 skipped", shown), shown[-3000:]  # those for kernels without
