"""The daemon, wired by hand: this file is the architecture's drawing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec

from sampan import __version__
from sampan.api import backend, listeners, server
from sampan.build.builder import Builder
from sampan.build.options import allowed
from sampan.cgroups import Hierarchy, checked_path
from sampan.engine import cdi, defaults, supervise
from sampan.engine.containers import log_target
from sampan.engine.context import Launcher, Rooms
from sampan.engine.engine import Engine
from sampan.engine.events import Bus
from sampan.engine.images.images import Images
from sampan.errors import InvalidRequest, SampanError
from sampan.kernel.fds import Fd
from sampan.kernel.process import set_name
from sampan.launch.sealed import sealed_interpreter
from sampan.logs.options import byte_count
from sampan.network.defaults import Defaults as NetworkDefaults
from sampan.network.manager import Networks
from sampan.network.resolver import Resolver
from sampan.registry.hosts import Settings, read_mirror
from sampan.state import State
from sampan.storage.overlay import Overlay
from sampan.storage.volumes import Volumes
from sampan.wire import daemon_file
from sampan.wire.containers import LogConfig
from sampan.wire.hosts import TlsFiles

log = logging.getLogger("sampan.daemon")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR, "fatal": logging.CRITICAL}


class DaemonOptions(NetworkDefaults, frozen=True, kw_only=True):
    """What the command line and the configuration file said, merged; what concerns networks is theirs to know."""

    hosts: tuple[str, ...] = ("unix:///run/sampan/sampan.sock",)
    data_root: str = "/var/lib/sampan"
    exec_root: str = "/run/sampan"
    cgroup_parent: str = "/sampan"
    pidfile: str = ""
    group: str = ""
    debug: bool = False
    init: bool = False
    log_driver: str = "json-file"
    log_opts: dict[str, str] = {}
    labels: list[str] = []
    tls: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    tlsverify: bool = False
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    registry_certs: tuple[str, ...] = ()
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    log_level: str = "info"
    default_ulimits: list[str] = []
    default_shm_size: str | int = 64 << 20
    default_ipc_mode: str = "private"
    default_cgroupns_mode: str = "private"
    default_stop_timeout: int = 10
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    build_allow: tuple[str, ...] = ("network.host", "device")
    cdi_spec_dirs: tuple[str, ...] = cdi.DIRS
    config_file: str = ""
    flags: dict[str, Any] = {}  # what of the reloadable keys the command line set


def validate(settings: dict[str, Any]) -> int:
    """Judge the settings of daemon.json's keys and touch nothing; return the exit code."""
    return 1 if _told(settings) is None else 0


def _told(settings: dict[str, Any]) -> DaemonOptions | None:
    """Return the options; None when they make no sense, and say why."""
    try:
        options = msgspec.convert({key.replace("-", "_"): value for key, value in settings.items()}, DaemonOptions)
        _level(options)
        allowed(options.build_allow)
        _defaults(options)
        options.check()
    except (SampanError, msgspec.ValidationError, OSError) as error:
        sys.stderr.write(f"sampan: {error}\n")
        return None
    return options


def entry() -> None:
    """The program that the command becomes (become.py); its settings come in a file that is open."""
    with Fd(int(sys.argv[1])) as told:
        options = _told(msgspec.json.decode(os.pread(told.fileno(), 1 << 20, 0), type=dict[str, Any]))
    if options is None:
        sys.exit(1)
    set_name("sampan-daemon")
    # What no line shows is not looked for (Python's logging HOWTO, "Optimization"): two lines a request.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    setattr(logging, "_srcfile", None)  # noqa: B010 - documented there, but not in the types
    logging.basicConfig(level=_level(options), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.umask(0o022)
    os.chdir("/")
    try:
        asyncio.run(_serve(options))
    except (SampanError, OSError) as error:
        log.error("%s", error)
        sys.exit(1)


def _level(options: DaemonOptions) -> int:
    if options.log_level not in _LEVELS:
        raise InvalidRequest(f"invalid logging level: {options.log_level[:32]!r} is none of {', '.join(_LEVELS)}")
    return logging.DEBUG if options.debug else _LEVELS[options.log_level]


def _defaults(options: DaemonOptions) -> defaults.Defaults:
    """What containers get that do not say.  Raises InvalidRequest."""
    log_default = LogConfig(type=options.log_driver, config=options.log_opts)
    log_target.validate(log_default)
    made = defaults.Defaults(
        log=log_default, init=options.init, ulimits=tuple(defaults.ulimit(text) for text in options.default_ulimits),
        shm_size=byte_count(str(options.default_shm_size), "default-shm-size"), ipc_mode=options.default_ipc_mode or "private",
        cgroupns_mode=options.default_cgroupns_mode or "private", stop_timeout=options.default_stop_timeout,
        no_new_privileges=options.no_new_privileges, seccomp=defaults.profile(options.seccomp_profile),
    )  # fmt: skip
    return defaults.checked(made)


def _roots(options: DaemonOptions) -> tuple[Path, Path]:
    data_root, exec_root = Path(options.data_root).absolute(), Path(options.exec_root).absolute()
    for folder in (data_root, exec_root):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise InvalidRequest(f"{folder} belongs to somebody else")
        folder.chmod(0o711 if folder == exec_root else 0o700)
    for folder in (data_root / "containers", data_root / "volumes", exec_root / "containers"):
        folder.mkdir(mode=0o700, exist_ok=True)
    return data_root, exec_root


def _registries(options: DaemonOptions) -> Settings:
    """What the options say about registries.  Raises InvalidRequest for a mirror that is none."""
    for mirror in options.registry_mirrors:
        read_mirror(mirror)
    made = Settings(
        mirrors=options.registry_mirrors, insecure=options.insecure_registries, http_proxy=options.http_proxy,
        https_proxy=options.https_proxy, no_proxy=options.no_proxy,
    )  # fmt: skip
    return replace(made, certificates=options.registry_certs) if options.registry_certs else made


def _serves(engine: Engine) -> backend.Engine:
    """The engine as the API asks for it; each room is checked, since attributes of a protocol are invariant."""
    containers: backend.Containers = engine.containers
    execs: backend.Execs = engine.execs
    images: backend.Images = engine.images
    networks: backend.Networks = engine.networks
    system: backend.System = engine.system
    volumes: backend.Volumes = engine.volumes
    builder: backend.Builder = cast("Builder", engine.builder)
    del containers, execs, images, networks, system, volumes, builder
    return cast("backend.Engine", engine)


async def _serve(options: DaemonOptions) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as undo:  # whatever fails, the daemon leaves the host as it found it
        engine = await _put_together(options, undo)
        rooms = engine.rooms
        served = await server.serve(_serves(engine), options.hosts, _tls(options))
        undo.push_async_callback(served.close)
        undo.callback(rooms.bus.close)
        watch = asyncio.ensure_future(supervise.spawner_watch(rooms))
        undo.callback(watch.cancel)
        gc.collect()
        gc.freeze()
        if options.pidfile:
            undo.callback(Path(options.pidfile).unlink, missing_ok=True)
        loop.add_signal_handler(signal.SIGHUP, _reload, engine, options)
        _ready(options)
        log.info("sampan %s: API on %s, data in %s", __version__, " ".join(options.hosts), rooms.data_root)
        await stop.wait()
        log.info("stopping; containers go on")
        rooms.stopping = True


async def _put_together(options: DaemonOptions, undo: contextlib.AsyncExitStack) -> Engine:
    """Make the engine and take up what an earlier daemon left; `undo` takes it apart again."""
    checked_path(options.cgroup_parent)  # it becomes a path that root sweeps (row 105)
    data_root, exec_root = _roots(options)
    launcher = Launcher(sealed_interpreter())  # before any thread, with the smallest memory
    undo.callback(launcher.close)
    state = State(data_root)
    undo.callback(state.close)
    bus = Bus()
    engines: list[Engine] = []
    layers = Overlay(data_root, state)
    undo.callback(layers.close)
    volumes = Volumes(data_root, state)
    undo.callback(volumes.close)
    images = Images(
        data_root, state, layers, in_use=lambda image: engines[0].in_use(image),
        emit=lambda kind, action, actor, attributes: bus.emit(kind, action, actor, attributes), registries=_registries(options),
    )  # fmt: skip
    networks = Networks(
        state,
        options,
        instance=str(data_root),
        names=Resolver(exec_root, lambda: launcher.program),
    )
    networks.start()
    undo.push_async_callback(_let_go, networks, options.cgroup_parent)
    rooms = Rooms(
        data_root=data_root, exec_root=exec_root, state=state, layers=layers, images=images, networks=networks,
        launcher=launcher, bus=bus, volumes=volumes, cgroup_parent=options.cgroup_parent,
        defaults=_defaults(options),
    )  # fmt: skip
    engine = Engine(rooms, labels=options.labels, debug=options.debug)
    engines.append(engine)
    builder = engine.builder = Builder(
        rooms, engine.containers, allowed(options.build_allow), options.cdi_spec_dirs
    )  # before the sweep: its cache needs layers
    undo.callback(engine.close)
    await supervise.take_up(rooms, engine.containers)
    builder.sweep()
    for line in images.sweep():
        log.info("swept %s", line)
    if options.group:
        listeners.GROUPS = (options.group, options.group)
    return engine


def _reload(engine: Engine, options: DaemonOptions) -> None:
    """Read the configuration file again, and take up what can change while the daemon runs; all of it or nothing."""
    try:
        found = daemon_file.read(options.config_file, must_exist=False)
        both = sorted(set(found) & set(options.flags) - {"labels"})
        if both:
            raise InvalidRequest(f"specified both as a flag and in the configuration file: {', '.join(both)}")
        fresh = {key: value for key, value in found.items() if key in daemon_file.RELOADED}
        wanted = {**options.flags, **fresh, "labels": [*fresh.get("labels", []), *options.flags.get("labels", [])]}
        new = msgspec.convert({key.replace("-", "_"): value for key, value in wanted.items()}, DaemonOptions)
        level, registries = _level(new), engine.images.registries.hosts
        changed = _registries(msgspec.structs.replace(
            options, insecure_registries=new.insecure_registries, registry_mirrors=new.registry_mirrors))  # fmt: skip
    except (SampanError, msgspec.ValidationError, OSError) as error:
        log.error("SIGHUP: %s: nothing is changed: %s", options.config_file, error)
        return
    logging.getLogger().setLevel(level)
    registries.change(changed)
    engine.system.labels, engine.system.debug = new.labels, new.debug
    told = {"name": os.uname().nodename, "debug": str(new.debug).lower(), "labels": json.dumps(new.labels)}
    told["insecure-registries"], told["registry-mirrors"] = (
        json.dumps(value) for value in (new.insecure_registries, new.registry_mirrors)
    )
    engine.rooms.bus.emit("daemon", "reload", engine.system.id, told)
    log.info("SIGHUP: %s: taken up %s", options.config_file, ", ".join(sorted(fresh)) or "nothing")


def _tls(options: DaemonOptions) -> TlsFiles | None:
    if options.tls or options.tlsverify:
        return TlsFiles(options.tlscacert if options.tlsverify else "", options.tlscert, options.tlskey)
    return None


async def _let_go(networks: Networks, cgroup_parent: str) -> None:
    """Leave the networks; take bridge, table and the control groups' parent away when no container needs them."""
    unused = not networks.active()
    if unused:
        with contextlib.suppress(SampanError, OSError):  # not empty: a container without a network runs in it
            Hierarchy.detect().remove_empty(cgroup_parent)
    await asyncio.to_thread(networks.stop, remove=unused)


def _ready(options: DaemonOptions) -> None:
    """Say that requests are answered from now on: the pid file, and sd_notify(3)."""
    if options.pidfile:
        Path(options.pidfile).write_text(f"{os.getpid()}\n")
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            try:
                told.sendto(b"READY=1\n", "\0" + address[1:] if address.startswith("@") else address)
            except OSError as error:
                log.warning("NOTIFY_SOCKET: %s", error)


__all__ = ["DaemonOptions", "entry", "validate"]
