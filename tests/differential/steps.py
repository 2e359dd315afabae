"""The steps, in order: each is one request to both daemons (API 1.41, the newest that Debian's dockerd speaks).

Objects have names, so that paths are the same for both; `keep` stores an answer's Id under a name for later paths.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from more_steps import MORE
from table import Step, create, delete, filtered, get, post

_WORDS = "the words are those of Docker 23 and later (engine-api.md)"
_EARLY = "refused when it is asked for; dockerd makes the container and fails at its start"
_OWN = "the engine says what it did itself"
_NEWER = "Docker 23 and later refuse it too (engine-api.md)"
# What the two may say otherwise, with the reason.  A step that is equal again fails until it is taken out of here.
DIFFERENT: dict[str, str] = {
    **dict.fromkeys(("create: no body", "create: bad image name", "create: restart policy", "create: retries of always",
                     "create: bad log driver", "create: bad runtime", "remove: running", "remove: paused", "list: not JSON",
                     "list: by bad status", "exec: start again", "list: since nobody"), _WORDS),
    **dict.fromkeys(("create: bad ipc mode", "create: bad pid mode", "create: bad uts mode", "create: bad dns",
                     "create: bad sysctl", "create: bad ulimit", "create: bad device",
                     "create: bad port", "create: long hostname"), _EARLY),
    **dict.fromkeys(("start: no such program", "start: a directory", "top: bad arguments", "kill: signal 99", "logs: bad since",
                     "events: bad since", "list: by bad health", "rename: bad"), _OWN),
    **dict.fromkeys(("wait: bad condition", "events: bad filter"), _NEWER),
    **dict.fromkeys(("create: not JSON", "create: a list"), "another JSON parser, other words"),
    **dict.fromkeys(("image: inspect nobody", "image: inspect bad name", "image: tag bad", "image: save nobody", "commit: bad name",
                     "image: import bad name", "distribution: bad name", "network: create without name", "archive: no path",
                     "network: create bad subnet", "network: connect to host", "archive: put no path"), _WORDS),
    **dict.fromkeys(("image: create nothing", "network: create bad driver", "archive: file as folder", "checkpoints"), _OWN),
    **dict.fromkeys(("network life: overlap", "network life: gateway elsewhere", "network life: address of nobody's choice",
                     "network life: connect to a bad address", "network life: remove used", "network life: disconnect again",
                     "network life: start with a taken address", "network life: start with an address elsewhere"), _WORDS),
    **dict.fromkeys(("network life: bad option", "network life: bad mtu"), _OWN),
    "network life: inspect both": "20.10 shows an internal network's gateways only where they were asked for",
    "network life: container on both": "20.10 gives a container on an internal network an IPv6 gateway, and none for IPv4",
    "network life: list unused": "20.10 counts nobody's containers in a list, so every network is unused",
    "network: connect to nobody": "20.10 remembers the network for the next start; later ones look first",
}  # fmt: skip
# Parts of inspect and list that belong to the engine, to the host's kernel, or to newer API versions than the oracle's.
OWN_PARTS = frozenset({
    "KernelMemory", "KernelMemoryTCP", "AppArmorProfile", "MaskedPaths", "ReadonlyPaths",
    "DNSNames", "Annotations", "GwPriority",
    "NetworkMode", "PortBindings", "RestartPolicy", "Runtime",
})  # fmt: skip


def listing(name: str, filters: str, query: str = "all=1") -> Step:
    """A list by filters, as the names it holds."""
    return get(name, f"/containers/json?{query}&filters={quote(filters)}", dropped=_ALL_BUT_NAMES)


_ALL_BUT_NAMES = frozenset({
    "Id", "Image", "ImageID", "Command", "Created", "Ports", "Labels", "State", "Status", "HostConfig", "NetworkSettings", "Mounts",
    "SizeRw", "SizeRootFs",
})  # fmt: skip


def host(name: str, **config: Any) -> Step:
    """A create that is to be refused (or warned of) for its HostConfig; the container is called x-NAME."""
    return create(name, "x-" + name.removeprefix("create: ").replace(" ", "-"), HostConfig=config)


def mount(name: str, **mount: Any) -> Step:
    return host("create: " + name, Mounts=[mount])


CREATE = (
    post("create: no body", "/containers/create"),
    post("create: empty body", "/containers/create", {}),
    post("create: not JSON", "/containers/create", b"{nonsense"),
    post("create: a list", "/containers/create", b"[]"),
    post("create: no such image", "/containers/create", {"Image": "nosuch:1", "Cmd": ["true"]}),
    post("create: bad image name", "/containers/create", {"Image": "UPPER", "Cmd": ["true"]}),
    post("create: bad name", "/containers/create?name=a%20b", {"Image": "busybox", "Cmd": ["true"]}),
    post("create: short name", "/containers/create?name=a", {"Image": "busybox", "Cmd": ["true"]}),
    post("create: no command", "/containers/create", {"Image": "busybox"}),
    create("create", "web", Labels={"tier": "web", "x": ""}, Env=["A=b"], ExposedPorts={"80/tcp": {}}),
    create("create: name in use", "web"),
    create("create: another", "other"),
    create("create: relative workdir", "xw", WorkingDir="rel"),
    create("create: bad stop signal", "xs", StopSignal="SIGNOPE"),
    create("create: bad port", "xp", ExposedPorts={"foo": {}}),
    create("create: long hostname", "xh", Hostname="h" * 65),
    create("create: bad env", "xe", Env=["=x"]),
    host("create: little memory", Memory=1000),
    host("create: swap without memory", MemorySwap=67108864),
    host("create: swap below memory", Memory=67108864, MemorySwap=33554432),
    host("create: reservation above memory", Memory=67108864, MemoryReservation=134217728),
    host("create: swappiness", Memory=67108864, MemorySwappiness=101),
    host("create: cpu period", CpuPeriod=10),
    host("create: cpu quota", CpuQuota=10),
    host("create: nano and quota", NanoCpus=500000000, CpuQuota=20000),
    host("create: cpuset", CpusetCpus="999"),
    host("create: cpuset nonsense", CpusetCpus="a"),
    host("create: oom score", OomScoreAdj=2000),
    host("create: bad capability", CapAdd=["CAP_NOPE"]),
    host("create: restart policy", RestartPolicy={"Name": "bogus"}),
    host("create: retries of always", RestartPolicy={"Name": "always", "MaximumRetryCount": 3}),
    host("create: auto-remove with policy", AutoRemove=True, RestartPolicy={"Name": "always"}),
    host("create: bad port binding", PortBindings={"80/tcp": [{"HostPort": "bad"}]}),
    host("create: bad ipc mode", IpcMode="nope"),
    host("create: bad pid mode", PidMode="nope"),
    host("create: bad uts mode", UTSMode="nope"),
    host("create: bad log driver", LogConfig={"Type": "nope"}),
    host("create: bad runtime", Runtime="nope"),
    host("create: shm size", ShmSize=-1),
    host("create: bad dns", Dns=["nope"]),
    host("create: bad extra host", ExtraHosts=["nope"]),
    host("create: bad security option", SecurityOpt=["nope=1"]),
    host("create: bad sysctl", Sysctls={"kernel.nope": "1"}),
    host("create: bad ulimit", Ulimits=[{"Name": "nope", "Soft": 1, "Hard": 1}]),
    host("create: bad device", Devices=[{"PathOnHost": "/dev/nope", "PathInContainer": "/dev/nope", "CgroupPermissions": "rwm"}]),
    host("create: network of nobody", NetworkMode="container:nobody"),
    host("create: volumes from nobody", VolumesFrom=["nobody"]),
    host("create: volumes from a bad mode", VolumesFrom=["web:zz"]),
    host("create: volumes from nothing", VolumesFrom=[":ro"]),
    host("create: duplicate mounts", Binds=["/tmp:/x", "/etc:/x"]),
    host("create: bind mode", Binds=["/tmp:/x:bogus"]),
    host("create: bind mode twice", Binds=["/tmp:/x:ro,ro"]),
    host("create: bind to root", Binds=["vv:/"]),
    host("create: bind relative", Binds=["vv:x"]),
    host("create: bind with four parts", Binds=["a:b:c:d"]),
    host("create: volume propagation", Binds=["vv:/x:shared"]),
    host("create: volume name", Binds=["v v:/x"]),
    mount("mount of no type", Target="/x"),
    mount("mount of bad type", Type="what", Target="/x"),
    mount("mount without target", Type="volume"),
    mount("mount relative", Type="volume", Source="vv", Target="x"),
    mount("mount to root", Type="volume", Source="vv", Target="/"),
    mount("mount of missing source", Type="bind", Source="/no/such", Target="/x"),
    mount("mount of no source", Type="bind", Target="/x"),
    mount("mount of relative source", Type="bind", Source="etc", Target="/x"),
    mount("mount propagation", Type="bind", Source="/etc", Target="/x", BindOptions={"Propagation": "zz"}),
    mount("mount tmpfs with source", Type="tmpfs", Source="/etc", Target="/x"),
    mount("mount anonymous read-only", Type="volume", Target="/x", ReadOnly=True),
    mount("mount volume driver", Type="volume", Source="vv", Target="/x", VolumeOptions={"DriverConfig": {"Name": "nope"}}),
    mount("mount volume option", Type="volume", Source="vq", Target="/x", VolumeOptions={"DriverConfig": {"Options": {"zz": "1"}}}),
)  # fmt: skip

LIFE = (
    get("inspect: created", "/containers/web/json", dropped=OWN_PARTS),
    get("inspect: nobody", "/containers/nobody/json"),
    post("start: nobody", "/containers/nobody/start"),
    post("kill: created", "/containers/web/kill"),
    post("stop: created", "/containers/web/stop"),
    post("pause: created", "/containers/web/pause"),
    post("unpause: created", "/containers/web/unpause"),
    get("top: created", "/containers/web/top"),
    get("logs: created", "/containers/web/logs?stdout=1"),
    post("resize: created", "/containers/web/resize?h=10&w=10"),
    post("exec: created", "/containers/web/exec", {"Cmd": ["true"]}),
    post("wait: bad condition", "/containers/web/wait?condition=nope"),
    post("rename: to itself", "/containers/web/rename?name=web"),
    post("rename: to nothing", "/containers/web/rename"),
    post("rename: bad", "/containers/web/rename?name=a%20b"),
    post("start", "/containers/web/start"),
    post("start: again", "/containers/web/start"),
    get("inspect: running", "/containers/web/json", dropped=OWN_PARTS),
    get("list: running", "/containers/json", dropped=OWN_PARTS),
    post("kill: bad signal", "/containers/web/kill?signal=NOPE"),
    post("kill: signal 0", "/containers/web/kill?signal=0"),
    post("kill: signal 99", "/containers/web/kill?signal=99"),
    post("kill: harmless", "/containers/web/kill?signal=SIGWINCH"),
    post("stop: bad t", "/containers/web/stop?t=abc"),
    post("resize: no numbers", "/containers/web/resize?h=a&w=b"),
    get("top: bad arguments", "/containers/web/top?ps_args=-Z%20nope"),
    get("top: no pid", "/containers/web/top?ps_args=-o%20args"),
    delete("remove: running", "/containers/web"),
    post("pause", "/containers/web/pause"),
    post("pause: again", "/containers/web/pause"),
    post("start: paused", "/containers/web/start"),
    post("exec: paused", "/containers/web/exec", {"Cmd": ["true"]}),
    delete("remove: paused", "/containers/web"),
    get("inspect: paused state", "/containers/web/json", dropped=OWN_PARTS),
    post("unpause", "/containers/web/unpause"),
    post("unpause: again", "/containers/web/unpause"),
    post("rename", "/containers/web/rename?name=www"),
    post("rename: taken", "/containers/www/rename?name=other"),
    post("rename: nobody", "/containers/web/rename?name=zzz"),
    post("rename: back", "/containers/www/rename?name=web"),
    post("exec: no command", "/containers/web/exec", {}),
    post("exec: nobody", "/containers/nobody/exec", {"Cmd": ["true"]}),
    post("exec: create", "/containers/web/exec", {"Cmd": ["echo", "hi"], "AttachStdout": True, "Tty": True}, keep="exec"),
    get("exec: inspect before", "/exec/{exec}/json"),
    post("exec: start", "/exec/{exec}/start", {"Tty": True}),
    get("exec: inspect after", "/exec/{exec}/json"),
    post("exec: start again", "/exec/{exec}/start", {"Detach": False}),
    get("exec: inspect nobody", "/exec/nobody/json"),
    post("exec: start nobody", "/exec/nobody/start", {}),
    post("exec: resize nobody", "/exec/nobody/resize?h=1&w=1"),
    post("exec: create failing", "/containers/web/exec", {"Cmd": ["sh", "-c", "exit 7"], "AttachStdout": True}, keep="failing"),
    post("exec: start failing", "/exec/{failing}/start", {"Detach": False}),
    get("exec: inspect failing", "/exec/{failing}/json"),
    post("update: little memory", "/containers/web/update", {"Memory": 1}),
    post("update: memory without swap", "/containers/web/update", {"Memory": 67108864}),
    post("update: cpuset", "/containers/web/update", {"CpusetCpus": "999"}),
    post("update", "/containers/web/update", {"Memory": 67108864, "MemorySwap": 134217728, "CpuQuota": 50000}),
    post("update: nano after quota", "/containers/web/update", {"NanoCpus": 500000000}),
    post("update: nobody", "/containers/nobody/update", {}),
    post("stop", "/containers/web/stop?t=0"),
    post("stop: again", "/containers/web/stop?t=0"),
    post("wait: stopped", "/containers/web/wait"),
    get("inspect: stopped", "/containers/web/json", dropped=OWN_PARTS),
    post("exec: stopped", "/containers/web/exec", {"Cmd": ["true"]}),
    post("restart", "/containers/web/restart?t=0"),
    post("kill", "/containers/web/kill"),
    post("wait: killed", "/containers/web/wait"),
    create("create: echo", "echo", Cmd=["sh", "-c", "echo out; sleep 0.2; echo err >&2; exit 3"]),
    post("start: echo", "/containers/echo/start"),
    post("wait: echo", "/containers/echo/wait"),
    get("logs: no stream", "/containers/echo/logs"),
    get("logs: both", "/containers/echo/logs?stdout=1&stderr=1"),
    get("logs: tail", "/containers/echo/logs?stdout=1&tail=1"),
    get("logs: bad since", "/containers/echo/logs?stdout=1&since=abc"),
    get("logs: nobody", "/containers/nobody/logs?stdout=1"),
    get("changes: echo", "/containers/echo/changes"),
    create("create: no such program", "noprog", Cmd=["/no/such"]),
    post("start: no such program", "/containers/noprog/start"),
    create("create: a directory", "adir", Cmd=["/etc"]),
    post("start: a directory", "/containers/adir/start"),
    create("create: no such user", "nouser", User="nobodyatall"),
    post("start: no such user", "/containers/nouser/start"),
    create("create: no such network", "nonet", HostConfig={"NetworkMode": "nosuchnet"}),
    post("start: no such network", "/containers/nonet/start"),
    post("attach: nobody", "/containers/nobody/attach?stream=1&stdout=1"),
    get("stats: stopped", "/containers/echo/stats?stream=0"),
    get("stats: nobody", "/containers/nobody/stats?stream=0"),
)  # fmt: skip

LISTS = (
    listing("list: all", "{}"),
    listing("list: limit", "{}", "limit=1"),
    listing("list: bad limit", "{}", "limit=abc"),
    listing("list: not JSON", "{nonsense"),
    listing("list: unknown filter", '{"nope":["1"]}'),
    listing("list: by name", '{"name":["^/w.b$"]}'),
    listing("list: by broken name", '{"name":["("]}'),
    listing("list: by label", '{"label":["tier=web"]}'),
    listing("list: by two labels", '{"label":["tier=web","nope"]}'),
    listing("list: by status", '{"status":["created"]}'),
    listing("list: by bad status", '{"status":["nope"]}'),
    listing("list: by exit code", '{"exited":["3"]}'),
    listing("list: by bad exit code", '{"exited":["x"]}'),
    listing("list: before", '{"before":["echo"]}'),
    listing("list: since", '{"since":["echo"]}'),
    listing("list: since nobody", '{"since":["nobody"]}'),
    listing("list: by ancestor", '{"ancestor":["busybox"]}'),
    listing("list: by other ancestor", '{"ancestor":["nosuch"]}'),
    listing("list: by exposed port", '{"expose":["80"]}'),
    listing("list: by exposed range", '{"expose":["79-81/tcp"]}'),
    listing("list: by bad port", '{"publish":["abc"]}'),
    listing("list: by network", '{"network":["bridge"]}'),
    listing("list: by health", '{"health":["none"]}'),
    listing("list: by bad health", '{"health":["nope"]}'),
    listing("list: by task", '{"is-task":["true"]}'),
    listing("list: by bad task", '{"is-task":["nope"]}'),
    listing("list: old encoding", '{"name":{"web":true}}'),
)  # fmt: skip

VOLUMES = (
    post("volume", "/volumes/create", {"Name": "data", "Labels": {"a": "b"}}),
    post("volume: again", "/volumes/create", {"Name": "data", "Labels": {"c": "d"}}),
    post("volume: tmpfs", "/volumes/create", {"Name": "fast", "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}}),
    post("volume: bad name", "/volumes/create", {"Name": "a/b"}),
    post("volume: short name", "/volumes/create", {"Name": "a"}),
    post("volume: bad driver", "/volumes/create", {"Name": "vd", "Driver": "nope"}),
    post("volume: bad option", "/volumes/create", {"Name": "vo", "DriverOpts": {"zz": "1"}}),
    post("volume: no device", "/volumes/create", {"Name": "vn", "DriverOpts": {"type": "tmpfs"}}),
    post("volume: no type", "/volumes/create", {"Name": "vt", "DriverOpts": {"device": "tmpfs"}}),
    post("volume: size", "/volumes/create", {"Name": "vs", "DriverOpts": {"size": "1m"}}),
    get("volume: inspect", "/volumes/data"),
    get("volume: inspect options", "/volumes/fast"),
    get("volume: inspect nobody", "/volumes/nobody"),
    get("volume: list by label", filtered("/volumes", '{"label":["a=b"]}')),
    get("volume: list by name", filtered("/volumes", '{"name":["^fa"]}')),
    get("volume: list by driver", filtered("/volumes", '{"driver":["nope"]}')),
    get("volume: list by bad key", filtered("/volumes", '{"nope":["x"]}')),
    get("volume: list by bad boolean", filtered("/volumes", '{"dangling":["x"]}')),
    create("create: with volumes", "vols", Volumes={"/anon": {}}, HostConfig={
        "Binds": ["data:/d", "/etc:/e:ro", "vn2:/n:ro,nocopy"], "Tmpfs": {"/t": "size=1m"}, "Mounts": [
            {"Type": "volume", "Target": "/mv"}, {"Type": "tmpfs", "Target": "/mt"},
            {"Type": "bind", "Source": "/usr", "Target": "/u", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"}},
            {"Type": "volume", "Source": "mm", "Target": "/mm", "ReadOnly": True, "VolumeOptions": {"Labels": {"q": "r"}}}]}),
    get("inspect: mounts", "/containers/vols/json", dropped=OWN_PARTS),
    delete("volume: remove used", "/volumes/data"),
    listing("list: by volume", '{"volume":["data"]}'),
    listing("list: by mount point", '{"volume":["/e"]}'),
    delete("remove: with volumes", "/containers/vols?v=1"),
    delete("volume: remove", "/volumes/data"),
    delete("volume: remove nobody", "/volumes/data"),
    delete("volume: remove nobody by force", "/volumes/data?force=1"),
    post("volume: prune by bad key", filtered("/volumes/prune", '{"until":["1h"]}')),
    post("volume: prune by label", filtered("/volumes/prune", '{"label":["q=r"]}')),
)  # fmt: skip

END = (
    post("prune: bad until", filtered("/containers/prune", '{"until":["zzz"]}')),
    post("prune: bad key", filtered("/containers/prune", '{"nope":["1"]}')),
    post("prune: none", filtered("/containers/prune", '{"label":["nope"]}')),
    delete("remove: nobody", "/containers/nobody"),
    delete("remove", "/containers/web"),
    delete("remove: again", "/containers/web"),
    get("events: bad since", "/events?since=abc&until=1"),
    get("events: bad filter", filtered("/events?until=1", '{"nope":["1"]}')),
    get("nothing", "/nothing"),
    Step("wrong method", "PUT", "/containers/json"),
)  # fmt: skip

# Containers that only one of the two made go, so that lists can be compared.
CLEAN = tuple(
    Step(f"clean: {name}", "DELETE", f"/containers/{name}?force=1", compared=False)
    for name in ("xp", "xh", "x-bad-ipc-mode", "x-bad-pid-mode", "x-bad-uts-mode", "x-bad-dns", "x-bad-sysctl", "x-bad-ulimit",
                 "x-bad-device")
)  # fmt: skip

STEPS: tuple[Step, ...] = (*CREATE, *CLEAN, *LIFE, *LISTS, *VOLUMES, *MORE, *END)
