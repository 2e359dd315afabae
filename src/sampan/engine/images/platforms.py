"""Which platform an image is wanted for, and which entry of an index serves it best (oci.md 11: Docker's order)."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import msgspec

from sampan.engine.images.plans import host_architecture
from sampan.errors import InvalidRequest, NotFound
from sampan.oci.image import Platform

_KNOWN_OS = frozenset(
    "linux windows darwin freebsd netbsd openbsd solaris aix android dragonfly illumos ios js plan9 wasip1".split()
)
_KNOWN = frozenset(
    "386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc riscv "
    "riscv64 s390 s390x sparc sparc64 wasm".split()
)
_NAMES = {"x86_64": "amd64", "x86-64": "amd64", "i386": "386", "aarch64": "arm64"}
_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def normal(os: str, architecture: str, variant: str) -> Platform:
    """Return a platform in the names that images use."""
    os = {"macos": "darwin"}.get(os.lower(), os.lower())
    architecture, variant = _NAMES.get(architecture.lower(), architecture.lower()), variant.lower()
    if architecture in ("armhf", "armel"):
        architecture, variant = "arm", "v7" if architecture == "armhf" else "v6"
    if architecture == "arm64":
        variant = {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"}.get(variant, variant)
    elif architecture == "arm":
        variant = {"": "v7", "7": "v7", "5": "v5", "6": "v6", "8": "v8"}.get(variant, variant)
    elif architecture == "amd64" and variant == "v1":
        variant = ""
    return Platform(os=os, architecture=architecture, variant=variant or None)


def host() -> Platform:
    """Return this machine's platform."""
    machine = platform.machine()
    variant = machine[4:6] if machine.startswith("armv") else ""
    return normal("linux", host_architecture(), variant)


def parse(text: str) -> Platform:
    """Return the platform that `os`, `arch`, `os/arch` or `os/arch/variant` means.  Raises InvalidRequest."""
    if not text:
        return host()
    parts = text.split("/")
    if len(parts) > 3 or any(not part or not _SIGNS.issuperset(part.partition("(")[0]) for part in parts):
        raise InvalidRequest(f'"{text[:100]}" is an invalid platform specifier: it should be os[/arch[/variant]]')
    if len(parts) == 1:
        here = host()
        if parts[0].lower() in _KNOWN_OS:
            return normal(parts[0], here.architecture, here.variant or "")
        made = normal("linux", parts[0], "")
        if made.architecture not in _KNOWN:
            raise InvalidRequest(f'"{text[:100]}": unknown operating system or architecture: invalid argument')
        return made
    return normal(parts[0].partition("(")[0], parts[1], parts[2] if len(parts) > 2 else "")


def asked(texts: Sequence[str]) -> list[Platform]:
    """Return the platforms that requests name, as JSON objects or in words.  Raises InvalidRequest."""
    found = []
    for text in texts:
        if not text.startswith("{"):
            found.append(parse(text))
            continue
        try:
            value = msgspec.json.decode(text, type=Platform)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidRequest(f"platform {text[:100]}: {str(error)[:200]}") from None
        found.append(normal(value.os or "linux", value.architecture or host().architecture, value.variant or ""))
    return found


def require(offered: Platform, wanted: Sequence[Platform], ref: str) -> None:
    """Raise NotFound unless the image is of one of the platforms, or any is good (none is named)."""
    if wanted and all(rank(offered, one) is None for one in wanted):
        words = ", ".join(shown(one) for one in wanted)
        raise NotFound(f"image with reference {ref[:200]} was found but does not provide the specified platform ({words[:200]})")


def shown(wanted: Platform) -> str:
    return "/".join(part for part in (wanted.os, wanted.architecture, wanted.variant) if part)


def _acceptable(wanted: Platform) -> list[tuple[str, str]]:
    """Return the (architecture, variant) pairs that run what is wanted, best first."""
    variant = wanted.variant or ""
    number = variant[1:]
    if wanted.architecture == "amd64":
        top = int(number) if len(number) == 1 and number in "1234" else 1
        return [*(("amd64", f"v{n}" if n > 1 else "") for n in range(top, 0, -1)), ("386", "")]
    if wanted.architecture == "arm":
        top = int(number) if len(number) == 1 and number in "5678" else 7
        return [("arm", f"v{n}") for n in range(top, 4, -1)]
    if wanted.architecture == "arm64":
        return [*(("arm64", one) for one in _arm64(variant)), *(("arm", f"v{n}") for n in range(8, 4, -1))]
    return [(wanted.architecture, variant)] if variant else [(wanted.architecture, "")]


def _arm64(variant: str) -> list[str]:
    major, _, minor = variant.removeprefix("v").partition(".")
    low = int(minor) if minor.isascii() and minor.isdigit() and len(minor) < 3 else 0
    if major == "9":
        return [f"v9.{n}" if n else "v9" for n in range(low, -1, -1)] + [f"v8.{n}" if n else "" for n in range(low + 5, -1, -1)]
    return [f"v8.{n}" if n else "" for n in range(low, -1, -1)]


def rank(offered: Platform | None, wanted: Platform) -> int | None:
    """Return how well an entry serves: 0 is best, None means not at all; one without a platform comes last."""
    accepted = _acceptable(wanted)
    if offered is None or not offered.architecture:
        return len(accepted)
    given = normal(offered.os, offered.architecture, offered.variant or "")
    if given.os != wanted.os:
        return None
    pair = (given.architecture, given.variant or "")
    if pair in accepted:
        return accepted.index(pair)
    return len(accepted) if given.architecture == wanted.architecture and not wanted.variant and not accepted[0][1] else None
