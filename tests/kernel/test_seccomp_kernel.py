"""The default filter in a real kernel: a program of its own makes the calls, by number, in every ABI."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from sampan.kernel import seccomp
from sampan.kernel.calls import MACHINE, kernel_version
from sampan.kernel.process import PR, prctl
from sampan.kernel.syscall_tables import TABLES
from sampan.oci.seccomp_profile import default_profile

pytestmark = pytest.mark.skipif(MACHINE != "x86_64", reason="needs an x86-64 machine: the probe is its assembler")
SYS, I386, X32 = TABLES["SCMP_ARCH_X86_64"], TABLES["SCMP_ARCH_X86"], TABLES["SCMP_ARCH_X32"]
PROBE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static long native(unsigned long n, unsigned long a, unsigned long b, unsigned long c) {
    register long d __asm__("r10") = 0;
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "0"(n), "D"(a), "S"(b), "d"(c), "r"(d) : "rcx", "r11", "memory");
    return r;
}
static long compat(unsigned long n, unsigned long a, unsigned long b, unsigned long c) {
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "0"(n), "b"(a), "c"(b), "d"(c) : "r8", "r9", "r10", "r11", "memory");
    return (int)r;
}
int main(int count, char **words) {
    for (int i = 1; i + 4 < count; i += 5) {
        long (*call)(unsigned long, unsigned long, unsigned long, unsigned long) = strcmp(words[i], "80") ? native : compat;
        printf("%ld\n", call(strtoul(words[i + 1], 0, 0), strtoul(words[i + 2], 0, 0), strtoul(words[i + 3], 0, 0), strtoul(words[i + 4], 0, 0)));
        fflush(stdout);
    }
    return 0;
}
"""  # noqa: E501  # C
FILTER = seccomp.compile(default_profile(["CAP_CHOWN"], kernel_version(), "x86_64"), "x86_64")


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.c").write_text(PROBE)
    subprocess.run(["gcc", "-O1", "-o", folder / "probe", folder / "probe.c"], check=True)
    return str(folder / "probe")


def _filtered(program: bytes = FILTER) -> None:
    prctl(PR.SET_NO_NEW_PRIVS, 1)
    seccomp.install(program)


def ask(probe: str, *calls: tuple[str, int, int, int, int], program: bytes | None = FILTER) -> list[int]:
    """Return what the kernel answers to (abi, number, three arguments) under the filter."""
    words = [str(word) for call in calls for word in call]
    done = subprocess.run(
        [probe, *words], capture_output=True, check=False, preexec_fn=(lambda: _filtered(program)) if program else None
    )
    if done.returncode == -signal.SIGSEGV:
        pytest.skip("needs a kernel with 32-bit emulation (int 0x80)")
    assert done.returncode == 0, done
    return [int(line) for line in done.stdout.split()]


def test_rows_97_98_no_socket_of_alg_or_vsock_however_the_number_is_dressed(probe: str) -> None:
    families = (38, 40, 38 | 1 << 32, 40 | 1 << 32, 46)

    assert ask(probe, *(("64", SYS["socket"], family, 1, 0) for family in families)) == [-errno.EPERM] * len(families)
    assert ask(probe, ("64", SYS["socket"], 1, 1, 0))[0] >= 0


def test_row_99_x32_numbers_get_the_native_verdict(probe: str) -> None:
    verdicts = ask(probe, ("64", X32["socket"], 38, 5, 0), ("64", X32["keyctl"], 0, 0, 0), ("64", X32["clone3"], 0, 0, 0))

    assert verdicts == [-errno.EPERM, -errno.EPERM, -errno.ENOSYS]


def test_row_99_int_80_gets_the_native_verdict(probe: str) -> None:
    calls = [("80", I386["getpid"], 0, 0, 0), ("80", I386["socket"], 38, 5, 0), ("80", I386["keyctl"], 0, 0, 0)]
    verdicts = ask(probe, *calls, ("80", I386["unshare"], 0x10000000, 0, 0))
    if verdicts[0] == -errno.ENOSYS:
        pytest.skip("needs a kernel with 32-bit emulation (int 0x80)")

    assert verdicts[0] > 0
    assert verdicts[1:] == [-errno.EPERM] * 3


def test_row_99_an_abi_that_is_not_listed_is_killed(probe: str) -> None:
    only_native = default_profile([], kernel_version(), "x86_64")
    program = seccomp.compile(type(only_native)(default_action="SCMP_ACT_ALLOW", architectures=("SCMP_ARCH_X86_64",)), "x86_64")
    done = subprocess.run([probe, "80", "20", "0", "0", "0"], preexec_fn=lambda: _filtered(program), check=False)

    assert done.returncode in (-signal.SIGSYS, -signal.SIGSEGV)


def test_row_100_what_is_newer_than_the_profile_is_enosys(probe: str) -> None:
    assert ask(probe, ("64", SYS["clone3"], 0, 0, 0), ("64", 9999, 0, 0, 0)) == [-errno.ENOSYS, -errno.ENOSYS]


_REFUSED = (
    "io_uring_setup io_uring_enter userfaultfd bpf perf_event_open keyctl add_key request_key open_by_handle_at mount "
    "umount2 unshare setns pivot_root reboot init_module kexec_load fsopen move_mount open_tree swapon"
)
REFUSED = _REFUSED.split()


def test_row_102_dangerous_calls_are_refused(probe: str) -> None:
    verdicts = ask(probe, *(("64", SYS[name], 0xFFFF, 0xFFFF, 0xFFFF) for name in REFUSED))

    assert dict(zip(REFUSED, verdicts, strict=True)) == dict.fromkeys(REFUSED, -errno.EPERM)


def test_the_probe_sees_the_difference_without_a_filter(probe: str) -> None:
    assert ask(probe, ("64", SYS["keyctl"], 0xFFFF, 0, 0), program=None) != [-errno.EPERM]


def test_row_101_the_filter_is_on_and_stays_on(tmp_path: Path) -> None:
    done = subprocess.run(["grep", "Seccomp", "/proc/self/status"], capture_output=True, preexec_fn=_filtered, check=True)

    assert b"Seccomp:\t2" in done.stdout


def test_a_filter_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="sock_filter"):
        seccomp.install(b"")
    with pytest.raises(ValueError, match="sock_filter"):
        seccomp.install(b"1234567")


def test_libc_and_threads_work_under_the_default_filter() -> None:
    code = "import threading,subprocess;t=threading.Thread(target=print,args=('ok',));t.start();t.join()"
    code += ";subprocess.run(['true'],check=True)"
    python = os.path.realpath("/proc/self/exe")
    done = subprocess.run([python, "-IS", "-c", code], capture_output=True, preexec_fn=_filtered, check=True)

    assert done.stdout == b"ok\n"
