"""sampan daemon: flags and configuration file become settings; sampan.daemon does the rest.

The contract: sampan.daemon.main(settings) -> exit code, where settings has the keys of daemon.json (daemon_flags.KINDS);
what nobody set is absent.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sampan.cli.daemon_flags import CONFIG_FILE, KINDS, PLURAL
from sampan.cli.main import Exit

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.cli.options import Options

MERGED = ("hosts", "labels")  # hosts only when one side alone has them; labels may be in both


def run(call: Invocation) -> int:
    wanted = settings(call.options)
    if call.options.validate:
        print("configuration OK")
        return 0
    # By name: the daemon's rooms and the command's never import each other.
    main: Any = import_module("sampan.daemon").main
    return int(main(wanted))


def settings(o: Options) -> dict[str, Any]:
    """Flags and file together.  Raises Exit for unknown keys, wrong values, and what both set."""
    made = _flags(o)
    found = _file(o.config_file, must_exist="config_file" in o.given)
    both = [key for key in found if key in made and key != "labels"]
    if both:
        shown = ", ".join(f"{key}: (from flag: {_shown(made[key])}, from file: {_shown(found[key])})" for key in both)
        raise Exit(1, f"unable to configure the daemon with file {o.config_file}: the following directives are specified both as a "
                      f"flag and in the configuration file: {shown}")  # fmt: skip
    if "labels" in made and "labels" in found:
        made["labels"] = [*found.pop("labels"), *made["labels"]]
    return {**found, **made}


def _shown(value: Any) -> str:
    return "[" + " ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


def _flags(o: Options) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key in sorted(o.given - {"config_file", "validate"}):
        name = key.replace("_", "-")
        made[PLURAL.get(name, name)] = o[key]
    if "log-opts" in made:
        pairs = [one.partition("=") for one in made["log-opts"]]
        made["log-opts"] = {name: value for name, _, value in pairs}
    if "default-network-opts" in made:
        made["default-network-opts"] = _network_options(made["default-network-opts"])
    return made


def _network_options(words: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for word in words:
        driver, _, rest = word.partition("=")
        key, equals, value = rest.partition("=")
        if not (driver and key and equals):
            raise Exit(1, f"invalid default network option {word[:64]!r}: wanted DRIVER=KEY=VALUE")
        found.setdefault(driver, {})[key] = value
    return found


def _file(path: str, *, must_exist: bool) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        if must_exist and path != CONFIG_FILE:
            raise Exit(1, f"unable to configure the daemon with file {path}: open {path}: no such file or directory") from None
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise Exit(1, f"unable to configure the daemon with file {path}: {error}") from None
    if not isinstance(found, dict):
        raise Exit(1, f"unable to configure the daemon with file {path}: an object is needed")
    unknown = sorted(set(found) - set(KINDS))
    if unknown:
        raise Exit(1, f"unable to configure the daemon with file {path}: the following directives don't match any configuration "
                      f"option: {', '.join(unknown)}")  # fmt: skip
    pools = found.get("default-address-pools")
    if isinstance(pools, list):  # docker's daemon.json has objects here
        found["default-address-pools"] = [_pool(one) if isinstance(one, dict) else one for one in pools]
    for key, value in found.items():
        kind = KINDS[key]
        right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if kind is list:
            right = right and all(isinstance(one, str) for one in value)
        if not right:
            raise Exit(1, f"unable to configure the daemon with file {path}: {key}: a {kind.__name__} is needed")
    return found


def _pool(one: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in one.items())
