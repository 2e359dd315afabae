"""Give up what the program shall not have: the last steps before execve, in the one order that works.

    keyring, limits -> umask -> [seccomp] -> bounding set -> groups, gid, uid -> capabilities -> [no_new_privs, seccomp]

Without no_new_privs the filter must go in while CAP_SYS_ADMIN is there (seccomp(2)); with it, last.  What was set is read
back (SECURITY.md P11): a protection that is not there is an error.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from sampan.errors import StepFailed
from sampan.files.users import Identity
from sampan.kernel import caps, idents, seccomp
from sampan.kernel.process import PR, prctl
from sampan.oci.runtime import Process


def set_limits(process: Process) -> list[str]:
    """Set rlimits; return warnings for what a host without CAP_SYS_RESOURCE keeps as it is."""
    warnings: list[str] = []
    for limit in process.rlimits:
        try:
            idents.set_rlimit(limit.type, limit.soft, limit.hard)
        except PermissionError:
            _, hard = idents.get_rlimit(limit.type)
            wanted = hard if hard != -1 and (limit.soft == 2**64 - 1 or limit.soft > hard) else limit.soft
            idents.set_rlimit(limit.type, wanted, hard)
            warnings.append(f"{limit.type}: the host may not raise the hard limit {hard}; soft limit is {wanted}")
        except ValueError as error:
            raise StepFailed("rlimits", errno.EINVAL, f"{limit.type}: {error}") from None
    return warnings


def give_up_privileges(process: Process, identity: Identity, program: bytes, last_cap: int) -> None:
    """Become `identity` with the capabilities and the filter of `process`.  Raises StepFailed naming the step."""
    sets = process.capabilities
    try:
        bounding, permitted = caps.mask(sets.bounding), caps.mask(sets.permitted)
        effective, inheritable, ambient = (
            caps.mask(sets.effective),
            caps.mask(sets.inheritable),
            caps.mask(sets.ambient),
        )
    except ValueError as error:
        raise StepFailed("capabilities", errno.EINVAL, str(error)) from None
    os.umask(process.user.umask if process.user.umask is not None else 0o022)
    if program and not process.no_new_privileges:
        _step("seccomp", lambda: seccomp.install(program))
    _step("bounding set", lambda: caps.drop_bounding(bounding, last_cap))
    _step("user", lambda: _become(identity))
    held = permitted & bounding & caps.get()[1]
    # A process that is not root loses permitted and effective at execve anyway (capabilities(7)).
    _step("capabilities", lambda: caps.set_(effective & held, held, inheritable & held))
    _step("ambient set", caps.clear_ambient)
    if ambient & held & inheritable:
        _step("ambient set", lambda: caps.raise_ambient(ambient & held & inheritable))
    _verify(identity, bounding, held, effective & held, inheritable & held)
    if process.no_new_privileges:
        _step("no_new_privs", lambda: prctl(PR.SET_NO_NEW_PRIVS, 1))
        if program:
            _step("seccomp", lambda: seccomp.install(program))


def _become(identity: Identity) -> None:
    idents.set_groups(identity.groups)
    idents.set_gid(identity.gid)
    prctl(PR.SET_KEEPCAPS, 1)
    idents.set_uid(identity.uid)
    prctl(PR.SET_KEEPCAPS, 0)
    prctl(PR.SET_DUMPABLE, 0)  # a change of uid resets it (prctl(2)); execve gives the program its own


def _verify(identity: Identity, bounding: int, permitted: int, effective: int, inheritable: int) -> None:
    seen = caps.get()
    if seen != (effective, permitted, inheritable):
        raise StepFailed("capabilities", errno.EPERM, f"read back {seen}, wanted {(effective, permitted, inheritable)}")
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        raise StepFailed("user", errno.EPERM, f"read back {os.getresuid()}:{os.getresgid()}")
    for bit in range(41):
        if not bounding >> bit & 1 and prctl_holds(bit):
            raise StepFailed("bounding set", errno.EPERM, f"capability {bit} is still there")


def prctl_holds(bit: int) -> bool:
    """Return whether the bounding set has a capability; unknown ones count as absent."""
    try:
        return prctl(PR.CAPBSET_READ, bit) == 1
    except OSError:
        return False


def _step(name: str, work: Callable[[], object]) -> None:
    try:
        work()
    except OSError as error:
        raise StepFailed(name, error.errno or 0, str(error.strerror)) from None
