"""More rows of the table in commands.py: volumes and what containers use."""

from __future__ import annotations

from sampan.cli.options import Command, flag

_FORMAT = flag("--format", "string", "'table', 'table TEMPLATE', 'json', or a Go template")
_INSPECT = flag("-f --format", "string", "'json' or a Go template")
_FILTER = flag("-f --filter", "list", "Filter output based on conditions provided")
_PRUNE = (flag("--filter", "list", "Provide filter values"), flag("-f --force", "bool", "Do not prompt for confirmation"))

COMMANDS: dict[str, Command] = {
    "volume create": Command("[OPTIONS] [VOLUME]", "Create a volume", "volumes:create", (
        flag("-d --driver", "string", "Specify volume driver name", "local"),
        flag("--label", "list", "Set metadata for a volume"),
        flag("-o --opt", "list", "Set driver specific options: type=, device=, o= as of mount(8)"),
    ), (0, 1), examples=("sampan volume create data", "sampan volume create -o type=tmpfs -o device=tmpfs -o o=size=64m fast")),
    "volume ls": Command("[OPTIONS]", "List volumes", "volumes:listing", (
        _FILTER, _FORMAT, flag("-q --quiet", "bool", "Only display volume names")),
        examples=("sampan volume ls -f dangling=true",)),
    "volume inspect": Command("[OPTIONS] VOLUME [VOLUME...]", "Display detailed information on volumes", "inspect:volume",
                              (_INSPECT,), (1, None), examples=("sampan volume inspect data",)),
    "volume rm": Command("[OPTIONS] VOLUME [VOLUME...]", "Remove volumes", "volumes:remove", (
        flag("-f --force", "bool", "A volume that is not there is no failure"),), (1, None), examples=("sampan volume rm data",)),
    "volume prune": Command("[OPTIONS]", "Remove unused local volumes", "volumes:prune", (
        flag("-a --all", "bool", "Remove all unused volumes, not just anonymous ones"), *_PRUNE),
        examples=("sampan volume prune -a -f",)),
}  # fmt: skip

ALIASES = {"volume list": "volume ls", "volume remove": "volume rm"}
