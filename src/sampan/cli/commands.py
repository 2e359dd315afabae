"""The table of commands: names, flags, and where each is done.  Only data; loaded at every start."""

from __future__ import annotations

from sampan.cli import commands_build, commands_resources
from sampan.cli.options import Command, Flag, flag

GLOBAL = (
    flag("-H --host", "string", "Daemon socket to connect to"),
    flag("-D --debug", "bool", "Show tracebacks"),
    flag("--tls", "bool", "Use TLS; implied by --tlsverify"),
    flag("--tlsverify", "bool", "Use TLS and verify the daemon"),
    flag("--tlscacert", "string", "Trust certs signed only by this CA"),
    flag("--tlscert", "string", "Path to TLS certificate file"),
    flag("--tlskey", "string", "Path to TLS key file"),
    flag("-v --version", "bool", "Print version information and quit"),
)

_FORMAT = flag("--format", "string", "'table', 'table TEMPLATE', 'json', or a Go template")
_INSPECT = flag("-f --format", "string", "'json' or a Go template")
_FILTER = flag("-f --filter", "list", "Filter output based on conditions provided")
_QUIET = flag("-q --quiet", "bool", "Only display IDs")
_WHOLE = flag("--no-trunc", "bool", "Don't truncate output")
_KEYS = flag("--detach-keys", "string", "Override the key sequence for detaching a container")
_PROXY = flag("--sig-proxy", "bool", "Proxy all received signals to the process", True)
_SINCE = flag("--since", "string", "Show what happened since this time (RFC 3339, Unix time, or '10m' ago)")
_UNTIL = flag("--until", "string", "Show what happened before this time")
_STOP: tuple[Flag, ...] = (
    flag("-s --signal", "string", "Signal to send to the container"),
    flag("-t --timeout --time", "int", "Seconds to wait before killing the container"),
)
_PRUNE: tuple[Flag, ...] = (
    flag("--filter", "list", "Provide filter values"),
    flag("-f --force", "bool", "Do not prompt for confirmation"),
)
_PLATFORM = flag("--platform", "string", "os[/arch[/variant]]")
ANY = (1, None)


def _run(name: str) -> Command:
    """run and create have flags enough for a file of their own, read only when called."""
    from sampan.cli.run_flags import CREATE, RUN

    if name == "create":
        return Command("[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", "create:create", CREATE, ANY, True,
                       ("sampan create --name web -p 8080:80 httpd",))  # fmt: skip
    return Command(
        "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image", "run:run", RUN, ANY, True,
        ("sampan run --rm busybox echo hello", "sampan run -it busybox sh",
         "sampan run -d --name web -p 8080:80 -m 256m busybox httpd -f"),
    )  # fmt: skip


COMMANDS: dict[str, Command] = {
    "exec": Command("[OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container", "exec:run", (
        flag("-d --detach", "bool", "Run command in the background"), _KEYS,
        flag("-e --env", "list", "Set environment variables"),
        flag("--env-file", "list", "Read in a file of environment variables"),
        flag("-i --interactive", "bool", "Keep STDIN open even if not attached"),
        flag("--privileged", "bool", "Give extended privileges to the command"),
        flag("-t --tty", "bool", "Allocate a pseudo-TTY"),
        flag("-u --user", "string", "Username or UID (format: '<name|uid>[:<group|gid>]')"),
        flag("-w --workdir", "string", "Working directory inside the container"),
    ), (2, None), True, ("sampan exec web ps", "sampan exec -it web sh")),
    "ps": Command("[OPTIONS]", "List containers", "ps:run", (
        flag("-a --all", "bool", "Show all containers (default shows just running)"), _FILTER, _FORMAT,
        flag("-n --last", "int", "Show n last created containers (includes all states)", -1),
        flag("-l --latest", "bool", "Show the latest created container (includes all states)"), _WHOLE, _QUIET,
        flag("-s --size", "bool", "Display total file sizes"),
    ), (0, 0), False, ("sampan ps -a", "sampan ps --format '{{.ID}}: {{.Names}}'")),
    "logs": Command("[OPTIONS] CONTAINER", "Fetch the logs of a container", "logs:run", (
        flag("--details", "bool", "Show extra details provided to logs"),
        flag("-f --follow", "bool", "Follow log output"), _SINCE,
        flag("-n --tail", "string", "Number of lines to show from the end of the logs", "all"),
        flag("-t --timestamps", "bool", "Show timestamps"), _UNTIL,
    ), (1, 1), False, ("sampan logs -f --tail 10 web",)),
    "inspect": Command("[OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on Sampan objects", "inspect:anything", (
        _INSPECT, flag("-s --size", "bool", "Display total file sizes if the type is container"),
        flag("--type", "string", "Only inspect objects of the given type"),
    ), ANY, False, ("sampan inspect -f '{{.State.Pid}}' web",)),
    "stop": Command("[OPTIONS] CONTAINER [CONTAINER...]", "Stop one or more running containers", "verbs:stop", _STOP, ANY,
                    examples=("sampan stop -t 2 web",)),
    "start": Command("[OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", "start:run", (
        flag("-a --attach", "bool", "Attach STDOUT/STDERR and forward signals"), _KEYS,
        flag("--checkpoint", "string", "Restore from this checkpoint"),
        flag("--checkpoint-dir", "string", "Use a custom checkpoint storage directory"),
        flag("-i --interactive", "bool", "Attach container's STDIN"), _PROXY,
    ), ANY, False, ("sampan start -ai web",)),
    "restart": Command("[OPTIONS] CONTAINER [CONTAINER...]", "Restart one or more containers", "verbs:restart", _STOP, ANY,
                       examples=("sampan restart web",)),
    "kill": Command("[OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers", "verbs:kill", (
        flag("-s --signal", "string", "Signal to send to the container"),), ANY, examples=("sampan kill -s HUP web",)),
    "rm": Command("[OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers", "verbs:remove", (
        flag("-f --force", "bool", "Force the removal of a running container (uses SIGKILL)"),
        flag("-l --link", "bool", "Remove the specified link"),
        flag("-v --volumes", "bool", "Remove anonymous volumes associated with the container"),
    ), ANY, examples=("sampan rm -f web",)),
    "attach": Command("[OPTIONS] CONTAINER", "Attach local standard streams to a running container", "attach:run", (
        _KEYS, flag("--no-stdin", "bool", "Do not attach STDIN"), _PROXY), (1, 1), examples=("sampan attach web",)),
    "wait": Command("CONTAINER [CONTAINER...]", "Block until containers stop, then print their exit codes", "verbs:wait",
                    (), ANY, examples=("sampan wait web",)),
    "rename": Command("CONTAINER NEW_NAME", "Rename a container", "verbs:rename", (), (2, 2), examples=("sampan rename web www",)),
    "pause": Command("CONTAINER [CONTAINER...]", "Pause all processes within containers", "verbs:pause", (), ANY,
                     examples=("sampan pause web",)),
    "unpause": Command("CONTAINER [CONTAINER...]", "Unpause all processes within containers", "verbs:unpause", (), ANY,
                       examples=("sampan unpause web",)),
    "top": Command("CONTAINER [ps OPTIONS]", "Display the running processes of a container", "verbs:top", (), ANY, True,
                   ("sampan top web -o pid,args",)),
    "port": Command("CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings for the container", "verbs:port", (), (1, 2),
                    examples=("sampan port web 80/tcp",)),
    "container prune": Command("[OPTIONS]", "Remove all stopped containers", "verbs:prune", _PRUNE,
                               examples=("sampan container prune -f",)),
    "container inspect": Command("[OPTIONS] CONTAINER [CONTAINER...]", "Display detailed information on containers",
                                 "inspect:container", (_INSPECT, flag("-s --size", "bool", "Display total file sizes")), ANY,
                                 examples=("sampan container inspect web",)),
    "images": Command("[OPTIONS] [REPOSITORY[:TAG]]", "List images", "images:listing", (
        flag("-a --all", "bool", "Show all images (default hides intermediate images)"),
        flag("--tree", "bool", "List every image with its manifests as a tree"),
        flag("--digests", "bool", "Show digests"), _FILTER, _FORMAT, _WHOLE, _QUIET,
    ), (0, 1), examples=("sampan images busybox",)),
    "rmi": Command("[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", "images:remove", (
        flag("-f --force", "bool", "Force removal of the image"),
        flag("--no-prune", "bool", "Do not delete untagged parents"),
        flag("--platform", "list", "Remove only if it is of this platform: os[/arch[/variant]]"),
    ), ANY, examples=("sampan rmi busybox",)),
    "load": Command("[OPTIONS]", "Load an image from a tar archive or STDIN", "images:load", (
        flag("-i --input", "string", "Read from tar archive file, instead of STDIN"), _PLATFORM,
        flag("-q --quiet", "bool", "Suppress the load output"),
    ), examples=("sampan load -i busybox.tar",)),
    "save": Command("[OPTIONS] IMAGE [IMAGE...]", "Save images to a tar archive (streamed to STDOUT by default)", "images:save", (
        flag("-o --output", "string", "Write to a file, instead of STDOUT"), _PLATFORM), ANY,
        examples=("sampan save -o busybox.tar busybox",)),
    "import": Command("[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", "Import a root file system's tar as an image", "images:import_", (
        flag("-c --change", "list", "Apply Dockerfile instruction to the created image"),
        flag("-m --message", "string", "Set commit message for imported image"), _PLATFORM,
    ), (1, 2), examples=("tar -C rootfs -c . | sampan import - mine:1",)),
    "pull": Command("[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", "registry:pull", (
        flag("-a --all-tags", "bool", "Download all tagged images in the repository"), _PLATFORM,
        flag("-q --quiet", "bool", "Suppress verbose output"),
    ), (1, 1), examples=("sampan pull debian:bookworm-slim", "sampan pull registry.example.org/team/base:1")),
    "push": Command("[OPTIONS] NAME[:TAG]", "Upload an image to a registry", "registry:push", (
        flag("-a --all-tags", "bool", "Push all tags of an image to the repository"), _PLATFORM,
        flag("-q --quiet", "bool", "Suppress verbose output"),
    ), (1, 1), examples=("sampan push registry.example.org/team/base:1",)),
    "login": Command("[OPTIONS] [SERVER]", "Authenticate to a registry", "registry:login", (
        flag("-p --password", "string", "Password or Personal Access Token (PAT)"),
        flag("--password-stdin", "bool", "Take the Password or Personal Access Token (PAT) from stdin"),
        flag("-u --username", "string", "Username"),
    ), (0, 1), examples=("sampan login -u me --password-stdin registry.example.org < token",)),
    "logout": Command("[SERVER]", "Log out from a registry", "registry:logout", (), (0, 1),
                      examples=("sampan logout registry.example.org",)),
    "search": Command("[OPTIONS] TERM", "Search Docker Hub for images", "registry:search", (
        flag("-f --filter", "list", "Filter output based on conditions provided"), _FORMAT,
        flag("--limit", "int", "Max number of search results"), _WHOLE,
    ), (1, 1), examples=("sampan search --limit 5 nginx",)),
    "registry serve": Command("[OPTIONS]", "Run a registry for a team's private images", "registry_serve:run", (
        flag("--listen", "string", "Address to listen on", "127.0.0.1:5000"),
        flag("--data-root", "string", "Folder of the images", "/var/lib/sampan-registry"),
        flag("--tlscert", "string", "Path to TLS certificate file"), flag("--tlskey", "string", "Path to TLS key file"),
        flag("--htpasswd", "string", "File of users and hashes (bcrypt), as htpasswd -B writes it"),
        flag("--token", "bool", "Give the users short-lived tokens instead of taking the password each time"),
        flag("--read-only", "bool", "Refuse every change"), flag("--max-blob", "bytes", "Largest blob", 1 << 40),
    ), examples=("sampan registry serve --listen 0.0.0.0:5000 --tlscert r.crt --tlskey r.key --htpasswd users",)),
    "tag": Command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", "images:tag",
                   (), (2, 2), examples=("sampan tag busybox mine:1",)),
    "history": Command("[OPTIONS] IMAGE", "Show the history of an image", "images:history", (
        _FORMAT, flag("-H --human", "bool", "Print sizes and dates in human readable format", True), _WHOLE, _QUIET, _PLATFORM,
    ), (1, 1), examples=("sampan history busybox",)),
    "image inspect": Command("[OPTIONS] IMAGE [IMAGE...]", "Display detailed information on images", "inspect:image",
                             (_INSPECT, _PLATFORM), ANY, examples=("sampan image inspect busybox",)),
    "image prune": Command("[OPTIONS]", "Remove unused images", "images:prune", (
        flag("-a --all", "bool", "Remove all unused images, not just dangling ones"),
        flag("--keep", "int", "Spare the newest tags of every repository, so many"),
        flag("--unused-for", "string", "Only what no container was made from for so long ('240h')"), *_PRUNE),
        examples=("sampan image prune -f", "sampan image prune --keep 3 --unused-for 240h")),
    "image bootstrap": Command("[OPTIONS] RECIPE [ARG...]", "Make a base image without a registry",
                               "images:bootstrap", (flag("-t --tag", "string", "Name and tag of the image"),
                               flag("-q --quiet", "bool", "Suppress the progress")), ANY,
                               examples=("sampan image bootstrap busybox", "sampan image bootstrap debian:bookworm",
                                         "sampan image bootstrap -t tools host sh ls", "sampan image bootstrap venv /srv/venv")),
    "image sbom": Command("[OPTIONS] IMAGE", "Show the software bill of materials of an image (SPDX 2.3, JSON)", "images:sbom", (
        flag("-o --output", "string", "Write to a file, instead of STDOUT"),), (1, 1), examples=("sampan image sbom busybox",)),
    "network ls": Command("[OPTIONS]", "List networks", "networks:listing", (_FILTER, _FORMAT, _WHOLE, _QUIET),
                          examples=("sampan network ls",)),
    "network inspect": Command("[OPTIONS] NETWORK [NETWORK...]", "Display detailed information on networks", "inspect:network",
                               (_INSPECT, flag("-v --verbose", "bool", "Verbose output for diagnostics")), ANY,
                               examples=("sampan network inspect bridge",)),
    "network create": Command("[OPTIONS] NETWORK", "Create a network", "networks:create", (
        flag("--attachable", "bool", "Enable manual container attachment"),
        flag("--aux-address", "list", "Auxiliary addresses used by network driver (name=ip)"),
        flag("--config-from", "string", "The network from which to copy the configuration"),
        flag("--config-only", "bool", "Create a configuration only network"),
        flag("-d --driver", "string", "Driver to manage the Network", "bridge"),
        flag("--gateway", "list", "IPv4 or IPv6 Gateway for the master subnet"),
        flag("--ingress", "bool", "Create swarm routing-mesh network"),
        flag("--internal", "bool", "Restrict external access to the network"),
        flag("--ip-range", "list", "Allocate container ip from a sub-range"),
        flag("--ipam-driver", "string", "IP Address Management Driver", "default"),
        flag("--ipam-opt", "list", "Set IPAM driver specific options"),
        flag("--ipv4", "bool", "Enable or disable IPv4 address assignment", True),
        flag("--ipv6", "bool", "Enable or disable IPv6 address assignment"),
        flag("--label", "list", "Set metadata on a network"),
        flag("-o --opt", "list", "Set driver specific options"),
        flag("--scope", "string", "Control the network's scope"),
        flag("--subnet", "list", "Subnet in CIDR format that represents a network segment"),
    ), (1, 1), examples=("sampan network create --subnet 10.9.0.0/24 back", "sampan network create --internal db")),
    "network connect": Command("[OPTIONS] NETWORK CONTAINER", "Connect a container to a network", "networks:connect", (
        flag("--alias", "list", "Add network-scoped alias for the container"),
        flag("--driver-opt", "list", "Driver options for the network"),
        flag("--gw-priority", "int", "Highest gw-priority provides the default gateway"),
        flag("--ip", "string", "IPv4 address"), flag("--ip6", "string", "IPv6 address"),
        flag("--link", "list", "Add link to another container"),
        flag("--link-local-ip", "list", "Add a link-local address for the container"),
    ), (2, 2), examples=("sampan network connect --alias db --ip 10.9.0.7 back web",)),
    "network disconnect": Command("[OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network", "networks:disconnect", (
        flag("-f --force", "bool", "Force the container to disconnect from a network"),), (2, 2),
        examples=("sampan network disconnect back web",)),
    "network rm": Command("NETWORK [NETWORK...]", "Remove one or more networks", "networks:remove", (
        flag("-f --force", "bool", "Do not error if the network does not exist"),), ANY, examples=("sampan network rm back",)),
    "network audit": Command("[OPTIONS]", "Show what is reachable from where", "networks:audit", (_FORMAT,),
                             examples=("sampan network audit",)),
    "network repair": Command("", "Make again what somebody took from the host: bridges, tables, settings", "networks:repair",
                              examples=("sampan network repair",)),
    "network prune": Command("[OPTIONS]", "Remove all unused networks", "networks:prune", _PRUNE,
                             examples=("sampan network prune -f",)),
    "completion": Command("bash|zsh|fish", "Print a shell's completion script", "complete:script", (), (1, 1),
                          examples=("source <(sampan completion bash)", "sampan completion fish | source")),
    "version": Command("[OPTIONS]", "Show the Sampan version information", "version:run", (
        flag("--client", "bool", "Only the client's; no daemon is asked"), _INSPECT), examples=("sampan version --client",)),
    "info": Command("[OPTIONS]", "Display system-wide information", "info:run", (_INSPECT,), examples=("sampan info",)),
    "events": Command("[OPTIONS]", "Get real time events from the daemon", "events:run", (_FILTER, _FORMAT, _SINCE, _UNTIL),
                      examples=("sampan events --since 10m",)),
    "jobs": Command("[OPTIONS]", "List the daemon's running jobs", "extras:jobs", (
        flag("-a --all", "bool", "Show recent jobs too"), _FORMAT, _WHOLE), examples=("sampan jobs -a",)),
    "doctor": Command("[OPTIONS]", "Show what this host has and lacks", "extras:doctor", (_FORMAT,), examples=("sampan doctor",)),
    "system check": Command("[OPTIONS]", "Look at every blob, layer and record of the images", "extras:check", (
        flag("--repair", "bool", "Fetch again, unpack again or drop what is broken"), _FORMAT),
        examples=("sampan system check --repair",)),
    "explain": Command("[OPTIONS] CONTAINER", "Show what the kernel holds for a container, and the commands that show it",
                       "extras:explain", (_FORMAT,), (1, 1), examples=("sampan explain web",)),
    **commands_resources.COMMANDS,
    **commands_build.COMMANDS,
}  # fmt: skip

ALIASES: dict[str, str] = {
    **commands_resources.ALIASES,
    "image build": "build", "builder build": "build",
    "container ls": "ps", "container list": "ps", "container ps": "ps", "container remove": "rm",
    "image ls": "images", "image list": "images", "image rm": "rmi", "image remove": "rmi", "network list": "network ls",
    "network remove": "network rm",
    "system info": "info", "system events": "events", "container run": "run", "container create": "create",
    **{f"container {verb}": verb for verb in (
        "exec", "logs", "stop", "start", "restart", "kill", "rm", "attach", "wait", "rename", "pause", "unpause", "top", "port",
        "explain")},
    **{f"image {verb}": verb for verb in ("load", "save", "import", "tag", "history", "pull", "push")},
}  # fmt: skip
GROUPS = ("builder", "container", "image", "network", "registry", "system", "volume")


def _daemon() -> Command:
    from sampan.cli.daemon_flags import DAEMON

    return Command("[OPTIONS]", "Run the daemon", "daemon:run", DAEMON, (0, 0), False,
                   ("sampan daemon -H unix:///run/sampan/sampan.sock -H tcp://127.0.0.1:2375",))  # fmt: skip


def find(name: str) -> Command | None:
    """Return the command called `name`, "ps" or "container ls"."""
    name = ALIASES.get(name, name)
    if name in ("run", "create"):
        return _run(name)
    if name == "__complete":  # asked by the completion scripts, shown to nobody
        return Command("SHELL WORD...", "", "complete:answer", (), ANY, True)
    return _daemon() if name == "daemon" else COMMANDS.get(name)


def names() -> dict[str, str]:
    """Every command and what it does, for help."""
    first = {
        "run": "Create and run a new container from an image",
        "create": "Create a new container",
        "daemon": "Run the daemon",
    }
    return {**first, **{name: one.help for name, one in COMMANDS.items()}}
