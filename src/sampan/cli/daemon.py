"""sampan daemon: flags and configuration file become settings; sampan.become does the rest.

The contract: sampan.become.daemon(settings) -> exit code, where settings has the keys of daemon.json (wire/daemon_file.py),
config-file and flags: what of the reloadable keys the command line set.  What nobody set is absent.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sampan.cli.daemon_flags import CONFIG_FILE, PLURAL
from sampan.cli.main import Exit
from sampan.errors import SampanError
from sampan.wire import daemon_file

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.cli.options import Options


def run(call: Invocation) -> int:
    wanted = settings(call.options)
    # By name: the daemon's rooms and the command's never import each other.
    if not call.options.validate:
        return int(import_module("sampan.become").daemon(wanted))
    code = int(import_module("sampan.daemon").validate(wanted))
    if code == 0:
        print("configuration OK")
    return code


def settings(o: Options) -> dict[str, Any]:
    """Flags and file together.  Raises Exit for unknown keys, wrong values, and what both set."""
    where = f"unable to configure the daemon with file {o.config_file}"
    made = _flags(o)
    try:
        found = daemon_file.read(o.config_file, must_exist="config_file" in o.given and o.config_file != CONFIG_FILE)
    except FileNotFoundError:
        raise Exit(1, f"{where}: open {o.config_file}: no such file or directory") from None
    except SampanError as error:
        raise Exit(1, f"{where}: {error}") from None
    both = [key for key in found if key in made and key != "labels"]
    if both:
        shown = ", ".join(f"{key}: (from flag: {_shown(made[key])}, from file: {_shown(found[key])})" for key in both)
        raise Exit(1, f"{where}: the following directives are specified both as a flag and in the configuration file: {shown}")
    flags = {key: made[key] for key in daemon_file.RELOADED if key in made}
    if "labels" in made and "labels" in found:
        made["labels"] = [*found.pop("labels"), *made["labels"]]
    return {**found, **made, "config-file": o.config_file, "flags": flags}


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
    for key in [key for key, value in made.items() if key in daemon_file.FOREIGN and daemon_file.FOREIGN[key].kind is dict]:
        made[key] = {name: value not in ("0", "false") for name, _, value in (one.partition("=") for one in made[key])}
    try:
        return daemon_file.without_foreign(made)
    except SampanError as error:
        raise Exit(1, f"--{error}") from None


def _network_options(words: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for word in words:
        driver, _, rest = word.partition("=")
        key, equals, value = rest.partition("=")
        if not (driver and key and equals):
            raise Exit(1, f"invalid default network option {word[:64]!r}: wanted DRIVER=KEY=VALUE")
        found.setdefault(driver, {})[key] = value
    return found
