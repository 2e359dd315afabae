"""Base images without a registry, from the distribution's own signed packages (`sampan image bootstrap`).

    busybox          the host's busybox-static package (or the static busybox installed here) and its applets
    host CMD...      programs of this host with the libraries they load (host.py)
    venv PATH        a Python virtual environment of this host with its interpreter
    debian[:SUITE]   a minimal Debian by mmdebstrap or debootstrap (distribution.py)
    ubuntu[:SUITE]   a minimal Ubuntu, where apt knows its mirror and its keyring

Each has its software bill of materials attached (sbom.py, referrers.py).
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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from sampan.content.images import ImageRecord, Referrer
from sampan.engine.images import ar, distribution, documents, host, referrers, sbom
from sampan.engine.images.context import Event, Stores
from sampan.engine.images.image import rfc3339
from sampan.engine.images.import_ import Wanted, import_
from sampan.engine.images.rootfs import PATH, busybox_tar
from sampan.engine.images.streams import Reporter
from sampan.errors import Broken, InvalidRequest, Unsupported
from sampan.oci.reference import parse
from sampan.wire.images import Progress

Say = Reporter[Progress | Event]

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
    elif name in distribution.DISTRIBUTIONS and distribution.SUITE.issuperset(suite) and not suite.startswith("-"):
        _distribution(stores, reporter, name, suite, tag)
    else:
        known = "busybox, debian[:SUITE], ubuntu[:SUITE], host CMD... and venv PATH"
        raise InvalidRequest(f"unknown recipe {recipe[:80]!r}: there are {known}")


def _host(stores: Stores, reporter: Say, commands: list[str], tag: str) -> None:
    found = host.programs(commands)
    command = json.dumps([str(found[0])])
    tar = host.Stream(host.tar(found, [], _epoch()))
    wanted = _wanted(tag or f"host-{found[0].name.lower()}:latest", f"CMD {command}", " ".join(commands))
    import_(stores, tar, reporter, wanted, partial(_described, stores, wanted, lambda layer: sbom.of_files(layer, [])))


def _venv(stores: Stores, reporter: Say, folders: list[str], tag: str) -> None:
    if len(folders) != 1:
        raise InvalidRequest("venv takes one path")
    found, trees = host.venv(folders[0])
    command = json.dumps([str(found[0])])
    tar = host.Stream(host.tar(found, trees, _epoch()))
    wanted = _wanted(tag or "venv:latest", f"CMD {command}", f"the environment {folders[0]}")
    python = sbom.Package("python", host.python_version(folders[0]), licence="Python-2.0")
    take = partial(sbom.of_distributions, folder=os.path.realpath(folders[0]), interpreter=python)
    import_(stores, tar, reporter, wanted, partial(_described, stores, wanted, take))


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


def _described(
    stores: Stores, wanted: Wanted, take: Callable[[BinaryIO], sbom.Inventory], record: ImageRecord
) -> tuple[Referrer, ...]:
    """Attach the bill of materials of what `take` finds in the image's one layer."""
    layer = record.layers[0]
    with stores.blobs.open(layer.blob) as stored:
        found = take(stored)
    created = rfc3339(wanted.created or 0)
    name = wanted.message.removeprefix("made of ")
    content = sbom.document(found, name=name, image=record.id, diff_id=layer.diff_id, created=created)
    subject = documents.described(documents.manifest(record.id, stores.blobs.size(record.id), record.layers))
    annotations = {"org.opencontainers.image.created": created}
    return (referrers.attach(stores.blobs, referrers.SPDX, content, subject, annotations),)


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
        version = _busybox_version(_run([str(program), "--help"], 10).decode("ascii", "replace"))
        tar = busybox_tar(program.read_bytes(), applets, _epoch())
    attach = partial(_described, stores, wanted, lambda layer: sbom.of_files(layer, [version]))
    import_(stores, io.BytesIO(tar), reporter, wanted, attach)


def _busybox_version(banner: str) -> sbom.Package:
    """Return the package of `BusyBox v1.35.0 (Debian 1:1.35.0-4) multi-call binary.`"""
    words = banner.partition("\n")[0].split()
    plain = words[1].removeprefix("v") if words[1:] else ""
    inside = banner.partition("(")[2].partition(")")[0].split()
    if len(inside) == 2 and inside[0].lower() in distribution.DISTRIBUTIONS:
        url = f"pkg:deb/{inside[0].lower()}/busybox-static@{quote(inside[1], safe='')}"
        return sbom.Package("busybox-static", inside[1], url, licence="GPL-2.0-only", source=f"busybox {plain}")
    return sbom.Package("busybox", plain, f"pkg:generic/busybox@{quote(plain, safe='')}", licence="GPL-2.0-only")


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


# Debian and Ubuntu


def _distribution(stores: Stores, reporter: Say, name: str, suite: str, tag: str) -> None:
    here = distribution.Host()
    suite = suite or distribution.default_suite(here, name)
    wanted = _wanted(tag or f"{name}:{suite or 'latest'}", 'CMD ["bash"]', f"{name} {suite} minbase")
    attach = partial(_described, stores, wanted, lambda layer: sbom.of_debs(layer, name, suite))
    with distribution.made(here, name, suite, _epoch()) as (tar, program):
        _status(reporter, f"making {name} {suite} with {program}; this takes a minute")
        # The image is named only after the program has succeeded, so a tar cut short never becomes one.
        import_(stores, tar, reporter, wanted, attach)


def _run(command: list[str], timeout: int, cwd: Path | None = None) -> bytes:
    """Run a program of the host and return its output.  Raises Broken with its last words."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, cwd=cwd, env=_ENVIRONMENT, check=False
        )
    except subprocess.TimeoutExpired:
        raise Broken(f"{command[0]} did not end within {timeout} seconds") from None
    if done.returncode:
        raise Broken(f"{command[0]} failed: {'; '.join(list(distribution.lines_of(done.stderr))[-2:])[:300]}")
    return done.stdout
