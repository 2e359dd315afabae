"""--chmod: octal numbers, and the symbolic form of chmod(1)."""

from __future__ import annotations

_BITS = {"r": 4, "w": 2, "x": 1}
_SHIFT = {"u": 6, "g": 3, "o": 0}


def change(text: str, mode: int, *, folder: bool) -> int:
    """Return the mode after the change; `text` was checked before (metadata.mode)."""
    if not text:
        return mode
    if not text.strip("01234567"):
        return int(text, 8)
    for clause in text.split(","):
        rest = clause.lstrip("ugoa")
        who = clause[: len(clause) - len(rest)] or "a"
        mode = _clause("ugo" if "a" in who else who, rest, mode, folder=folder)
    return mode


def _clause(who: str, rest: str, mode: int, *, folder: bool) -> int:
    while rest:
        sign, rest = rest[0], rest[1:]
        letters = rest[: len(rest) - len(rest.lstrip("rwxXstugo"))]
        rest = rest[len(letters) :]
        bits, special = _bits(letters, mode, folder=folder)
        for one in who:
            shifted = bits << _SHIFT[one]
            extra = {"u": special & 0o4000, "g": special & 0o2000, "o": special & 0o1000}[one]
            extra |= special & 0o1000 if len(who) == 3 else 0
            if sign == "=":
                cleared = 7 << _SHIFT[one] | {"u": 0o4000, "g": 0o2000, "o": 0o1000}[one]
                mode = mode & ~cleared | shifted | extra
            elif sign == "+":
                mode |= shifted | extra
            else:
                mode &= ~(shifted | extra)
    return mode


def _bits(letters: str, mode: int, *, folder: bool) -> tuple[int, int]:
    """Return (rwx bits, set-id and sticky bits) that the letters mean."""
    bits = special = 0
    for letter in letters:
        if letter in _BITS:
            bits |= _BITS[letter]
        elif letter == "X":
            bits |= 1 if folder or mode & 0o111 else 0
        elif letter == "s":
            special |= 0o6000
        elif letter == "t":
            special |= 0o1000
        else:
            bits |= mode >> _SHIFT[letter] & 7
    return bits, special
