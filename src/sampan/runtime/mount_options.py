"""mount(8)'s words for mount attributes, propagation and file-system data, as one table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sampan.errors import InvalidRequest
from sampan.kernel.mount import Attr, Propagation

# Each word with what it sets and what it clears.
_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (Attr.RDONLY, Attr.NONE),
    "rw": (Attr.NONE, Attr.RDONLY),
    "nosuid": (Attr.NOSUID, Attr.NONE),
    "suid": (Attr.NONE, Attr.NOSUID),
    "nodev": (Attr.NODEV, Attr.NONE),
    "dev": (Attr.NONE, Attr.NODEV),
    "noexec": (Attr.NOEXEC, Attr.NONE),
    "exec": (Attr.NONE, Attr.NOEXEC),
    "noatime": (Attr.NOATIME, Attr.NONE),
    "strictatime": (Attr.STRICTATIME, Attr.NONE),
    "relatime": (Attr.NONE, Attr.NONE),
    "atime": (Attr.NONE, Attr.NONE),
    "nodiratime": (Attr.NODIRATIME, Attr.NONE),
    "diratime": (Attr.NONE, Attr.NODIRATIME),
    "nosymfollow": (Attr.NOSYMFOLLOW, Attr.NONE),
    "symfollow": (Attr.NONE, Attr.NOSYMFOLLOW),
}
_RECURSIVE = {"rro": (Attr.RDONLY, Attr.NONE), "rrw": (Attr.NONE, Attr.RDONLY)}
_PROPAGATION = {
    "private": Propagation.PRIVATE, "slave": Propagation.SLAVE, "shared": Propagation.SHARED,
    "unbindable": Propagation.UNBINDABLE,
}  # fmt: skip
_IGNORED = {"defaults", "bind", "rbind", "async", "auto", "consistent", "cached", "delegated", "z", "Z"}


@dataclass(frozen=True)
class Options:
    """What a mount's option words ask for.  `data` are the file system's own parameters (None: a flag)."""

    set_: int = Attr.NONE
    clear: int = Attr.NONE
    recursive_set: int = Attr.NONE
    propagation: int | None = None
    recursive_propagation: bool = False
    data: dict[str, str | None] = field(default_factory=dict)

    @property
    def readonly(self) -> bool:
        return bool((self.set_ | self.recursive_set) & Attr.RDONLY)


def parse(words: Iterable[str]) -> Options:
    """Return what the words ask for; later words win.  Raises InvalidRequest on control characters or commas."""
    set_, clear, recursive = Attr.NONE, Attr.NONE, Attr.NONE
    propagation: int | None = None
    recursive_propagation = False
    data: dict[str, str | None] = {}
    for word in words:
        if word in _ATTRIBUTES:
            on, off = _ATTRIBUTES[word]
            set_, clear = (set_ | on) & ~off, (clear | off) & ~on
        elif word in _RECURSIVE:
            on, off = _RECURSIVE[word]
            recursive = (recursive | on) & ~off
        elif word in _PROPAGATION or (word.startswith("r") and word[1:] in _PROPAGATION):
            recursive_propagation = word not in _PROPAGATION
            propagation = _PROPAGATION[word.removeprefix("r") if recursive_propagation else word]
        elif word not in _IGNORED:
            if any(ord(character) < 32 or character == "," for character in word):
                raise InvalidRequest(f"invalid mount option {word!r}")
            key, equals, value = word.partition("=")
            data[key] = value if equals else None
    return Options(set_, clear, recursive, propagation, recursive_propagation, data)
