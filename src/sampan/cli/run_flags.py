"""The flags of run and create; read only when one of them is called."""

from __future__ import annotations

from sampan.cli.options import Flag, flag

_LISTS = (
    ("--add-host", "Add a custom host-to-IP mapping (host:ip)"), ("--annotation", "Add an annotation (passed to the OCI runtime)"),
    ("-a --attach", "Attach to STDIN, STDOUT or STDERR"), ("--blkio-weight-device", "Block IO weight (relative device weight)"),
    ("--cap-add", "Add Linux capabilities"), ("--cap-drop", "Drop Linux capabilities"), ("--device", "Add a host device"),
    ("--device-cgroup-rule", "Add a rule to the cgroup allowed devices list"),
    ("--device-read-bps", "Limit read rate (bytes per second) from a device"),
    ("--device-read-iops", "Limit read rate (IO per second) from a device"),
    ("--device-write-bps", "Limit write rate (bytes per second) to a device"),
    ("--device-write-iops", "Limit write rate (IO per second) to a device"), ("--dns", "Set custom DNS servers"),
    ("--dns-opt --dns-option", "Set DNS options"), ("--dns-search", "Set custom DNS search domains"),
    ("-e --env", "Set environment variables"), ("--env-file", "Read in a file of environment variables"),
    ("--expose", "Expose a port or a range of ports"), ("--group-add", "Add additional groups to join"),
    ("-l --label", "Set meta data on a container"), ("--label-file", "Read in a line delimited file of labels"),
    ("--link", "Add link to another container"), ("--link-local-ip", "Container IPv4/IPv6 link-local addresses"),
    ("--log-opt", "Log driver options"), ("--mount", "Attach a filesystem mount to the container"),
    ("--net --network", "Connect a container to a network"), ("--net-alias --network-alias", "Add network-scoped alias"),
    ("-p --publish", "Publish a container's port(s) to the host"), ("--security-opt", "Security options"),
    ("--storage-opt", "Storage driver options for the container"), ("--sysctl", "Sysctl options"),
    ("--tmpfs", "Mount a tmpfs directory"), ("--ulimit", "Ulimit options"), ("-v --volume", "Bind mount a volume"),
    ("--volumes-from", "Mount volumes from the specified container(s)"),
)  # fmt: skip
_STRINGS = (
    ("--cgroup-parent", "Optional parent cgroup for the container"), ("--cgroupns", "Cgroup namespace to use (host|private)"),
    ("--cidfile", "Write the container ID to the file"), ("--cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)"),
    ("--cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)"), ("--domainname", "Container NIS domain name"),
    ("--entrypoint", "Overwrite the default ENTRYPOINT of the image"), ("--health-cmd", "Command to run to check health"),
    ("-h --hostname", "Container host name"), ("--ip", "IPv4 address"), ("--ip6", "IPv6 address"), ("--ipc", "IPC mode to use"),
    ("--isolation", "Container isolation technology"), ("--log-driver", "Logging driver for the container"),
    ("--mac-address", "Container MAC address"), ("--name", "Assign a name to the container"), ("--pid", "PID namespace to use"),
    ("--platform", "os[/arch[/variant]]"), ("--runtime", "Runtime to use for this container"),
    ("--stop-signal", "Signal to stop the container"), ("-u --user", "Username or UID (format: <name|uid>[:<group|gid>])"),
    ("--userns", "User namespace to use"), ("--uts", "UTS namespace to use"),
    ("--network-limit", "Bandwidth of the container's networks (in=10mbit,out=5mbit)"),
    ("--volume-driver", "Optional volume driver for the container"), ("-w --workdir", "Working directory inside the container"),
)  # fmt: skip
_INTS = (
    ("--blkio-weight", "Block IO (relative weight), between 10 and 1000"), ("--cpu-period", "Limit CPU CFS period"),
    ("--cpu-quota", "Limit CPU CFS quota"), ("--cpu-rt-period", "Limit CPU real-time period in microseconds"),
    ("--cpu-rt-runtime", "Limit CPU real-time runtime in microseconds"), ("-c --cpu-shares", "CPU shares (relative weight)"),
    ("--health-retries", "Consecutive failures needed to report unhealthy"),
    ("--memory-swappiness", "Tune memory swappiness (0 to 100)"),
    ("--oom-score-adj", "Tune host's OOM preferences (-1000 to 1000)"), ("--pids-limit", "Tune pids limit (set -1 for unlimited)"),
    ("--stop-timeout", "Timeout (in seconds) to stop a container"),
)  # fmt: skip
_BYTES = (
    ("-m --memory", "Memory limit"), ("--memory-reservation", "Memory soft limit"),
    ("--memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap"), ("--shm-size", "Size of /dev/shm"),
    ("--kernel-memory", "Obsolete"),
)  # fmt: skip
_DURATIONS = (
    ("--health-interval", "Time between running the check"),
    ("--health-start-interval", "Time between checks when starting"),
    ("--health-start-period", "Start period before health-retries countdown"), ("--health-timeout", "Maximum time for one check"),
)  # fmt: skip
_BOOLS = (
    ("--init", "Run an init inside the container that forwards signals and reaps processes"),
    ("-i --interactive", "Keep STDIN open even if not attached"), ("--no-healthcheck", "Disable any HEALTHCHECK"),
    ("--oom-kill-disable", "Disable OOM Killer"), ("--privileged", "Give extended privileges to this container"),
    ("-P --publish-all", "Publish all exposed ports to random ports"), ("-q --quiet", "Suppress the pull output"),
    ("--read-only", "Mount the container's root filesystem as read only"),
    ("--rm", "Automatically remove the container when it exits"), ("-t --tty", "Allocate a pseudo-TTY"),
)  # fmt: skip
CREATE: tuple[Flag, ...] = (
    *(flag(names, "list", text) for names, text in _LISTS),
    *(flag(names, "string", text) for names, text in _STRINGS),
    *(flag(names, "int", text) for names, text in _INTS),
    *(flag(names, "bytes", text) for names, text in _BYTES),
    *(flag(names, "duration", text) for names, text in _DURATIONS),
    *(flag(names, "bool", text) for names, text in _BOOLS),
    flag("--cpus", "decimal", "Number of CPUs"),
    flag("--gpus", "string", "GPU devices to add to the container ('all' to pass all GPUs)"),
    flag("--use-api-socket", "bool", "Docker's; refused: -v /run/sampan/sampan.sock:/var/run/docker.sock says what it means"),
    flag("--disable-content-trust", "bool", "Accepted and ignored", True),
    flag("--pull", "string", "Pull image before creating (always, missing, never)", "missing"),
    flag("--restart", "string", "Restart policy to apply when a container exits", "no"),
)
RUN: tuple[Flag, ...] = (
    *CREATE,
    flag("-d --detach", "bool", "Run container in background and print container ID"),
    flag("--detach-keys", "string", "Override the key sequence for detaching a container"),
    flag("--sig-proxy", "bool", "Proxy received signals to the process", True),
)
