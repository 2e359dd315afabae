"""sampan info."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sampan import __version__
from sampan.cli.units import binary

if TYPE_CHECKING:
    from sampan.cli.main import Invocation


def run(call: Invocation) -> int:
    found = call.client.json("GET", "/info")
    if call.options.format:
        from sampan.cli.inspect import render

        print(render(call.options.format, {**found, "ClientInfo": {"Version": __version__, "Context": call.host}}))
        return 0
    print(f"Client: Sampan\n Version:    {__version__}\n Host:       {call.host}\n\nServer:\n{_server(found)}", end="")
    sys.stdout.flush()
    for warning in found.get("Warnings") or ():
        print(warning, file=sys.stderr)
    return 0


def _server(found: dict[str, Any]) -> str:
    security = "".join(f"  {one.removeprefix('name=')}\n" for one in found.get("SecurityOptions") or ())
    storage = "".join(f"  {pair[0]}: {pair[1]}\n" for pair in found.get("DriverStatus") or ())
    plugins = "".join(f"  {kind}: {' '.join(names or ())}\n" for kind, names in (found.get("Plugins") or {}).items())
    return (
        f" Containers: {found['Containers']}\n  Running: {found['ContainersRunning']}\n  Paused: {found['ContainersPaused']}\n"
        f"  Stopped: {found['ContainersStopped']}\n Images: {found['Images']}\n Server Version: {found['ServerVersion']}\n"
        f" Storage Driver: {found['Driver']}\n{storage} Logging Driver: {found['LoggingDriver']}\n"
        f" Cgroup Driver: {found['CgroupDriver']}\n Cgroup Version: {found['CgroupVersion']}\n"
        f" Plugins:\n{plugins} Swarm: inactive\n Runtimes: {' '.join(sorted(found.get('Runtimes') or {}))}\n"
        f" Default Runtime: {found['DefaultRuntime']}\n Security Options:\n{security} Kernel Version: {found['KernelVersion']}\n"
        f" Operating System: {found['OperatingSystem']}\n OSType: {found['OSType']}\n Architecture: {found['Architecture']}\n"
        f" CPUs: {found['NCPU']}\n Total Memory: {binary(found['MemTotal'])}\n Name: {found['Name']}\n ID: {found['ID']}\n"
        f" Docker Root Dir: {found['DockerRootDir']}\n Debug Mode: {str(found['Debug']).lower()}\n"
        f" Experimental: {str(found['ExperimentalBuild']).lower()}\n"
        f" Live Restore Enabled: {str(found['LiveRestoreEnabled']).lower()}\n"
    )
