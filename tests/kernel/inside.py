"""An attacker: a process of the test's that joins a container's namespaces with the rights of the container's root."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from launching import DEFAULT_CAPS

from sampan.kernel import caps, idents
from sampan.kernel.process import setns

_libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17


@dataclass
class Attack:
    """stop(): end it and return what it found."""

    pid: int
    told: int
    found: dict[str, Any] = field(default_factory=dict)

    def stop(self) -> dict[str, Any]:
        os.kill(self.pid, signal.SIGTERM)
        text = b""
        while data := os.read(self.told, 1 << 16):
            text += data
        os.close(self.told)
        os.waitpid(self.pid, 0)
        self.found = json.loads(text)
        return self.found


def _be_root(last_cap: int) -> None:
    held = caps.mask(DEFAULT_CAPS)
    idents.set_groups([])
    idents.set_gid(0)
    idents.set_uid(0)
    caps.drop_bounding(held, last_cap)
    caps.set_(held, held, 0)


@contextmanager
def attacking(container: int, attack: Callable[[Callable[[], bool]], dict[str, Any]]) -> Iterator[Attack]:
    """Run `attack(over)` as the container's root in the namespaces of process `container`, until it is stopped."""
    namespaces = [
        os.open(f"/proc/{container}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        for name in ("user", "mnt", "pid")
        if os.stat(f"/proc/{container}/ns/{name}").st_ino != os.stat(f"/proc/self/ns/{name}").st_ino
    ]
    last_cap = caps.last_cap()
    "x".encode("ascii")  # once inside, nothing of Python's can be looked up any more: the very thing that P4 is about
    reading, writing = os.pipe()
    ready_reading, ready_writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for fd in namespaces:
                setns(fd)
            worker = os.fork()  # only a child is in the pid namespace
            if worker:
                os.close(writing)
                os.close(ready_writing)
                signal.signal(signal.SIGTERM, lambda *_: os.kill(worker, signal.SIGTERM))
                while True:
                    try:
                        os.waitpid(worker, 0)
                        os._exit(0)
                    except InterruptedError:
                        pass
            _be_root(last_cap)
            ended: list[int] = []
            signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
            os.write(ready_writing, b"1")
            os.write(writing, json.dumps(attack(lambda: bool(ended))).encode())
            status = 0
        except BaseException:  # noqa: BLE001 - a child of the test's: say it and end
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    os.close(ready_writing)
    for fd in namespaces:
        os.close(fd)
    assert os.read(ready_reading, 1) == b"1"
    os.close(ready_reading)
    made = Attack(pid, reading)
    try:
        yield made
    finally:
        if not made.found:
            made.stop()


def spy(over: Callable[[], bool]) -> dict[str, Any]:
    """Look at every process of the container in every way that its /proc and ptrace offer."""
    hits: set[str] = set()
    denied = rounds = 0
    own = {os.getpid(), 1}
    while not over():
        rounds += 1
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in own:
                continue
            try:
                program = os.readlink(f"/proc/{name}/exe")
                if not program.startswith("/bin/busybox"):
                    hits.add(f"exe {program}")
            except PermissionError:
                denied += 1
            except OSError:
                pass
            hits |= _reach(name)
    return {"hits": sorted(hits)[:20], "denied": denied, "rounds": rounds}


def _reach(name: str) -> set[str]:
    hits: set[str] = set()
    for file in ("environ", "maps", "auxv"):
        try:
            with open(f"/proc/{name}/{file}", "rb") as opened:  # bound to the memory of this moment, execve or not
                content = opened.read(1 << 16)
        except (OSError, ValueError):
            continue
        if content.startswith(b"PATH=/usr/sbin:") or b"python" in content or b"sampan" in content:
            hits.add(f"{file} {content[:60]!r}")
    for file in ("cwd", "root"):
        try:
            place = os.readlink(f"/proc/{name}/{file}")
            if place != "/":
                hits.add(f"{file} {place}")
        except OSError:
            pass
    try:
        for number in os.listdir(f"/proc/{name}/fd"):
            target = os.readlink(f"/proc/{name}/fd/{number}")
            if int(number) > 2:
                hits.add(f"fd {number} {target}")
    except OSError:
        pass
    if _libc.ptrace(PTRACE_SEIZE, int(name), None, None) == 0:
        try:
            program = os.readlink(f"/proc/{name}/exe")
        except OSError:
            program = ""
        if program and not program.startswith("/bin/busybox"):
            hits.add(f"ptrace {program}")
        _libc.ptrace(PTRACE_INTERRUPT, int(name), None, None)
        try:
            os.waitpid(int(name), 0x40000000)  # __WALL: stopped or ended; its parent hears of it after us only
        except ChildProcessError:
            pass
        _libc.ptrace(PTRACE_DETACH, int(name), None, None)
    return hits
