"""The software bill of materials of an image that was made here: SPDX 2.3 in JSON, read from the layer as it is stored.

The same layer gives the same document.  What is not known says NOASSERTION; nothing is guessed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import sampan
from sampan.files.digests import Readable
from sampan.files.tar_entry import Kind
from sampan.files.tar_reader import TarReader
from sampan.oci.digest import Digest, encoded

STATUS = "var/lib/dpkg/status"
UNKNOWN = "NOASSERTION"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")
_MAX_TEXT = 16 << 20  # bytes of a package database that is read
_MAX_FILES = 8000  # listed one by one; a document has 4 MiB at most


@dataclass(frozen=True)
class Package:
    """A piece of software in the image.  url: its package URL (purl); people: who looks after it."""

    name: str
    version: str
    url: str = ""
    people: str = ""
    licence: str = UNKNOWN
    source: str = ""


@dataclass
class Inventory:
    """What is in the image; files: (name, sha1, sha256), the first of many; sums: the sha1 of every one."""

    packages: list[Package] = field(default_factory=list)
    files: list[tuple[str, str, str]] = field(default_factory=list)
    sums: list[str] = field(default_factory=list)


def of_debs(layer: Readable, distribution: str, suite: str) -> Inventory:
    """Return the packages that dpkg has installed in the layer."""
    made = Inventory()
    for _, content in _files(layer, lambda name: name == STATUS):
        made.packages += _debs(content.decode(errors="replace"), distribution, suite)
    return made


def _debs(status: str, distribution: str, suite: str) -> Iterator[Package]:
    for paragraph in status.split("\n\n"):
        fields = _fields(paragraph)
        if fields.get("Status", "").split()[-1:] != ["installed"]:
            continue
        name, version = fields.get("Package", ""), fields.get("Version", "")
        source, _, source_version = fields.get("Source", name).partition(" ")
        yield Package(
            name, version, f"pkg:deb/{distribution}/{quote(name)}@{quote(version, safe='')}"
            f"?arch={quote(fields.get('Architecture', ''))}&distro={quote(suite)}",
            people=fields.get("Maintainer", ""), source=f"built package from: {source} {source_version.strip('()') or version}",
        )  # fmt: skip


def _fields(paragraph: str) -> dict[str, str]:
    """Return the one-line fields of a paragraph (deb-control(5)); of those with more lines, the first."""
    lines = (line.partition(":") for line in paragraph.splitlines() if line[:1].strip() and ":" in line)
    found: dict[str, str] = {}
    for key, _, value in lines:
        found.setdefault(key, value.strip())
    return found


def of_distributions(layer: Readable, folder: str, interpreter: Package) -> Inventory:
    """Return a virtual environment's interpreter and the Python distributions that are installed below `folder`."""
    top = folder.strip("/") + "/"
    made = Inventory([interpreter])
    wanted = (".dist-info/METADATA", ".egg-info/PKG-INFO")
    for _, content in _files(layer, lambda name: name.startswith(top) and name.endswith(wanted)):
        fields = _fields(content.decode(errors="replace").partition("\n\n")[0])
        name, version = fields.get("Name", ""), fields.get("Version", "")
        normal = name.lower().replace("_", "-").replace(".", "-")
        made.packages.append(
            Package(
                name, version, f"pkg:pypi/{quote(normal)}@{quote(version, safe='')}", people=fields.get("Author-email", ""),
                licence=fields.get("License-Expression", "") or UNKNOWN,
            )
        )  # fmt: skip
    return made


def of_files(layer: Readable, packages: list[Package]) -> Inventory:
    """Return every regular file of the layer, and the packages that they are known to be of."""
    made = Inventory(packages)
    for name, content in _hashed(layer):
        made.sums.append(content[0])
        if len(made.files) < _MAX_FILES:
            made.files.append((name, *content))
    return made


def _files(layer: Readable, wanted: Any) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the layer's files that are wanted."""
    reader = TarReader(layer)
    for entry in reader:
        name = entry.name.removeprefix("./")
        if entry.kind is Kind.FILE and entry.size <= _MAX_TEXT and wanted(name):
            yield name, b"".join(iter(reader.read, b""))


def _hashed(layer: Readable) -> Iterator[tuple[str, tuple[str, str]]]:
    reader = TarReader(layer)
    for entry in reader:
        if entry.kind is Kind.FILE:
            sums = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
            while data := reader.read():
                for one in sums:
                    one.update(data)
            yield entry.name.removeprefix("./"), (sums[0].hexdigest(), sums[1].hexdigest())


def document(found: Inventory, *, name: str, image: Digest, diff_id: Digest, created: str) -> bytes:
    """Return the SPDX document of an image.  name: what it was made of; created: RFC 3339 with seconds."""
    whole = {
        "SPDXID": "SPDXRef-Image", "name": name, "versionInfo": image, "downloadLocation": UNKNOWN, **_analysed(found.sums),
        "licenseConcluded": UNKNOWN, "licenseDeclared": UNKNOWN, "copyrightText": UNKNOWN, "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": "SHA256", "checksumValue": encoded(diff_id)}],
    }  # fmt: skip
    packages = [_package(number, one) for number, one in enumerate(sorted(found.packages, key=lambda p: (p.name, p.url)), 1)]
    files = [_file(number, *one) for number, one in enumerate(sorted(found.files), 1)]
    contained = [one["SPDXID"] for one in (*packages, *files)]
    body = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/sampan-{encoded(image)}",
        "creationInfo": {"created": created, "creators": [f"Tool: sampan-{sampan.__version__}"]},
        "packages": [whole, *packages],
        **({"files": files} if files else {}),
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image"),
            *(_relation("SPDXRef-Image", "CONTAINS", one) for one in contained),
        ],
    }
    return json.dumps(body, ensure_ascii=False, indent=1).encode(errors="replace") + b"\n"


def _analysed(sums: list[str]) -> dict[str, Any]:
    """Return what a package says of its files: their verification code (SPDX 2.3, 7.9), or that they are not looked at."""
    if not sums:
        return {"filesAnalyzed": False}
    code = hashlib.sha1("".join(sorted(sums)).encode(), usedforsecurity=False).hexdigest()
    verification = {"packageVerificationCodeValue": code}
    return {"filesAnalyzed": True, "packageVerificationCode": verification, "licenseInfoFromFiles": [UNKNOWN]}


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _package(number: int, one: Package) -> dict[str, Any]:
    clean = "".join(sign if sign in _LETTERS else "-" for sign in one.name)
    return {
        "SPDXID": f"SPDXRef-Package-{number}-{clean}", "name": one.name, "versionInfo": one.version, "downloadLocation": UNKNOWN,
        "filesAnalyzed": False, "licenseConcluded": UNKNOWN, "licenseDeclared": one.licence, "copyrightText": UNKNOWN,
        **({"originator": f"Person: {one.people.replace('<', '(').replace('>', ')')}"} if one.people else {}),
        **({"sourceInfo": one.source} if one.source else {}),
        **({"externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": one.url}]}
           if one.url else {}),
    }  # fmt: skip


def _file(number: int, name: str, sha1: str, sha256: str) -> dict[str, Any]:
    sums = [{"algorithm": "SHA1", "checksumValue": sha1}, {"algorithm": "SHA256", "checksumValue": sha256}]
    return {
        "SPDXID": f"SPDXRef-File-{number}", "fileName": f"./{name}", "checksums": sums, "licenseConcluded": UNKNOWN,
        "licenseInfoInFiles": [UNKNOWN], "copyrightText": UNKNOWN,
    }  # fmt: skip
