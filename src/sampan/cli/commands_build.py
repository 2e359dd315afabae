"""More rows of the table in commands.py: building."""

from __future__ import annotations

from sampan.cli.options import Command, flag

BUILD = Command("[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile", "build:run", (
    flag("--add-host", "list", "Add a custom host-to-IP mapping (host:ip)"),
    flag("--allow", "list", "Allow what is not by default (network.host)"),
    flag("--build-arg", "list", "Set build-time variables"),
    flag("--build-context", "list", "Named context: NAME=FOLDER, FILE.tar, URL, docker-image://NAME or oci-layout://FOLDER[:TAG]"),
    flag("--cache-from", "list", "Use steps of other daemons: NAME, type=registry,ref=NAME or type=local,src=FOLDER"),
    flag("--cache-to", "list", "Give steps to others: type=inline, type=registry,ref=NAME or type=local,dest=FOLDER [,mode=max]"),
    flag("--cgroup-parent", "string", "Set the parent cgroup for the RUN instructions"),
    flag("--check", "bool", "Check the Dockerfile and build nothing"),
    flag("--cpu-period", "int", "Limit the CPU CFS period"), flag("--cpu-quota", "int", "Limit the CPU CFS quota"),
    flag("-c --cpu-shares", "int", "CPU shares (relative weight)"),
    flag("--cpuset-cpus", "string", "CPUs in which to allow execution (0-3, 0,1)"),
    flag("--cpuset-mems", "string", "MEMs in which to allow execution (0-3, 0,1)"),
    flag("--explain", "bool", "Say for every step that is not cached which of its inputs changed"),
    flag("-f --file", "string", "Name of the Dockerfile (default: PATH/Dockerfile; - for stdin)"),
    flag("--force-rm", "bool", "Always remove intermediate containers (always done)"),
    flag("--iidfile", "string", "Write the image ID to a file"), flag("--label", "list", "Set metadata for an image"),
    flag("-m --memory", "bytes", "Memory limit"), flag("--memory-swap", "bytes", "Memory and swap together; -1: unlimited swap"),
    flag("--network", "string", "Networking mode of RUN instructions", "default"),
    flag("--no-cache", "bool", "Do not use cache when building the image"),
    flag("--no-cache-filter", "list", "Do not use cache for a stage"),
    flag("-o --output", "list", "Where the result goes: DIR, type=local|tar|oci|docker,dest=PATH, or type=image,name=N,push=true"),
    flag("--plan", "bool", "Show the stages that would be built, on what each depends, and their steps; build nothing"),
    flag("--platform", "string", "os[/arch[/variant]]"),
    flag("--progress", "string", "auto, plain, tty, quiet", "auto"), flag("--pull", "bool", "Always pull the base images"),
    flag("--push", "bool", "Push the image's names (--output type=registry)"),
    flag("--load", "bool", "Keep the image in the daemon (always done)"),
    flag("-q --quiet", "bool", "Only print the image ID"),
    flag("--reproducible", "bool", "No time in the image is later than the newest file of the context"),
    flag("--rm", "bool", "Remove intermediate containers (always done)", True),
    flag("--secret", "list", "Secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VARIABLE]"),
    flag("--squash", "bool", "What the build adds becomes one layer"),
    flag("--ssh", "list", "Agent for RUN --mount=type=ssh: NAME[=SOCKET|KEY[,KEY]]; default: the one of SSH_AUTH_SOCK"),
    flag("--shm-size", "bytes", "Size of /dev/shm"), flag("-t --tag", "list", "Name and optionally tag (name:tag)"),
    flag("--target", "string", "Build stage to stop at"), flag("--ulimit", "list", "Ulimit options (name=soft[:hard])"),
    flag("--verify", "bool", "Build twice without the cache and compare: both must give the same image"),
), (1, 1), examples=(
    "sampan build -t web:1 .", "sampan build --explain -t web:1 .", "sampan build --target test --build-arg V=2 -f ci/Dockerfile .",
    "sampan build --secret id=token,src=token.txt .", "sampan build -o out .",
))  # fmt: skip

COMMANDS: dict[str, Command] = {
    "build": BUILD,
    "builder history": Command("[OPTIONS] [BUILD]", "Show the builds that were, or the steps of one", "build_history:history", (
        flag("--format", "string", "A Go template, json, or table"), flag("--log", "bool", "Print what the build said"),
        flag("--rm", "bool", "Forget the build"),
    ), (0, 1), examples=("sampan builder history", "sampan builder history --log 3f2a")),
    "builder prune": Command("[OPTIONS]", "Remove build cache", "build:prune", (
        flag("-a --all", "bool", "Remove all unused build cache, not just dangling ones"),
        flag("--filter", "list", "Provide filter values (until=24h)"),
        flag("-f --force", "bool", "Do not prompt for confirmation"),
        flag("--keep-storage", "bytes", "Amount of disk space to keep for cache"),
    ), examples=("sampan builder prune -f --filter until=24h", "sampan builder prune -a --keep-storage 2g")),
}  # fmt: skip
