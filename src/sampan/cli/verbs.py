"""The commands that do one thing to each container named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from sampan.cli.main import describe
from sampan.client.errors import ApiError

if TYPE_CHECKING:
    from sampan.cli.main import Invocation


def each(names: list[str], act: Callable[[str], object], *, echo: bool = True) -> int:
    """Do `act` to every name, print those that worked, then every error; 1 if there was one."""
    errors: list[ApiError] = []
    for name in names:
        try:
            act(name)
        except ApiError as error:
            errors.append(error)
        else:
            if echo:
                print(name, flush=True)
    for one in errors:
        print(describe(one), file=sys.stderr)
    return 1 if errors else 0


def stop(call: Invocation) -> int:
    o = call.options
    return each(call.arguments, lambda ref: call.client.containers.stop(ref, timeout=o.time, signal=o.signal))


def restart(call: Invocation) -> int:
    o = call.options
    return each(call.arguments, lambda ref: call.client.containers.restart(ref, timeout=o.time, signal=o.signal))


def kill(call: Invocation) -> int:
    return each(call.arguments, lambda ref: call.client.containers.kill(ref, signal=call.options.signal))


def pause(call: Invocation) -> int:
    return each(call.arguments, call.client.containers.pause)


def unpause(call: Invocation) -> int:
    return each(call.arguments, call.client.containers.unpause)


def remove(call: Invocation) -> int:
    """With --force a container that is not there is told of, and no failure."""
    o = call.options
    missing = 0

    def one(ref: str) -> None:
        nonlocal missing
        try:
            call.client.containers.remove(ref.strip("/") or ref, force=o.force, volumes=o.volumes, link=o.link)
        except ApiError as error:
            missing += error.status != 404
            raise

    failed = each(call.arguments, one)
    return failed if not o.force or missing else 0


def wait(call: Invocation) -> int:
    return each(call.arguments, lambda ref: print(call.client.containers.wait(ref).status_code, flush=True), echo=False)


def rename(call: Invocation) -> int:
    old, new = (name.strip() for name in call.arguments)
    if not old or not new:
        print("Error: Neither old nor new names may be empty", file=sys.stderr)
        return 1
    try:
        call.client.containers.rename(old, new)
    except ApiError as error:
        print(f"{describe(error)}\nError: failed to rename container named {old}", file=sys.stderr)
        return 1
    return 0


def top(call: Invocation) -> int:
    found = call.client.containers.top(call.arguments[0], " ".join(call.arguments[1:]))
    for line in (found.titles, *found.processes):
        print(" ".join(f"{cell:<19}" for cell in line).rstrip())
    return 0


def port(call: Invocation) -> int:
    ports = call.client.containers.inspect(call.arguments[0]).network_settings.ports
    wanted = call.arguments[1] if len(call.arguments) > 1 else ""
    if wanted:
        wanted = wanted if "/" in wanted else wanted + "/tcp"
        if not ports.get(wanted):
            print(f"Error: No public port '{wanted}' published for {call.arguments[0]}", file=sys.stderr)
            return 1
    for name in sorted(ports, key=lambda key: (int(key.split("/")[0]), key)):
        for bound in ports[name] or ():
            ip = f"[{bound.host_ip}]" if ":" in bound.host_ip else bound.host_ip
            if not wanted:
                print(f"{name} -> {ip}:{bound.host_port}")
            elif name == wanted:
                print(f"{ip}:{bound.host_port}")
    return 0


def prune(call: Invocation) -> int:
    from sampan.cli.table import filters
    from sampan.cli.units import size

    if not call.options.force and not confirmed("WARNING! This will remove all stopped containers."):
        return 0
    done = call.client.containers.prune(filters(call.options.filter))
    if done.containers_deleted:
        print("Deleted Containers:\n" + "\n".join(done.containers_deleted) + "\n")
    print(f"Total reclaimed space: {size(done.space_reclaimed, 4)}")
    return 0


def confirmed(warning: str) -> bool:
    print(f"{warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
