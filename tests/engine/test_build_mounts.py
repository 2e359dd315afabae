"""RUN --mount, secrets, and what hostile Dockerfiles and contexts may not reach (SECURITY.md rows 58, 61-73)."""

from __future__ import annotations

import base64
import http.server
import io
import json
import os
import socket
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import pytest

from support.builds import Built, build, config, context, link, show, until
from support.builds import web as served
from support.daemon import Daemon

SECRET = "hunter2-" + "x" * 20


@pytest.fixture
def clean(daemon: Daemon) -> Iterator[Daemon]:
    daemon.ok("POST", "/build/prune?all=1")
    yield daemon
    daemon.ok("POST", "/build/prune?all=1")


@pytest.fixture
def canary() -> Iterator[Path]:
    """A host file that nothing in a build may see or touch."""
    folder = Path("/srv/sampan-canary.d")
    folder.mkdir(parents=True)
    (folder / "file").write_text("CANARY")
    (folder / "empty").mkdir()
    yield folder
    there = sorted(path.name for path in folder.iterdir())
    text = (folder / "file").read_text()
    (folder / "file").unlink(missing_ok=True)
    for path in folder.iterdir():
        path.rmdir()
    folder.rmdir()
    assert (there, text) == (["empty", "file"], "CANARY")


def prefixed(text: str, secrets: dict[str, str]) -> bytes:
    told = json.dumps({"secrets": {name: base64.b64encode(value.encode()).decode() for name, value in secrets.items()}}).encode()
    return len(told).to_bytes(8, "big") + told + context({"Dockerfile": text})


def with_secrets(daemon: Daemon, text: str, secrets: dict[str, str], **query: object) -> Built:
    headers = {"Content-Type": "application/vnd.sampan.build"}
    return Built(daemon.call("POST", f"/build?{urlencode(query)}", prefixed(text, secrets), headers=headers))


def test_bind_mounts_show_the_context_a_stage_and_an_image(clean: Daemon) -> None:
    text = (
        "FROM busybox AS s\nRUN mkdir /o && echo stage > /o/f && chmod 600 /o/f\nFROM busybox\n"
        "RUN --mount=target=/ctx --mount=from=s,source=/o,target=/s --mount=from=busybox,target=/img,source=bin "
        "cat /ctx/a /s/f > /out && ls /img | grep -c '^cat$' >> /out\n"
        "RUN --mount=target=/ctx sh -c 'echo x > /ctx/new' 2>/dev/null || echo ro > /ro\n"
        "RUN --mount=target=/ctx,rw --mount=from=s,target=/s,rw echo x > /ctx/new && echo y > /s/o/f && cat /ctx/a\n"
        "RUN --mount=target=/ctx --mount=from=s,target=/s test ! -e /ctx/new && cat /s/o/f >> /out\n"
    )
    made = build(clean, text, {"a": "A"}).ok

    assert show(clean, made.id, "cat /out /ro; ls -d /ctx /s /img 2>&1 | grep -c 'No such'") == "Astage\n1\nstage\nro\n3\n"


def test_what_is_mounted_is_part_of_the_key(clean: Daemon) -> None:
    text = "FROM busybox\nRUN --mount=source=d,target=/ctx cat /ctx/* > /out\n"
    build(clean, text, {"d/a": "1", "other": "1"}).ok
    same = build(clean, text, {"d/a": "1", "other": "2"}).ok
    changed = build(clean, text, {"d/a": "2", "other": "2"}).ok

    assert (same.cached, changed.cached) == (1, 0)
    assert show(clean, changed.id, "cat /out") == "2"


def test_a_cache_mount_lives_on_and_is_in_no_layer(clean: Daemon) -> None:
    text = (
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c,uid=1000,mode=0700 "
        "echo $N >> /c/log; cat /c/log > /seen; stat -c '%u %a' /c >> /seen\n"
    )
    build(clean, text, buildargs={"N": "1"}).ok
    second = build(clean, text, buildargs={"N": "2"}).ok

    assert show(clean, second.id, "cat /seen; test -e /c; echo $?") == "1\n2\n1000 700\n1\n"


def test_a_locked_cache_is_one_builds_at_a_time(clean: Daemon) -> None:
    text = (
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c,sharing=locked "
        "test ! -e /c/busy && touch /c/busy && sleep 0.2 && rm /c/busy && echo $N\n"
    )
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: build(clean, text, buildargs={"N": str(n)}), range(4)))

    assert [one.error for one in made] == [""] * 4


def test_tmpfs_is_empty_and_of_its_size(clean: Daemon) -> None:
    text = (
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=1m "
        "df -k /t | tail -1 > /o; dd if=/dev/zero of=/t/x bs=1M count=2 2>/dev/null || echo full >> /o\n"
    )
    shown = show(clean, build(clean, text).ok.id, "cat /o")

    assert shown.split()[1] == "1024"
    assert shown.endswith("full\n")


def test_a_secret_is_a_file_of_root_or_a_variable(clean: Daemon) -> None:
    text = (
        "FROM busybox\nRUN --mount=type=secret,id=s stat -c '%a %u' /run/secrets/s && cat /run/secrets/s | wc -c\n"
        "RUN --mount=type=secret,id=s,target=/x/y,mode=0440,gid=7 stat -c '%a %g' /x/y\n"
        'RUN --mount=type=secret,id=s,env=S test "${#S}" = 28 && echo variable\n'
        "RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent && echo silently\n"
    )
    made = with_secrets(clean, text, {"s": SECRET}).ok

    assert "400 0\n28\n" in made.text
    assert "440 7\n" in made.text
    assert "variable\n" in made.text
    assert "silently\n" in made.text
    assert show(clean, made.id, "ls -d /x /run/secrets 2>&1 | grep -c 'No such'") == "2\n"


def test_a_required_secret_that_is_missing_fails_the_step(clean: Daemon) -> None:
    made = build(clean, "FROM busybox\nRUN --mount=type=secret,id=s,required true\n")

    assert "secret s: not found" in made.error


def test_row_71_a_secret_is_in_no_layer_history_log_or_record(clean: Daemon) -> None:
    text = (
        "FROM busybox\nARG P\nRUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S cat /run/secrets/s > /dev/null; "
        'test -n "$S"; cat /proc/1/cmdline > /cmd\n'
    )
    made = with_secrets(clean, text, {"s": SECRET}, buildargs=json.dumps({"P": "argument-" + SECRET})).ok

    history = json.dumps(clean.ok("GET", f"/images/{made.id}/history"))
    assert history.count(SECRET) == history.count("argument-" + SECRET)  # an argument is in the history, as docker's
    told = b"argument-" + SECRET.encode()
    held = []
    for path in (Path(folder, name) for folder, _, names in os.walk(clean.data_root) for name in names):
        with suppress(FileNotFoundError):  # the trash is emptied meanwhile
            if path.is_file() and not path.is_symlink() and SECRET.encode() in path.read_bytes().replace(told, b""):
                held.append(path)
    assert held == []
    assert SECRET not in clean.log


def test_row_71_no_process_names_a_secret_while_a_step_has_it(clean: Daemon) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S echo re''ady; sleep 98765\n"
    body = prefixed(text, {"s": SECRET})
    lines, environments = [], []
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(clean.sock))
        head = b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.sampan.build\r\nContent-Length: %d\r\n\r\n"
        client.sendall(head % len(body) + body)
        until(client, b"ready")
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # the last: nobody can read its environment
                lines.append(process.read_bytes())
                if SECRET.encode() in process.with_name("environ").read_bytes():
                    environments.append(process.with_name("comm").read_text().strip())

    assert any(b"98765" in line for line in lines)
    assert not any(SECRET.encode() in line for line in lines)
    assert set(environments) <= {"sh", "sleep"}, "of the step's own they are"


def test_row_58_a_history_that_imitates_a_step_is_no_cache(clean: Daemon) -> None:
    """An image that came from elsewhere and claims to be the result of this very RUN is not taken for it."""
    text = "FROM busybox\nHEALTHCHECK CMD true\nONBUILD RUN x\nRUN echo real > /r\n"
    made = build(clean, text, t="imitated").ok
    saved = clean.call("GET", "/images/imitated/get").body
    clean.ok("DELETE", f"/images/{made.id}?force=1")
    clean.ok("POST", "/build/prune?all=1")
    clean.ok("POST", "/images/load", saved)
    asked = build(clean, text, cachefrom='["imitated"]').ok
    clean.ok("POST", "/build/prune?all=1")
    again = build(clean, text).ok

    assert (asked.cached, again.cached) == (0, 0), "a history is no cache, not even for those who ask"


def test_row_61_a_stub_behind_a_link_is_left_alone(clean: Daemon, canary: Path) -> None:
    """The step replaces the folder of its mount point by a link to the host's: nothing is deleted through it."""
    made = build(
        clean,
        f"FROM busybox\nRUN --mount=type=tmpfs,target=/a/empty mv /a /b && ln -s {canary} /a && echo done > /d\n",
    ).ok

    assert show(clean, made.id, "readlink /a; cat /d") == f"{canary}\ndone\n"


def test_row_62_and_65_parallel_swaps_of_a_cache_path_reach_no_host_file(clean: Daemon, canary: Path) -> None:
    text = (
        "FROM busybox AS one\nARG N\nRUN --mount=type=cache,id=swap,target=/c i=0; while [ $i -lt 200 ]; do rm -rf /c/p; "
        f"mkdir /c/p; rm -rf /c/p; ln -s {canary} /c/p; i=$((i+1)); done\n"
        "FROM busybox AS two\nARG N\nRUN --mount=type=cache,id=swap,target=/c --mount=type=cache,id=swap,source=p,target=/d "
        "cat /d/file /c/p/file > /stolen 2>/dev/null; true\n"
        "FROM busybox\nCOPY --from=one /etc/group /1\nCOPY --from=two /stolen /stolen\n"
    )
    for number in range(3):
        made = build(clean, text, buildargs={"N": str(number)})
        assert "CANARY" not in made.text
        if made.id:
            assert "CANARY" not in show(clean, made.id, "cat /stolen")


@pytest.mark.parametrize(
    "mount",
    [
        "from=evil,source=/link,target=/m", "from=evil,source=/up,target=/m", "from=evil,source=/../../../../srv,target=/m",
        "source=link,target=/m", "source=../../../../srv,target=/m",
        "type=cache,id=../../../../srv/sampan-canary.d,target=/m", "type=cache,id=x,from=evil,source=/link,target=/m",
    ],
)  # fmt: skip
def test_row_65_sources_of_mounts_stay_in_their_root(clean: Daemon, canary: Path, mount: str) -> None:
    text = (
        f"FROM busybox AS evil\nRUN ln -s {canary} /link && ln -s ../../../../../../..{canary} /up\n"
        f"FROM busybox\nRUN --mount={mount} find /m /m/file 2>/dev/null; cat /m/file /m/sampan-canary.d/file; true\n"
    )
    made = build(clean, text, {"link": link("link", str(canary))})

    assert "CANARY" not in made.text


def test_row_63_no_step_is_privileged(clean: Daemon) -> None:
    refused = build(clean, "FROM busybox\nRUN --security=insecure id\n", sampan__allow="security.insecure")
    made = build(clean, "FROM busybox\nRUN grep -E '^(Seccomp|CapEff|NoNewPrivs)' /proc/self/status\n").ok

    assert "security.insecure is not allowed" in refused.error
    assert "Seccomp:\t2" in made.text


def test_row_63_a_privileged_step_needs_both_sides(clean: Daemon, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN --security=insecure grep -E '^(Seccomp|CapEff):' /proc/self/status\n"
    host = "FROM busybox\nRUN --network=host true\n"
    (tmp_path / "given").write_text("of the host")
    (tmp_path / "cdi.yaml").write_text(
        "cdiVersion: 0.6.0\nkind: v.com/c\ndevices:\n- name: x\n  containerEdits:\n    env: [A=1]\n    deviceNodes:\n"
        "    - path: /dev/n\n      hostPath: /dev/zero\n      permissions: r\n    mounts:\n"
        f"    - hostPath: {tmp_path}/given\n      containerPath: /given\n      options: [ro, nosuid, bind]\n"
    )
    device = (
        "FROM busybox\nRUN --device=v.com/c=none --device=v.com/c=x,required echo $A; head -c 3 /dev/n | wc -c; cat /given; "
        "echo x > /given || grep /given /proc/self/mountinfo\nRUN ls /given /dev/n\n"
    )
    other = Daemon("--build-allow", "security.insecure", "--build-allow", "device", "--cdi-spec-dir", str(tmp_path)).start()
    try:
        other.import_busybox()
        alone = build(other, text)
        both = build(other, text, sampan__allow="security.insecure").ok
        ordinary = build(other, "FROM busybox\nRUN grep -E '^Seccomp:' /proc/self/status\n", sampan__allow="security.insecure").ok
        network = build(other, host, sampan__allow="network.host")
        lent = build(other, device, sampan__allow="device")
        refused = build(other, device)
    finally:
        other.close()

    assert "the build was not asked to allow it (--allow security.insecure)" in alone.error
    assert "Seccomp:\t0" in both.text
    assert "Seccomp:\t2" in ordinary.text
    assert "network.host is not allowed: this daemon does not grant it" in network.error
    assert "the build was not asked to allow it (--allow network.host)" in build(clean, host).error
    assert build(clean, host, sampan__allow="network.host").ok
    assert "1\n3\nof the host" in lent.text
    assert "can't create /given: Read-only file system" in lent.text
    assert "ro,nosuid" in lent.text
    assert "returned a non-zero code: 1" in lent.error
    assert "device is not allowed: the build was not asked to allow it (--allow device)" in refused.error


def test_row_66_a_foreign_frontend_is_not_run(clean: Daemon) -> None:
    made = build(clean, "#syntax=evil/frontend:1\nFROM busybox\nRUN echo ours\n").ok

    assert "ours" in made.text


@pytest.mark.parametrize(
    "source",
    [
        "https://example.invalid/x.git#main:../../..", "git@example.invalid:x/y.git", "git://example.invalid/x.git#--upload-pack=id",
        "ssh://-oProxyCommand=id/x.git", "https://example.invalid/x.git?ref=--upload-pack=id",
    ],
)  # fmt: skip
def test_row_67_git_sources_never_become_options(clean: Daemon, source: str) -> None:
    made = build(clean, f"FROM busybox\nADD {source} /x\n")

    assert not made.id
    assert made.error


def test_row_68_files_below_tmp_of_the_host_stay(clean: Daemon, tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("x")
    text = f"FROM busybox\nRUN rm -rf /tmp && ln -s {tmp_path} /tmp\nCOPY a /tmp/\nRUN rm -rf /tmp/* || true\n"
    build(clean, text, {"a": "1"})

    assert (tmp_path / "keep").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep"]


def test_row_69_a_forged_context_writes_nothing_outside(clean: Daemon, canary: Path) -> None:
    for name, target in (("../../../../../../srv/sampan-canary.d/file", ""), ("l/file", str(canary))):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            if target:
                tar.addfile(link("l", target))
            entry = tarfile.TarInfo(name)
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"evil"))
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = 13
            tar.addfile(entry, io.BytesIO(b"FROM busybox\n"))
        clean.call("POST", "/build", out.getvalue(), headers={"Content-Type": "application/x-tar"})


@pytest.mark.parametrize(
    "line", ["COPY l /x", "COPY l/ /x/", "COPY d/ /x/", "COPY ../../../srv /x", "ADD l /x", "COPY d/l/file /x"]
)
def test_row_70_a_link_in_the_context_does_not_lead_out(clean: Daemon, canary: Path, line: str) -> None:
    files = {"l": link("l", str(canary)), "d/l": link("d/l", str(canary)), "d/real": "1"}
    made = build(clean, f"FROM busybox\n{line}\nRUN cat /x /x/* /x/l/file 2>/dev/null; true\n", files)

    assert "CANARY" not in made.text
    if made.id:
        assert "CANARY" not in show(clean, made.id, "cat /x /x/file /x/l/file 2>/dev/null")


def test_row_72_a_step_sees_what_a_container_sees(clean: Daemon) -> None:
    """Status, mounts and sysctls of RUN are those of run, except for what names the container."""
    probe = (
        "grep -E '^(Cap|Seccomp|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status; cut -d' ' -f5,6 /proc/self/mountinfo | sort; "
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/core_pattern; ls /dev | sort; ulimit -a; umask; pwd"
    )
    made = build(clean, f"FROM busybox\nRUN {{ {probe}; }} > /probe 2>&1\n").ok

    assert show(clean, made.id, "cat /probe") == show(clean, "busybox", probe)


def test_row_73_paths_in_an_images_labels_are_only_words(clean: Daemon, canary: Path) -> None:
    text = f"FROM busybox\nLABEL com.docker.compose.file=../../..{canary}/file org.opencontainers.image.title=../../x\n"
    made = build(clean, text).ok

    assert config(clean, made.id)["Config"]["Labels"]["org.opencontainers.image.title"] == "../../x"


class _Files(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Last-Modified", "Thu, 01 Jan 2015 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(b"FROM busybox\nENV R=1\n" if self.path == "/Dockerfile" else b"content")


@pytest.fixture
def web() -> Iterator[str]:
    with served(_Files) as port:
        yield f"http://127.0.0.1:{port}"


def test_add_fetches_urls(clean: Daemon, web: str) -> None:
    digest = "sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    made = build(clean, f"FROM busybox\nADD --checksum={digest} {web}/a/file.txt /d/\nADD --chmod=644 {web}/x /y\n").ok
    wrong = build(clean, f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {web}/x /y\n")
    away = build(clean, f"FROM busybox\nADD {web}/away /y\n")

    assert show(clean, made.id, "stat -c '%a %Y' /d/file.txt /y; cat /y") == "600 1420070400\n644 1420070400\ncontent"
    assert "digest mismatch" in wrong.error
    assert "Redirection" in away.error


def test_a_context_may_be_a_url(clean: Daemon, web: str) -> None:
    made = Built(clean.call("POST", f"/build?remote={web}/Dockerfile")).ok

    assert "R=1" in config(clean, made.id)["Config"]["Env"]


def test_two_data_roots_give_the_same_image(clean: Daemon) -> None:
    text = (
        "FROM busybox\nARG SOURCE_DATE_EPOCH\nCOPY d /d/\nWORKDIR /w/x\nRUN echo hi > f && mkdir sub\nENV A=1\n"
        "COPY <<EOF /h\nx\nEOF\n"
    )
    files = {"d/a": "1", "d/b": ("2", 0o755)}
    first = build(clean, text, files, buildargs={"SOURCE_DATE_EPOCH": "1700000001"}).ok
    other = Daemon().start()
    try:
        other.import_busybox()
        base = clean.call("GET", "/images/busybox/get").body
        other.ok("POST", "/images/load", base)
        second = build(other, text, files, buildargs={"SOURCE_DATE_EPOCH": "1700000001"}).ok
    finally:
        other.close()

    assert first.id == second.id
    assert config(clean, first.id)["Created"] == "2023-11-14T22:13:21Z"
    assert show(clean, first.id, "stat -c %Y /w/x/f /w/x/sub /w /d /h") == "1700000001\n" * 5
