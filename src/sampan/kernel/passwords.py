"""crypt(3) of the C library: htpasswd's bcrypt and the shadow file's hashes.  Not a system call, but C all the same."""

from __future__ import annotations

import ctypes
import hmac
from functools import cache

_SIZE = 32768  # struct crypt_data of libxcrypt


@cache
def _function() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL("libcrypt.so.1").crypt_r
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
    function.restype = ctypes.c_char_p
    return function


def matches(password: str, stored: str) -> bool:
    """Return whether `password` has the hash `stored` ($2y$, $5$, $6$, $y$ ...).  Slow on purpose; lets other threads run.

    Raises OSError when the C library has no crypt.
    """
    if "\0" in password or not stored.startswith("$") or not stored.isascii():
        return False
    data = ctypes.create_string_buffer(_SIZE)
    made = _function()(password.encode(), stored.encode(), ctypes.addressof(data))
    return made is not None and hmac.compare_digest(bytes(made), stored.encode())
