"""Base images without a registry, from the distribution's own signed packages (`sampan image bootstrap`).

    busybox          the host's busybox-static package (or the static busybox installed here) and its applets
    host CMD...      programs of this host with the libraries they load (host.py)
    venv PATH        a Python virtual environment of this host with its interpreter
    debian[:SUITE]   a minimal Debian by mmdebstrap

apt verifies what it downloads; nothing else is fetched, and nothing of it runs in the host's name except `busybox
--list-full`.  The same packages give the same image: names sorted, times SOURCE_DATE_EPOCH or 0.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sampan.engine.images import ar, host
from sampan.engine.images.context import Event, Stores
from sampan.engine.images.import_ import Wanted, import_
from sampan.engine.images.rootfs import PATH, busybox_tar
from sampan.engine.images.streams import Reporter
from sampan.errors import Broken, InvalidRequest, Unsupported
from sampan.oci.reference import parse
from sampan.wire.images import Progress

Say = Reporter[Progress | Event]

_SUITE = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_TIMEOUT = 300  # seconds for apt
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def bootstrap(stores: Stores, reporter: Say, recipe: str, tag: str) -> None:
    """Make the image of `recipe` and name it `tag`, by default after the recipe.

    Raises InvalidRequest for an unknown recipe, Unsupported when the host lacks the program (and says which package has it),
    Broken when that program fails.
    """
    words = recipe.split()
    if words[:1] == ["host"]:
        _host(stores, reporter, words[1:], tag)
        return
    if words[:1] == ["venv"]:
        _venv(stores, reporter, words[1:], tag)
        return
    name, _, suite = recipe.partition(":")
    if name == "busybox" and not suite:
        _busybox(stores, reporter, _wanted(tag or "busybox:latest", 'CMD ["sh"]', "busybox-static"))
    elif name == "debian" and _SUITE.issuperset(suite) and not suite.startswith("-"):
        suite = suite or _host_suite()
        _debian(stores, reporter, suite, _wanted(tag or f"debian:{suite}", 'CMD ["bash"]', f"debian {suite} minbase"))
    else:
        raise InvalidRequest(f"unknown recipe {recipe[:80]!r}: there are busybox, debian[:SUITE], host CMD... and venv PATH")


def _host(stores: Stores, reporter: Say, commands: list[str], tag: str) -> None:
    found = host.programs(commands)
    command = json.dumps([str(found[0])])
    tar = host.Stream(host.tar(found, [], _epoch()))
    import_(stores, tar, reporter, _wanted(tag or f"host-{found[0].name.lower()}:latest", f"CMD {command}", " ".join(commands)))


def _venv(stores: Stores, reporter: Say, folders: list[str], tag: str) -> None:
    if len(folders) != 1:
        raise InvalidRequest("venv takes one path")
    found, trees = host.venv(folders[0])
    command = json.dumps([str(found[0])])
    tar = host.Stream(host.tar(found, trees, _epoch()))
    import_(stores, tar, reporter, _wanted(tag or "venv:latest", f"CMD {command}", f"the environment {folders[0]}"))


def _epoch() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0


def _wanted(tag: str, command: str, made_of: str) -> Wanted:
    reference = parse(tag).tagged()
    if reference.digest is not None:
        raise InvalidRequest("refusing to create a tag with a digest reference")
    return Wanted(
        repo=reference.name, tag=reference.tag, message=f"made of {made_of}", changes=(f"ENV PATH={PATH}", command),
        created=_epoch() * 10**9, created_by="sampan image bootstrap",
    )  # fmt: skip


def _status(reporter: Say, text: str) -> None:
    reporter.report(Progress(status=text))


# busybox


def _busybox(stores: Stores, reporter: Say, wanted: Wanted) -> None:
    with tempfile.TemporaryDirectory(prefix="sampan-bootstrap-") as scratch:
        program = Path(scratch) / "busybox"
        program.write_bytes(_busybox_program(Path(scratch), reporter))
        program.chmod(0o755)
        applets = _run([str(program), "--list-full"], 10).decode("ascii", "replace").split()
        _status(reporter, f"busybox with {len(applets)} applets")
        tar = busybox_tar(program.read_bytes(), applets, _epoch())
    import_(stores, io.BytesIO(tar), reporter, wanted)


def _busybox_program(scratch: Path, reporter: Say) -> bytes:
    """Return the static busybox, from apt or else from this host."""
    if shutil.which("apt-get", path=_ENVIRONMENT["PATH"]):
        _status(reporter, "downloading busybox-static with apt")
        try:
            _run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "busybox-static"], _TIMEOUT, cwd=scratch)
            for package in scratch.glob("busybox-static_*.deb"):
                for path in ("bin/busybox", "usr/bin/busybox"):
                    content = ar.file_of_package(package, path)
                    if content is not None:
                        return content
            reason = "the package has no busybox"
        except (Broken, OSError) as error:
            reason = str(error)
    else:
        reason = "there is no apt here"
    here = Path("/bin/busybox")
    if not here.is_file() or _is_dynamic(here):
        raise Unsupported(f"cannot get a static busybox ({reason}), and none is installed: install busybox-static")
    _status(reporter, f"using this host's /bin/busybox: {reason}")
    return here.read_bytes()


def _is_dynamic(program: Path) -> bool:
    """Return whether a 64-bit ELF program asks for a loader (PT_INTERP, elf(5))."""
    with program.open("rb") as file:
        head = file.read(4096)
    if head[:5] != b"\x7fELF\x02":
        return True
    offset, size, count = (int.from_bytes(head[a:b], "little") for a, b in ((32, 40), (54, 56), (56, 58)))
    return any(head[offset + n * size : offset + n * size + 4] == b"\3\0\0\0" for n in range(count))


# Debian


def _host_suite() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME" and value.strip('"') and _SUITE.issuperset(value.strip('"')):
            return value.strip('"')
    return "stable"


def _host_sources() -> list[str]:
    """Return the host's own apt sources, to be used for its own suite."""
    folder = Path("/etc/apt/sources.list.d")
    found = [Path("/etc/apt/sources.list"), *sorted(folder.glob("*.sources")), *sorted(folder.glob("*.list"))]
    return [str(path) for path in found if path.is_file() and path.stat().st_size]


def _debian(stores: Stores, reporter: Say, suite: str, wanted: Wanted) -> None:
    program = shutil.which("mmdebstrap", path=_ENVIRONMENT["PATH"])
    if program is None:
        raise Unsupported("mmdebstrap is not installed: apt-get install mmdebstrap")
    sources = _host_sources() if suite == _host_suite() else []
    command = [program, "--variant=minbase", "--format=tar", "--quiet", suite, "-", *sources]
    _status(reporter, f"making debian {suite} with mmdebstrap; this takes a minute")
    environment = {**_ENVIRONMENT, "SOURCE_DATE_EPOCH": str(_epoch())}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment, process_group=0
        ) as process,
    ):
        assert process.stdout is not None
        try:
            # The image is named only after the program has succeeded, so a tar cut short never becomes one.
            import_(stores, _Checked(process, errors), reporter, wanted)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 15)


class _Checked:
    """The program's output; at its end the program must have succeeded."""

    def __init__(self, process: subprocess.Popen[bytes], errors: io.IOBase | object) -> None:
        self._process, self._errors = process, errors

    def read(self, size: int = 1 << 20, /) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if not data and self._process.wait() != 0:
            self._errors.seek(0)  # type: ignore[union-attr]  # a temporary file
            last = list(_lines(self._errors.read()))[-3:]  # type: ignore[union-attr]
            raise Broken(f"mmdebstrap failed with status {self._process.returncode}: {'; '.join(last)[:500]}")
        return data


def _lines(content: bytes) -> Iterator[str]:
    for line in content.decode(errors="replace").splitlines():
        if line.strip():
            yield line.strip()


def _run(command: list[str], timeout: int, cwd: Path | None = None) -> bytes:
    """Run a program of the host and return its output.  Raises Broken with its last words."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, cwd=cwd, env=_ENVIRONMENT, check=False
        )
    except subprocess.TimeoutExpired:
        raise Broken(f"{command[0]} did not end within {timeout} seconds") from None
    if done.returncode:
        raise Broken(f"{command[0]} failed: {'; '.join(list(_lines(done.stderr))[-2:])[:300]}")
    return done.stdout
