"""What is done and seen inside the virtual machine: a real daemon on cgroup v2 alone, AppArmor on.  A program of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from support.builds import before  # noqa: E402
from support.daemon import SAMPAN, Daemon, UnixHttp  # noqa: E402  # a program of its own

MIB = 1 << 20


def command(daemon: Daemon, *words: str) -> tuple[int, str]:
    done = daemon.sampan(*words, check=False, timeout=120)
    return done.returncode, (done.stdout + done.stderr).decode()


def limits(daemon: Daemon) -> None:
    """`sampan run` with limits: the group's files hold them, the container sees its own group alone and cannot change it."""
    code, shown = command(
        daemon, "run", "--rm", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", "busybox", "sh", "-c",
        "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max /proc/self/cgroup; mkdir x 2>&1; echo 1 2>&1 > memory.max",
    )  # fmt: skip
    lines = shown.splitlines()
    assert lines[:4] == [str(64 * MIB), "50000 100000", "50", "0::/"], shown
    assert "Read-only file system" in lines[4] and "Read-only" in shown.splitlines()[5] and code != 0, shown


def devices(daemon: Daemon) -> None:
    """Row 103: a device program decides, for a container of the host's users too."""
    script = "mknod /k b 254 0; mknod /n c 1 3; (: < /k) 2>&1; (: < /n) && echo null; (: < /dev/fuse) && echo fuse"
    for more, fuse in (((), False), (("--device", "/dev/fuse"), True)):
        _, shown = command(daemon, "run", "--rm", "--userns", "host", *more, "busybox", "sh", "-c", script)
        assert "not permitted" in shown and "null" in shown and ("fuse" in shown.split()) is fuse, shown


def out_of_memory(daemon: Daemon) -> None:
    """A container that asks for more than its limit is killed, and everybody is told."""
    code, shown = command(daemon, "run", "--name", "hungry", "--memory", "16m", "busybox", "sh", "-c", "tail /dev/zero")
    state = daemon.ok("GET", "/containers/hungry/json")["State"]
    assert code == 137 and state["OOMKilled"] and state["ExitCode"] == 137, (code, shown, state)
    container = daemon.create("sh", "-c", "tail /dev/zero; read x; exit 4", OpenStdin=True, HostConfig={"Memory": 16 * MIB})
    listening = UnixHttp(daemon.sock, 120)
    listening.request("GET", f"/events?filters={quote(json.dumps({'container': [container], 'event': ['oom']}))}")
    events = listening.getresponse()
    daemon.ok("POST", f"/containers/{container}/start")
    assert json.loads(events.readline())["Action"] == "oom"  # while the container goes on
    listening.close()
    state = daemon.ok("GET", f"/containers/{container}/json")["State"]
    assert state["Running"] and state["OOMKilled"], state


def security(daemon: Daemon) -> None:
    """The host has AppArmor: a profile is refused with the reason, never taken and not applied."""
    assert Path("/sys/module/apparmor").exists()
    code, shown = command(daemon, "run", "--rm", "--security-opt", "apparmor=docker-default", "busybox", "true")
    assert code == 125 and "does not apply AppArmor labels" in shown, shown
    assert command(daemon, "run", "--rm", "--security-opt", "apparmor=unconfined", "busybox", "true") == (0, "")
    _, shown = command(daemon, "doctor")
    assert "AppArmor" in shown and "version 2" in shown, shown
    driver = subprocess.run(
        [SAMPAN, "daemon", "--exec-opt", "native.cgroupdriver=systemd"], capture_output=True, text=True, check=False
    )
    assert driver.returncode == 1 and "without systemd" in driver.stderr, driver


def builds(daemon: Daemon) -> None:
    """Every kind of mount that a step can have, with a kernel that clones attached mounts only, and a part of an image."""
    text = (
        "FROM busybox AS s\nRUN mkdir -p /d/e && echo stage > /d/e/one\nFROM busybox\n"
        "RUN --mount=from=s,source=/d/e/one,target=/two --mount=target=/ctx,source=sub --mount=target=/rw,rw "
        "--mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=secret,id=k "
        "cat /two /ctx/x /run/secrets/k && echo w > /rw/new && echo c > /c/x && touch /t/x\n"
        "RUN <<EOF\n#!/bin/sh\necho script\nEOF\nCOPY --from=s --link /d/e /linked\nRUN cat /linked/one\n"
    )
    made = before(daemon, text, {"sub/x": "context\n"}, {"secrets": {"k": "c2VjcmV0Cg=="}}).ok
    assert "stage\ncontext\nsecret\n" in made.text and "script\n" in made.text, made.text
    image = [{"Type": "image", "Source": "busybox", "Target": "/i", "ImageOptions": {"Subpath": "etc"}}]
    code, shown = daemon.run("ls", "/i", HostConfig={"Mounts": image})
    assert code == 0 and b"passwd" in shown, shown
    assert list(Path("/run").glob("sampan-mount-*")) == []


def explained(daemon: Daemon) -> None:
    """`sampan explain` and `stats` read the same tree; what is removed leaves no group."""
    command(daemon, "run", "-d", "--name", "web", "--memory", "32m", "-p", "18080:80", "busybox", "sleep", "600")
    code, shown = command(daemon, "explain", "web")
    assert code == 0 and "memory.max" in shown and str(32 * MIB) in shown and "veth" in shown, shown
    assert daemon.ok("GET", "/containers/web/stats?stream=0")["memory_stats"]["limit"] == 32 * MIB
    groups = Path(f"/sys/fs/cgroup{daemon.cgroup_parent}")
    assert any(path.is_dir() for path in groups.iterdir())
    daemon.remove_all()
    assert [path.name for path in groups.iterdir() if path.is_dir()] == []


def main() -> None:
    daemon = Daemon()
    try:
        daemon.start(patience=240)  # an emulated machine
        daemon.import_busybox()
        for step in (limits, devices, out_of_memory, security, builds, explained):
            step(daemon)
            print("passed", step.__name__, flush=True)
    except BaseException:
        print(daemon.log[-3000:], flush=True)
        raise
    daemon.remove_all()
    daemon.kill(signal.SIGTERM)


if __name__ == "__main__":
    main()
