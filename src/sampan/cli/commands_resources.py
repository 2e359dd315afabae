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
    "stats": Command("[OPTIONS] [CONTAINER...]", "Display a live stream of what containers use", "stats:run", (
        flag("-a --all", "bool", "Show all containers (default shows just running)"), _FORMAT,
        flag("--no-stream", "bool", "Only the first result"), flag("--no-trunc", "bool", "Don't truncate output"),
    ), (0, None), examples=("sampan stats --no-stream", "sampan stats --format '{{.Name}} {{.CPUPerc}}' web")),
    "update": Command("[OPTIONS] CONTAINER [CONTAINER...]", "Change limits and restart policy of containers, running or not",
                      "update:run", (
        flag("--blkio-weight", "int", "Block IO (relative weight), between 10 and 1000, or 0 to disable"),
        flag("--cpu-period", "int", "Limit CPU CFS (Completely Fair Scheduler) period, in microseconds"),
        flag("--cpu-quota", "int", "Limit CPU CFS (Completely Fair Scheduler) quota, in microseconds"),
        flag("--cpu-rt-period", "int", "Limit the CPU real-time period in microseconds"),
        flag("--cpu-rt-runtime", "int", "Limit the CPU real-time runtime in microseconds"),
        flag("-c --cpu-shares", "int", "CPU shares (relative weight)"), flag("--cpus", "decimal", "Number of CPUs"),
        flag("--cpuset-cpus", "string", "CPUs in which to allow execution (0-3, 0,1)"),
        flag("--cpuset-mems", "string", "MEMs in which to allow execution (0-3, 0,1)"),
        flag("-m --memory", "bytes", "Memory limit"), flag("--memory-reservation", "bytes", "Memory soft limit"),
        flag("--memory-swap", "bytes", "Limit of memory plus swap: -1 is unlimited swap"),
        flag("--pids-limit", "int", "Limit of processes: -1 is unlimited"),
        flag("--restart", "string", "Restart policy to apply when a container exits"),
        flag("--publish-add", "list", "Publish a port while the container runs ([IP:][HOST:]CONTAINER[/PROTO])"),
        flag("--publish-rm", "list", "Close a published port ([HOST:]CONTAINER[/PROTO])"),
        flag("--network-limit", "string", "Bandwidth of the container's networks (in=10mbit,out=5mbit; 0: none)"),
    ), (1, None), examples=("sampan update -m 512m --memory-swap 1g web", "sampan update --cpus 1.5 web",
                            "sampan update --publish-add 8081:80 --publish-rm 8080:80 web")),
    "system df": Command("[OPTIONS]", "Show disk usage", "usage:run", (
        _FORMAT, flag("-v --verbose", "bool", "Show every image, container and volume")), examples=("sampan system df -v",)),
    "system prune": Command("[OPTIONS]", "Remove unused data", "prune:system", (
        flag("-a --all", "bool", "Remove all unused images, not just dangling ones"), *_PRUNE,
        flag("--volumes", "bool", "Prune anonymous volumes too"),
    ), examples=("sampan system prune -f", "sampan system prune --filter until=24h")),
    "cp": Command("[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n        sampan cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
                  "Copy files/folders between a container and the local filesystem", "cp:run", (
        flag("-a --archive", "bool", "Archive mode (copy all uid/gid information)"),
        flag("-L --follow-link", "bool", "Always follow symbol link in SRC_PATH"),
        flag("-q --quiet", "bool", "Suppress progress output; so it is without a terminal"),
    ), (2, 2), examples=("sampan cp web:/etc/hosts .", "sampan cp site/. web:/www", "sampan cp web:/data - | tar -t")),
    "diff": Command("CONTAINER", "Inspect changes to files or directories on a container's filesystem", "changes:diff", (), (1, 1),
                    examples=("sampan diff web",)),
    "export": Command("[OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive", "changes:export", (
        flag("-o --output", "string", "Write to a file, instead of STDOUT"),), (1, 1), examples=("sampan export -o web.tar web",)),
    "commit": Command("[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes", "changes:commit", (
        flag("-a --author", "string", "Author (e.g., 'John Hannibal Smith <hannibal@a-team.com>')"),
        flag("-c --change", "list", "Apply Dockerfile instruction to the created image"),
        flag("-m --message", "string", "Commit message"),
        flag("-p --pause", "bool", "Pause container during commit", True),
    ), (1, 2), examples=("sampan commit -m 'what I did' -c 'CMD [\"sh\"]' web mine:1",)),
}  # fmt: skip

ALIASES = {
    "volume list": "volume ls", "volume remove": "volume rm",
    **{f"container {verb}": verb for verb in ("stats", "update", "cp", "diff", "export", "commit")},
}  # fmt: skip
