"""A saboteur inside: any call that daemon, midwife or init makes of the kernel can be made to fail, or to be their last.

The rig is code that runs before Sampan's own, in the spawner or (Saboteur) the test.  It wraps sampan.kernel.calls.bind and the few
functions of `os`, `fcntl` and `resource` that the start path uses, counts the calls of each role in a page that it shares
with the test, and at the call that the test has chosen raises an errno or kills the process.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launching import Boxes

from sampan.launch import client
from sampan.launch.sealed import sealed_interpreter
from sampan.launch.start import Meanwhile, Started, _Start

_SABOTEUR = r"""
import errno, fcntl, mmap, os, resource, signal, struct, sys
_file = os.open({page!r}, os.O_RDWR)
_page = mmap.mmap(_file, 8192)
os.close(_file)
_role = 0  # 1 daemon, 2 midwife, 3 init, 4 a keeper that clones one ahead, 5 that one's mounts
_number = 0

def _point(name):
    global _number
    if not _role or _page[0] != _role:
        return
    _number += 1
    struct.pack_into("=I", _page, 4, _number)
    index, action = struct.unpack_from("=Ii", _page, 8)
    if _number != index:
        return
    _page[1] = 1
    text = name.encode()[:100]
    _page[100:100 + len(text)] = text
    if action < 0:
        os.kill(os.getpid(), -action)
        if action == -9:
            os._exit(255)  # process 1 of a namespace cannot kill itself (pid_namespaces(7))
    else:
        raise OSError(action, os.strerror(action), f"planted in {name}")

def _wrap(owner, name, label):
    real = getattr(owner, name)
    def rigged(*args, **kwargs):
        _point(label)
        return real(*args, **kwargs)
    setattr(owner, name, rigged)

for _name in ("open mkdir mknod chmod chown fchown symlink dup2 fchdir chdir setsid fork getcwd rename write stat fstat pipe2 "
              "listdir pread execve lstat").split():
    _wrap(os, _name, "os." + _name)
_wrap(fcntl, "ioctl", "ioctl")
_wrap(fcntl, "fcntl", "fcntl")
_wrap(resource, "setrlimit", "setrlimit")
_wrap(signal, "signal", "signal")
_wrap(signal, "pthread_sigmask", "pthread_sigmask")
from sampan.kernel import calls
_bind = calls.bind
def _rigged_bind(name, *types, **more):
    real = _bind(name, *types, **more)
    def rigged(*args, **kwargs):
        _point(name)
        return real(*args, **kwargs)
    return rigged
calls.bind = _rigged_bind
def _in_role(owner, name, role):
    real = getattr(owner, name)
    def rigged(*args, **more):
        global _role, _number
        _role, _number = role, 0
        try:
            return real(*args, **more)
        finally:
            _role = 0
    setattr(owner, name, rigged)
"""
_RIG = (
    _SABOTEUR
    + r"""
from sampan.launch import birth, init
_in_role(birth, "deliver", 2)
_in_role(init, "_start", 3)
_in_role(birth, "bear", 4)
_in_role(birth, "_live", 0)
_in_role(init.ahead, "make", 5)
{more}
from sampan.launch.spawner import main
main()
"""
)
DAEMON, MIDWIFE, INIT, KEEPER, AHEAD = 1, 2, 3, 4, 5


@dataclass
class Rig:
    """The test's side of the shared page."""

    page: mmap.mmap

    def arm(self, role: int, index: int, action: int) -> None:
        """At the call number `index` (from 1) of the role: errno `action`, or signal -action."""
        self.page[0:200] = bytes(200)
        struct.pack_into("=Ii", self.page, 8, index, action)
        self.page[0] = role

    def disarm(self) -> None:
        self.page[0] = 0

    @property
    def count(self) -> int:
        """How many calls the role has made since it was armed."""
        return int(struct.unpack_from("=I", self.page, 4)[0])

    @property
    def fired(self) -> str:
        """The call that was hit, "" when none was."""
        return bytes(self.page[100:200]).rstrip(b"\0").decode() if self.page[1] else ""

    def said(self) -> list[str]:
        """What `tell` of the rig's additional code has left."""
        return bytes(self.page[1024:]).rstrip(b"\0").decode().splitlines()


class Saboteur:
    """The rig in the test's own process, which is the daemon here: for the calls that a start makes by `os`."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._number, self._acting = rig, 0, False
        self._undo = ExitStack()

    def __enter__(self) -> Saboteur:
        for name in "open mkdir mknod chmod fchown rename write stat lstat pipe2 listdir pread read unlink dup getppid".split():
            self._wrap(name, getattr(os, name))
        run = _Start.run

        def rigged(one: _Start, meanwhile: Meanwhile) -> Started:
            self._number, self._acting = 0, True
            try:
                return run(one, meanwhile)
            finally:
                self._acting = False

        _Start.run = rigged  # type: ignore[method-assign]
        self._undo.callback(setattr, _Start, "run", run)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _wrap(self, name: str, real: Callable[..., Any]) -> None:
        def rigged(*args: Any, **more: Any) -> Any:
            if self._acting:
                self._point(f"os.{name}")
            return real(*args, **more)

        setattr(os, name, rigged)
        self._undo.callback(setattr, os, name, real)

    def _point(self, name: str) -> None:
        page = self._rig.page
        if page[0] != DAEMON:
            return
        self._number += 1
        struct.pack_into("=I", page, 4, self._number)
        index, action = struct.unpack_from("=Ii", page, 8)
        if self._number == index:
            page[1] = 1
            page[100 : 100 + len(name)] = name.encode()
            if action < 0:
                signal.raise_signal(-action)
            else:
                raise OSError(action, os.strerror(action), f"planted in {name}")


# For `more`: a way to tell the test something; many processes write, each line is one short copy.
TELL = r"""
def tell(text):
    line = text.encode()[:200] + b"\n"
    (at,) = struct.unpack_from("=I", _page, 16)
    if 1024 + at + len(line) < 8192:
        struct.pack_into("=I", _page, 16, at + len(line))
        _page[1024 + at:1024 + at + len(line)] = line
"""


def rigged_boxes(place: Path, more: str = "") -> tuple[Boxes, Rig]:
    """Return containers' maker with a rigged spawner, and the rig; `more` is code that runs in the spawner first."""
    file = place / "rig"
    file.write_bytes(bytes(8192))
    with file.open("r+b") as opened:
        page = mmap.mmap(opened.fileno(), 8192)
    code, client._CODE = client._CODE, _RIG.replace("{page!r}", repr(str(file))).replace("{more}", more)
    try:
        with sealed_interpreter() as interpreter:
            return Boxes(place, client.start_spawner(interpreter)), Rig(page)
    finally:
        client._CODE = code
