"""What nobody else tests: the runtime is Python, and it must not look anything up in a container (SECURITY.md A9)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import Boxes
from rigged import TELL, Rig, rigged_boxes

from sampan import messages
from sampan.errors import StepFailed
from sampan.kernel.inotify import Inotify
from sampan.oci.runtime import Mount

# Tells of everything that the runtime looks up by a name once it is in a container's mount namespace.
AUDIT = (
    TELL
    + r"""
_in_root = False
_HARMLESS = {"/", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}
def _hook(event, args):
    if not _in_root:
        return
    if event == "open":
        path = os.fsdecode(args[0]) if isinstance(args[0], (str, bytes)) else ""
        if "/" not in path or path in _HARMLESS:  # one name below a descriptor, or a device checked by its number
            return
        tell(f"open {path}")
    elif event in ("import", "compile", "exec", "ctypes.dlopen", "subprocess.Popen", "os.system", "os.listdir", "os.scandir",
                   "os.posix_spawn", "glob.glob", "marshal.loads", "socket.getaddrinfo", "sqlite3.connect", "code.__new__"):
        tell(f"{event} {args[:1]}")
sys.addaudithook(_hook)
def _when(owner, name, kind=None):
    real = getattr(owner, name)
    def rigged(*args):
        global _in_root
        result = real(*args)
        if kind is None or args[1] is kind:
            _in_root = True
        return result
    setattr(owner, name, rigged)
from sampan.kernel.process import Clone
from sampan.launch import birth
from sampan.runtime import apply
_when(apply, "enter")
_when(birth, "setns", Clone.NEWNS)
"""
)
TROJANS = (
    "etc/nsswitch.conf", "etc/ld.so.preload", "etc/ld.so.cache", "etc/locale.alias", "usr/lib/locale/locale-archive",
    "lib/x86_64-linux-gnu/libnss_files.so.2", "lib64/libnss_compat.so.2", "usr/lib/x86_64-linux-gnu/gconv/gconv-modules",
    "lib/x86_64-linux-gnu/libc.so.6", "evil.so", "evil/sitecustomize.py", "evil/encodings/__init__.py", "bin/tar", "bin/ps",
)  # fmt: skip
EVIL = (
    "LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/evil", "PYTHONPATH=/evil", "PYTHONHOME=/evil",
    "PYTHONSTARTUP=/evil/sitecustomize.py", "GCONV_PATH=/evil", "PYTHONINSPECT=1", "LOCPATH=/evil", "PATH=/evil:/bin",
    "BASH_ENV=/evil/sitecustomize.py",
)  # fmt: skip


def every_way(boxes: Boxes) -> None:
    """Start containers and execs in every way that ends well or badly."""
    for more in (
        {},
        {"terminal": True},
        {"user": "ann:audio", "group_add": ("wheel",)},
        {"userns": False},
        {"process": {"env": EVIL}},
    ):
        box = boxes.start("true", **more)
        box.output()
        assert box.exited().status == 0
    wrong: list[dict[str, Any]] = [
        {"user": "nobody-here"}, {"user": "٠"}, {"process": {"cwd": "/etc/passwd"}}, {"process": {"cwd": "/proc/self/fd/3"}},
        {"mounts": (Mount(destination="/x", type="tmpfs", options=("size=nonsense",)),)}, {"linux": {"sysctl": {"vm.x": "1"}}},
        {"process": {"args": ("é\x01",)}}, {"process": {"args": ("/etc",)}},
    ]  # fmt: skip
    for more in wrong:
        assert boxes.start("true", **{**more, "expect": StepFailed}).answer.text
    first = boxes.start("sleep", "100", process={"env": EVIL})
    for number, (program, more) in enumerate((("true", {}), ("nope", {}), ("true", {"user": "x"}), ("true", {"terminal": True}))):
        with first.exec(program, exec_id=f"e{number}", env=EVIL, **more):
            if isinstance(first.hear(object), messages.ExecStarted):  # type: ignore[arg-type]  # any of the two answers
                first.hear(messages.ExecExited)


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[tuple[Boxes, Rig]]:
    boxes, rig = rigged_boxes(tmp_path, AUDIT)
    yield boxes, rig
    boxes.close()


def test_p4_p6_nothing_is_imported_opened_or_run_by_name_in_a_container(audited: tuple[Boxes, Rig]) -> None:
    boxes, rig = audited
    every_way(boxes)
    assert rig.said() == []


def test_p4_the_harness_hears_an_import_and_a_lookup(tmp_path: Path) -> None:
    """The control: an import after entering is heard."""
    late = """
_walk = apply.walk
def _late(steps, state):
    if len(steps) > 2:
        import antigravity
    _walk(steps, state)
apply.walk = _late
"""
    boxes, rig = rigged_boxes(tmp_path, AUDIT + late)
    try:
        boxes.start("true", expect=StepFailed)
        assert any("antigravity" in line for line in rig.said()), rig.said()
    finally:
        boxes.close()


def test_p5_row_19_row_26_no_library_or_table_of_the_image_is_opened(boxes: Boxes) -> None:
    with Inotify() as watch:
        for name in TROJANS:
            path = boxes.rootfs / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_text("#!/bin/sh\necho ran > /CANARY_RAN\n")
            path.chmod(0o755)
            watch.add(str(path), 0x20)  # IN_OPEN
        every_way(boxes)
        assert watch.read() == []
        (boxes.rootfs / TROJANS[0]).read_bytes()
        assert len(watch.read()) == 1  # the control: the watch sees an open
    assert not (boxes.rootfs / "CANARY_RAN").exists()
