"""Reading one file out of a Debian package: an ar archive with a compressed tar in it (deb(5))."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from sampan.errors import InvalidRequest
from sampan.files.compression import open_decompressed
from sampan.files.tar_entry import Kind
from sampan.files.tar_reader import TarReader

_MAX_FILE = 64 << 20


def file_of_package(package: Path, wanted: str) -> bytes | None:
    """Return the content of the regular file `wanted` ("bin/busybox") of a package, or None.  Raises InvalidRequest."""
    with package.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise InvalidRequest(f"{package.name} is not a Debian package")
        while header := file.read(60):
            size = header[48:58].strip()
            if len(header) < 60 or header[58:] != b"`\n" or not size.isdigit():
                raise InvalidRequest(f"{package.name} is damaged")
            if header[:16].startswith(b"data.tar"):
                return _file_of_tar(file, wanted)
            file.seek(int(size) + int(size) % 2, 1)
    return None


def _file_of_tar(file: BinaryIO, wanted: str) -> bytes | None:
    reader = TarReader(open_decompressed(file)[1])
    for entry in reader:
        if entry.kind is Kind.FILE and entry.name.removeprefix("./") == wanted and entry.size <= _MAX_FILE:
            return b"".join(iter(reader.read, b""))
    return None
