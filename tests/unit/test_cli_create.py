"""Flags of run as the body of a create; the daemon's settings from flags and file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sampan.cli import commands, daemon, mounts, ports
from sampan.cli.create_body import body
from sampan.cli.environment import environment, labels
from sampan.cli.main import Exit
from sampan.cli.options import parse
from sampan.wire import containers as c


def made(*words: str) -> c.CreateBody:
    command = commands.find("run")
    assert command is not None
    options, arguments = parse(command.flags, words, stop=True)
    return body(options, arguments[0], arguments[1:], detach=options.detach)


def host(*words: str) -> Any:
    return made(*words, "img").host_config


def test_a_plain_run_attaches_stdout_and_stderr() -> None:
    wanted = made("img", "echo", "hi")

    assert (wanted.image, wanted.cmd) == ("img", ["echo", "hi"])
    assert (wanted.attach_stdin, wanted.attach_stdout, wanted.attach_stderr) == (False, True, True)
    assert wanted.networking_config is None
    assert msgspec.json.decode(msgspec.json.encode(wanted), type=c.CreateBody).image == "img"


def test_interactive_detached_and_chosen_streams() -> None:
    wanted = made("-i", "img")
    assert (wanted.attach_stdin, wanted.open_stdin, wanted.stdin_once) == (True, True, True)
    wanted = made("-di", "img")
    assert (wanted.attach_stdin, wanted.attach_stdout, wanted.open_stdin, wanted.stdin_once) == (False, False, True, False)
    wanted = made("-a", "stderr", "img")
    assert (wanted.attach_stdout, wanted.attach_stderr) == (False, True)


def test_limits_and_privileges_arrive() -> None:
    h = host("-m", "64m", "--memory-swap", "-1", "--cpus", "1.5", "--cpu-shares=5", "--pids-limit", "7", "--cap-add",
             "NET_ADMIN",             "--privileged", "--read-only", "--security-opt", "no-new-privileges",
             "--ulimit", "nofile=10:20", "--shm-size", "1m",
             "--restart", "on-failure:3", "--oom-score-adj", "5", "--sysctl", "a.b=c", "--tmpfs",
             "/t:size=1m", "--init")  # fmt: skip

    assert (h.memory, h.memory_swap, h.nano_cpus, h.cpu_shares, h.pids_limit) == (64 << 20, -1, 1_500_000_000, 5, 7)
    assert (h.cap_add, h.privileged, h.readonly_rootfs, h.security_opt) == (["NET_ADMIN"], True, True, ["no-new-privileges"])
    assert h.ulimits == [c.Ulimit(name="nofile", soft=10, hard=20)]
    assert h.restart_policy == c.RestartPolicy(name="on-failure", maximum_retry_count=3)
    assert (h.shm_size, h.oom_score_adj, h.sysctls, h.tmpfs, h.init) == (1 << 20, 5, {"a.b": "c"}, {"/t": "size=1m"}, True)


def test_networks_and_their_endpoint_settings() -> None:
    assert host("--network", "host").network_mode == "host"
    assert host().network_mode == "default"
    wanted = made("--network", "name=mine,alias=a,ip=10.0.0.2", "--network-alias", "b", "img").networking_config
    assert wanted is not None and wanted.endpoints_config is not None
    endpoint = wanted.endpoints_config["mine"]
    assert endpoint is not None and endpoint.aliases == ["a", "b"]
    assert endpoint.ipam_config is not None and endpoint.ipam_config.i_pv4_address == "10.0.0.2"


WRONG = [
    (["--rm", "--restart", "always"], "conflicting options: cannot specify both --restart and --rm"),
    (["-d", "-a", "stdout"], "conflicting options: cannot specify both --attach and --detach"),
    (["--restart", "on-failure:x"], "invalid restart policy format: maximum retry count must be an integer"),
    (["--pull", "maybe"], "invalid pull option: 'maybe'"),
    (["-a", "stdlog"], "valid streams are STDIN, STDOUT and STDERR"),
    (["-v", "/a:"], "empty section between colons"),
    (["-p", "99999:80"], "invalid port"),
    (["--ulimit", "nofile"], "invalid ulimit argument: nofile"),
    (["--device", "/dev/x:/dev/y:q"], "invalid device specification"),
    (["--log-opt", "x"], "x must be formatted as key=value"),
    (["--add-host", "x"], "bad format for add-host"),
    (["--env-file", "/none"], "open /none: No such file"),
    (["--security-opt", "seccomp=/none"], "opening seccomp profile"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "text"), WRONG)
def test_what_makes_no_sense_is_125_in_dockers_words(words: list[str], text: str) -> None:
    with pytest.raises(Exit) as caught:
        made(*words, "img")
    assert caught.value.code == 125
    assert text in caught.value.text


PORTS = [
    ("80", {"80/tcp": [("", "")]}),
    ("8080:80", {"80/tcp": [("", "8080")]}),
    ("8080:80/udp", {"80/udp": [("", "8080")]}),
    ("127.0.0.1:8080:80", {"80/tcp": [("127.0.0.1", "8080")]}),
    ("127.0.0.1::80", {"80/tcp": [("127.0.0.1", "")]}),
    ("[::1]:8080:80", {"80/tcp": [("::1", "8080")]}),
    ("7000-7001:8000-8001", {"8000/tcp": [("", "7000")], "8001/tcp": [("", "7001")]}),
    ("8000-8010:80", {"80/tcp": [("", "8000-8010")]}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), PORTS)
def test_ports_in_every_form(text: str, wanted: dict[str, list[tuple[str, str]]]) -> None:
    found = {port: [(one.host_ip, one.host_port) for one in bound or ()] for port, bound in ports.publish(text).items()}
    assert found == wanted


@pytest.mark.parametrize(
    "text", ["", ":", "a:80", "80:a", "1:2:3:4", "[::1:80", "80/icmp", "²:80", "300.1.1.1:1:1", "5-1:80", "1-3:1-2"]
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(Exit):
        ports.publish(text)


def test_volumes_are_binds_or_anonymous_and_relative_ones_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert mounts.volumes(["/a:/b:ro", "name:/c", "./x:/d", "/anon"]) == (
        ["/a:/b:ro", "name:/c", f"{tmp_path}/x:/d"], {"/anon": {}}
    )  # fmt: skip


def test_mounts_in_their_long_form() -> None:
    one = mounts.mount("type=bind,src=/a,dst=/b,ro,bind-propagation=rshared")
    assert (one.type, one.source, one.target, one.read_only) == ("bind", "/a", "/b", True)
    assert one.bind_options == c.BindOptions(propagation="rshared")
    one = mounts.mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770")
    assert one.tmpfs_options == c.TmpfsOptions(size_bytes=1 << 20, mode=0o1770)
    for text in ("type=bind,src=/a", "nonsense", "type=bind,dst=/b,tmpfs-size=1", "dst=/b,what=x"):
        with pytest.raises(Exit):
            mounts.mount(text)


def test_environment_and_labels_from_flags_and_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# said nothing\n\nA=1\n  B = 2\nSET\nUNSET_HERE\n")
    monkeypatch.setenv("SET", "yes")

    assert environment(["C=3"], [str(tmp_path / "env")]) == ["A=1", "B = 2", "SET=yes", "C=3"]
    (tmp_path / "labels").write_text("a=1\nb\n")
    assert labels(["c=d=e"], [str(tmp_path / "labels")]) == {"a": "1", "b": "", "c": "d=e"}


def settings(*words: str) -> dict[str, Any]:
    command = commands.find("daemon")
    assert command is not None
    return daemon.settings(parse(command.flags, words)[0])


def test_the_daemons_flags_and_file_make_one_set(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"bip": "10.0.0.1/24", "labels": ["a=1"], "debug": True}))

    found = settings("--config-file", str(config), "-H", "unix:///a", "-H", "tcp://127.0.0.1:1", "--label", "b=2")

    assert found == {"bip": "10.0.0.1/24", "labels": ["a=1", "b=2"], "debug": True, "hosts": ["unix:///a", "tcp://127.0.0.1:1"],
                     "config-file": str(config), "flags": {"labels": ["b=2"]}}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"nope": 1}', "don't match any configuration option: nope"),
     ('{"bip": "1"}', "specified both as a flag and in the configuration file"),
     ('{"debug": "yes"}', "a bool is needed"), ('{"hosts": "x"}', "a list is needed"),
     ("[]", "an object is needed"), ("{", "unable to"),
     ("[" * 100_000, "unable to")],
)  # fmt: skip
def test_a_wrong_configuration_file_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "daemon.json"
    config.write_text(text)
    with pytest.raises(Exit) as caught:
        settings("--config-file", str(config), "--bip", "1")
    assert words in caught.value.text
    with pytest.raises(Exit):
        settings("--config-file", str(tmp_path / "none.json"))
