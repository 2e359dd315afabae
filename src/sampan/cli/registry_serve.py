"""sampan registry serve: the flags go to sampan.registryd, which does the rest."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.cli.main import Invocation

NAMES = ("listen", "data_root", "tlscert", "tlskey", "htpasswd", "token", "read_only", "max_blob")


def run(call: Invocation) -> int:
    # By name: the registry's rooms and the command's never import each other.
    main: Any = import_module("sampan.registryd").main
    return int(main({name: call.options[name] for name in NAMES}))
