"""The options of mounts: `ro,z,nocopy` of a bind string, BindOptions, tmpfs words (engine-api 4.2, 4.5)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sampan.errors import InvalidRequest
from sampan.wire import containers as c

PROPAGATION = ("shared", "rshared", "slave", "rslave", "private", "rprivate")
_GROUPS = (("ro", "rw"), PROPAGATION, ("nocopy",), ("z", "Z"), ("consistent", "cached", "delegated", "default"))

_TMPFS_FLAGS = frozenset(
    "defaults async auto consistent cached delegated z Z ro rw nosuid suid nodev dev noexec exec noatime atime strictatime "
    "relatime nodiratime diratime nosymfollow symfollow private rprivate shared rshared slave rslave unbindable runbindable".split()
)
_TMPFS = {
    "size": re.compile(r"[0-9]{1,19}[kmgKMG%]?"), "nr_inodes": re.compile(r"[0-9]{1,19}[kmgKMG]?"),
    "nr_blocks": re.compile(r"[0-9]{1,19}[kmgKMG]?"), "mode": re.compile(r"[0-7]{1,4}"), "uid": re.compile(r"[0-9]{1,10}"),
    "gid": re.compile(r"[0-9]{1,10}"),
}  # fmt: skip


@dataclass(frozen=True)
class Mode:
    """What the words of a bind string say."""

    readonly: bool = False
    propagation: str = ""
    nocopy: bool = False


def mode_of(text: str) -> Mode:
    """Read the words; of each kind one may be there.  Raises InvalidRequest."""
    words = text.split(",") if text else []
    for word in words:
        if not any(word in group for group in _GROUPS):
            raise InvalidRequest(f"invalid mode: {text[:64]}")
    if any(sum(word in group for word in words) > 1 for group in _GROUPS):
        raise InvalidRequest(f"invalid mode: {text[:64]}")
    return Mode("ro" in words, next((word for word in words if word in PROPAGATION), ""), "nocopy" in words)


def bind_options(mount: c.Mount, options: c.BindOptions) -> None:
    """Judge what contradicts itself.  Raises InvalidRequest."""
    prefix = 'invalid mount config for type "bind": '
    if options.propagation and options.propagation not in PROPAGATION:
        raise InvalidRequest(f"{prefix}invalid propagation mode: {options.propagation[:16]}")
    conflicts = (
        (options.read_only_non_recursive and not mount.read_only, "!ReadOnly && BindOptions.ReadOnlyNonRecursive"),
        (options.read_only_force_recursive and not mount.read_only, "!ReadOnly && BindOptions.ReadOnlyForceRecursive"),
        (options.read_only_force_recursive and options.non_recursive,
         "ReadOnlyForceRecursive && BindOptions.NonRecursive"),
        (options.read_only_force_recursive and options.read_only_non_recursive,
         "ReadOnlyForceRecursive && BindOptions.ReadOnlyNonRecursive"),
        (options.read_only_force_recursive and options.propagation not in ("", "rprivate"),
         'ReadOnlyForceRecursive && BindOptions.Propagation != "rprivate"'),
    )  # fmt: skip
    for wrong, text in conflicts:
        if wrong:
            raise InvalidRequest(f"{prefix}mount options conflict: {text}")


def tmpfs_words(words: tuple[str, ...]) -> None:
    """Raise InvalidRequest for what would become another option on its way to the kernel."""
    for word in words:
        key, equals, value = word.partition("=")
        if word not in _TMPFS_FLAGS and not (equals and key in _TMPFS and _TMPFS[key].fullmatch(value)):
            raise InvalidRequest(f"invalid tmpfs option {word[:80]!r}")
