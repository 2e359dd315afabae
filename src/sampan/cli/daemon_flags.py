"""The flags of `sampan daemon`, each with its key in the configuration file (docker's daemon.json)."""

from __future__ import annotations

from sampan.cli.options import flag
from sampan.wire.daemon_file import FOREIGN

CONFIG_FILE = "/etc/sampan/daemon.json"
_WORDS = {bool: "bool", int: "int", str: "string", list: "list", dict: "list"}
# A flag's key in the file is its name but for these.
PLURAL = {"host": "hosts", "label": "labels", "log-opt": "log-opts", "insecure-registry": "insecure-registries",
          "registry-mirror": "registry-mirrors", "default-address-pool": "default-address-pools", "dns-opt": "dns-opts",
          "default-ulimit": "default-ulimits", "storage-opt": "storage-opts", "exec-opt": "exec-opts", "add-runtime": "runtimes",
          "feature": "features", "authorization-plugin": "authorization-plugins", "default-network-opt": "default-network-opts",
          "cdi-spec-dir": "cdi-spec-dirs", "containerd-plugins-namespace": "containerd-plugin-namespace",
          "node-generic-resource": "node-generic-resources"}  # fmt: skip
_SINGULAR = {key: name for name, key in PLURAL.items()}
FOREIGN_FLAGS = {_SINGULAR.get(key, key): _WORDS[one.kind] for key, one in FOREIGN.items()}
DAEMON = (
    flag("-H --host", "list", "Daemon socket(s) to listen on"),
    flag("--data-root", "string", "Root directory of persistent state (default /var/lib/sampan)"),
    flag("--exec-root", "string", "Root directory for execution state files (default /run/sampan)"),
    flag("-b --bridge", "string", "Attach containers to this network bridge (default sampan0)"),
    flag("--bip", "string", "IPv4 address of the bridge with its prefix"),
    flag("--default-address-pool", "list", "Where new networks' subnets come from (base=CIDR,size=PREFIX)"),
    flag(
        "--build-allow", "list", "What builds may ask for with --allow: network.host, device (both by default), security.insecure"
    ),
    flag("--cdi-spec-dir", "list", "Folders of CDI specifications, for RUN --device (default /etc/cdi and /var/run/cdi)"),
    flag("--cgroup-parent", "string", "Parent cgroup for all containers (default /sampan)"),
    flag("-p --pidfile", "string", "Path to use for the daemon PID file"),
    flag("-G --group", "string", "Group for the unix socket"),
    flag("--init", "bool", "Run an init in the container to forward signals and reap processes"),
    flag("-D --debug", "bool", "Enable debug mode"),
    flag("--config-file", "string", "Daemon configuration file", CONFIG_FILE),
    flag("--bip6", "string", "IPv6 address of the bridge with its prefix"),
    flag("--fixed-cidr", "string", "The part of the bridge's IPv4 subnet that containers get addresses from"),
    flag("--fixed-cidr-v6", "string", "The bridge's IPv6 subnet, or the part of it that containers get addresses from"),
    flag("--default-gateway", "string", "Containers' IPv4 gateway on the default bridge (default the bridge)"),
    flag("--default-gateway-v6", "string", "Containers' IPv6 gateway on the default bridge (default the bridge)"),
    flag("--default-network-opt", "list", "Default options of new networks (DRIVER=KEY=VALUE)"),
    flag("--ipv6", "bool", "Give containers on the default bridge IPv6 addresses too"),
    flag("--icc", "bool", "Let containers on the default bridge reach each other (default true)"),
    flag("--ip", "string", "Host address to publish ports at when none is asked for (default 0.0.0.0)"),
    flag("--ip-forward", "bool", "Let the host forward packets (default true)"),
    flag("--ip-masq", "bool", "Masquerade what leaves the default bridge (default true)"),
    flag("--host-gateway-ip", "string", "What host-gateway in --add-host stands for (default the network's gateway)"),
    flag("--mtu", "int", "The containers' network MTU"),
    flag("--dns", "list", "DNS server of containers that name none"),
    flag("--dns-opt", "list", "DNS options of containers that name none"),
    flag("--dns-search", "list", "DNS search domains of containers that name none"),
    flag("--default-ulimit", "list", "Ulimit of containers that do not set it (NAME=SOFT[:HARD])"),
    flag("--default-shm-size", "bytes", "Size of /dev/shm of containers that do not say (default 64MiB)"),
    flag("--default-ipc-mode", "string", "IPC mode of containers that do not say: private (default) or shareable"),
    flag("--default-cgroupns-mode", "string", "Cgroup namespace of containers that do not say: private (default) or host"),
    flag("--default-stop-timeout", "int", "Seconds to wait for a container's end before it is killed (default 10)"),
    flag("--no-new-privileges", "bool", "Set no-new-privileges by default for new containers"),
    flag("--seccomp-profile", "string", "Path to the seccomp profile of containers that name none (builtin, unconfined)"),
    flag("-l --log-level", "string", "The daemon's log: debug, info (default), warn, error or fatal"),
    flag("--label", "list", "Set key=value labels to the daemon"),
    flag("--log-driver", "string", "Default driver for container logs"),
    flag("--log-opt", "list", "Default log driver options for containers"),
    flag("--tls", "bool", "Use TLS; implied by --tlsverify"),
    flag("--tlscacert", "string", "Trust certs signed only by this CA"),
    flag("--tlscert", "string", "Path to TLS certificate file"),
    flag("--tlskey", "string", "Path to TLS key file"),
    flag("--tlsverify", "bool", "Use TLS and verify the remote"),
    flag("--insecure-registry", "list", "Registry (host:port or CIDR) that is spoken to without verified TLS, or without TLS"),
    flag("--registry-mirror", "list", "Mirror asked before a registry: [REGISTRY=]URL (default docker.io's)"),
    flag("--registry-certs", "list", "Folder of certificates by registry (default /etc/sampan/certs.d, /etc/docker/certs.d)"),
    flag("--http-proxy", "string", "HTTP proxy URL to use for registries (default from HTTP_PROXY)"),
    flag("--https-proxy", "string", "HTTPS proxy URL to use for registries (default from HTTPS_PROXY)"),
    flag("--no-proxy", "string", "Comma-separated hosts or IPs to reach without a proxy (default from NO_PROXY)"),
    flag("--validate", "bool", "Validate the configuration and exit"),
    *(flag(f"--{name}", kind, "Docker's; see docs/cli.md") for name, kind in FOREIGN_FLAGS.items()),
)
