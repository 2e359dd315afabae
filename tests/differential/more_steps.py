"""Images, networks, archives and the rest, asked of both daemons."""

from __future__ import annotations

from network_steps import NETWORK_LIFE
from table import Step, create, delete, filtered, get, post

# What belongs to an image store, to an address pool, or to newer API versions.
IMAGE = frozenset({"Container", "ContainerConfig", "DockerVersion", "RootFS", "VirtualSize", "Metadata", "GraphDriver", "Comment",
                   "Author", "Size", "Config", "SharedSize", "CreatedBy"})  # fmt: skip
NETWORK = frozenset({"IPAM", "Options", "Created", "EnableIPv4", "Containers"})

IMAGES = (
    get("image: inspect", "/images/busybox/json", dropped=IMAGE),
    get("image: inspect nobody", "/images/nobody/json"),
    get("image: inspect bad name", "/images/UPPER/json"),
    get("image: list", "/images/json", dropped=IMAGE | {"RepoDigests"}),
    get("image: list by reference", filtered("/images/json", '{"reference":["nope*"]}')),
    get("image: list by bad key", filtered("/images/json", '{"nope":["x"]}')),
    get("image: list by bad dangling", filtered("/images/json", '{"dangling":["x"]}')),
    get("image: history", "/images/busybox/history", dropped=IMAGE),
    get("image: history nobody", "/images/nobody/history"),
    post("image: tag", "/images/busybox/tag?repo=mine&tag=1"),
    post("image: tag nobody", "/images/nobody/tag?repo=mine&tag=1"),
    post("image: tag bad", "/images/busybox/tag?repo=MINE&tag=1"),
    post("image: tag bad tag", "/images/busybox/tag?repo=mine&tag=.."),
    post("image: tag nothing", "/images/busybox/tag"),
    delete("image: untag", "/images/mine:1"),
    delete("image: remove nobody", "/images/nobody"),
    delete("image: remove used", "/images/busybox"),
    post("image: prune bad key", filtered("/images/prune", '{"nope":["x"]}')),
    post("image: prune by label", filtered("/images/prune", '{"label":["nope"]}')),
    get("image: save nobody", "/images/nobody/get"),
    post("image: create nothing", "/images/create"),
    post("image: import bad name", "/images/create?fromSrc=-&repo=MINE", b"x"),
    post("commit: nobody", "/commit?container=nobody"),
    post("commit: bad name", "/commit?container=echo&repo=MINE"),
    post("commit: bad change", "/commit?container=echo&repo=made&changes=NOPE%20x"),
    post("commit", "/commit?container=echo&repo=made&tag=1&comment=c&author=a&changes=ENV%20A%3Db"),
    get("commit: inspect", "/images/made:1/json", dropped=IMAGE - {"Comment", "Author"} | {"Parent"}),
    delete("commit: remove", "/images/made:1"),
)  # fmt: skip

NETWORKS = (
    get("network: inspect bridge", "/networks/bridge", dropped=NETWORK),
    get("network: inspect nobody", "/networks/nobody"),
    get("network: list by bad key", filtered("/networks", '{"nope":["x"]}')),
    get("network: list by bad type", filtered("/networks", '{"type":["x"]}')),
    get("network: list by name", filtered("/networks", '{"name":["^none$"]}'), dropped=NETWORK),
    delete("network: remove bridge", "/networks/bridge"),
    delete("network: remove nobody", "/networks/nobody"),
    post("network: create without name", "/networks/create", {}),
    post("network: create reserved", "/networks/create", {"Name": "host"}),
    post("network: create bad driver", "/networks/create", {"Name": "nn", "Driver": "nope"}),
    post("network: create bad subnet", "/networks/create", {"Name": "nn", "IPAM": {"Config": [{"Subnet": "nope"}]}}),
    post("network: connect to nobody", "/networks/nobody/connect", {"Container": "echo"}),
    post("network: connect nobody", "/networks/bridge/connect", {"Container": "nobody"}),
    post("network: disconnect nobody", "/networks/bridge/disconnect", {"Container": "nobody"}),
    post("network: connect to host", "/networks/host/connect", {"Container": "echo"}),
)  # fmt: skip

ARCHIVE = (
    create("create: files", "files"),
    get("archive: no path", "/containers/files/archive"),
    get("archive: missing", "/containers/files/archive?path=/no/such"),
    get("archive: nobody", "/containers/nobody/archive?path=/"),
    get("archive: file as folder", "/containers/files/archive?path=/etc/passwd/"),
    Step("archive: put nowhere", "PUT", "/containers/files/archive?path=/no/such", b""),
    Step("archive: put into file", "PUT", "/containers/files/archive?path=/etc/passwd", b""),
    Step("archive: put no path", "PUT", "/containers/files/archive", b""),
    get("changes: nobody", "/containers/nobody/changes"),
    get("changes: none", "/containers/files/changes"),
    get("export: nobody", "/containers/nobody/export"),
    delete("remove: files", "/containers/files"),
)  # fmt: skip

SYSTEM = (
    get("swarm: nodes", "/nodes"),
    get("swarm: services", "/services"),
    get("swarm: inspect", "/swarm"),
    get("plugins", "/plugins"),
    get("plugin: nobody", "/plugins/nobody/json"),
    get("df: bad version", "/system/df?type=nope", dropped=frozenset({
        "Images", "Containers", "Volumes", "LayersSize", "BuildCache", "BuilderSize"})),
    get("distribution: bad name", "/distribution/UPPER/json"),
    post("build: cancel nothing", "/build/cancel"),
    get("checkpoints", "/containers/echo/checkpoints"),
)  # fmt: skip

MORE: tuple[Step, ...] = (*IMAGES, *NETWORKS, *ARCHIVE, *SYSTEM, *NETWORK_LIFE)
