"""COPY and ADD."""

from __future__ import annotations

from sampan.build.expand import placed_words
from sampan.build.flags import Flags
from sampan.build.instructions import Copy
from sampan.build.lines import Logical, strings

_COPY = {
    "from": "one", "chown": "one", "chmod": "one", "link": "bool", "parents": "bool", "exclude": "many",
}  # fmt: skip
_ADD = {
    "chown": "one", "chmod": "one", "link": "bool", "exclude": "many", "keep-git-dir": "bool", "checksum": "one", "unpack": "bool",
}  # fmt: skip


def copy(line: Logical, escape: str) -> Copy:
    """Return a COPY.  Raises DockerfileError."""
    return _files(line, escape, _COPY)


def add(line: Logical, escape: str) -> Copy:
    """Return an ADD.  Raises DockerfileError."""
    return _files(line, escape, _ADD)


def _files(line: Logical, escape: str, known: dict[str, str]) -> Copy:
    keyword = line.keyword.upper()
    flags = Flags(line, known)
    exact = strings(flags.rest)
    words = [(word, 0) for word in exact] if exact is not None else placed_words(flags.rest, escape)
    if not words:
        raise line.error(f"{keyword} requires at least two arguments, but none were provided")
    if len(words) == 1:
        raise line.error(
            f"{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
        )
    texts = [word for word, _ in words]
    waiting = list(line.heredocs) if exact is None else []
    sources = [text for text in texts[:-1] if not (waiting and "<<" in text and _announces(text, waiting[0].name))]
    if "<<" in texts[-1] and waiting and _announces(texts[-1], waiting[-1].name):
        raise line.error(f"{keyword} needs a destination: the last argument is a here-document", flags.offset + words[-1][1])
    return Copy(
        line, tuple(sources), texts[-1], tuple(waiting), flags.one("from"), flags.one("chown"), flags.one("chmod"),
        flags.true("link"), flags.true("parents"), tuple(flag.value or "" for flag in flags.many("exclude")),
        flags.true("keep-git-dir"), flags.one("checksum"), flags.true("unpack") if flags.given("unpack") else None,
    )  # fmt: skip


def _announces(text: str, name: str) -> bool:
    bare = text.replace('"', "").replace("'", "")
    before, mark, after = bare.partition("<<")
    return bool(mark) and (not before or before.isdigit()) and bool(after.lstrip("-")) and bool(name)
