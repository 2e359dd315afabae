"""The flags of `sampan daemon`, each with its key in the configuration file (docker's daemon.json)."""

from __future__ import annotations

from sampan.cli.options import flag

CONFIG_FILE = "/etc/sampan/daemon.json"
DAEMON = (
    flag("-H --host", "list", "Daemon socket(s) to listen on"),
    flag("--data-root", "string", "Root directory of persistent state (default /var/lib/sampan)"),
    flag("--exec-root", "string", "Root directory for execution state files (default /run/sampan)"),
    flag("-b --bridge", "string", "Attach containers to this network bridge (default sampan0)"),
    flag("--bip", "string", "IPv4 address of the bridge with its prefix"),
    flag("--default-address-pool", "list", "Where new networks' subnets come from (base=CIDR,size=PREFIX)"),
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
    flag("--dns", "list", "DNS server to use"),
    flag("--dns-opt", "list", "DNS options to use"),
    flag("--dns-search", "list", "DNS search domains to use"),
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
)

# The file's keys, with the kind of their values; a flag's key is its name but for these.
PLURAL = {"host": "hosts", "label": "labels", "log-opt": "log-opts", "insecure-registry": "insecure-registries",
          "registry-mirror": "registry-mirrors", "default-address-pool": "default-address-pools",
          "default-network-opt": "default-network-opts", "dns-opt": "dns-opts"}  # fmt: skip
KINDS: dict[str, type] = {
    "hosts": list, "data-root": str, "exec-root": str, "bridge": str,
    "bip": str, "cgroup-parent": str, "pidfile": str,
    "group": str,
       "init": bool, "debug": bool,
    "mtu": int, "dns": list, "dns-search": list, "labels": list, "log-driver": str, "log-opts": dict, "tls": bool,
    "tlscacert": str, "tlscert": str, "tlskey": str, "tlsverify": bool,
}  # fmt: skip
KINDS.update(
    dict.fromkeys(("insecure-registries", "registry-mirrors", "registry-certs", "default-address-pools", "dns-opts"), list)
)
KINDS.update(dict.fromkeys(("ipv6", "icc", "ip-forward", "ip-masq"), bool))
KINDS.update(
    dict.fromkeys(("bip6", "fixed-cidr", "fixed-cidr-v6", "default-gateway", "default-gateway-v6", "ip", "host-gateway-ip"), str)
)
KINDS["default-network-opts"] = dict
KINDS.update(dict.fromkeys(("http-proxy", "https-proxy", "no-proxy"), str))
