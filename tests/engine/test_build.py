"""Builds through the real door: what the image is, what is cached, what a failed build leaves."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import tarfile
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from support.builds import build, config, context, link, show
from support.daemon import Daemon


@pytest.fixture
def clean(daemon: Daemon) -> Iterator[Daemon]:
    """The daemon with an empty build cache, and nothing of a build left afterwards."""
    daemon.ok("POST", "/build/prune?all=1")
    yield daemon
    daemon.ok("POST", "/build/prune?all=1")
    assert leftovers(daemon) == []


def leftovers(daemon: Daemon) -> list[str]:
    """Return what builds may not leave: contexts, snapshots, containers."""
    found = [str(path) for path in (daemon.data_root / "build/contexts").iterdir()]
    found += [str(path) for path in (daemon.data_root / "layers/snapshots").iterdir()]
    found += [str(path) for path in (daemon.data_root / "layers/tmp").iterdir()]
    return found + [one["Id"] for one in daemon.ok("GET", "/containers/json?all=1")]


def test_the_stream_is_dockers(clean: Daemon) -> None:
    made = build(clean, 'FROM busybox\nRUN echo out; echo err >&2\nCMD ["a"]\n', t="stream:1").ok
    lines = made.text.splitlines()

    assert lines[0] == "Step 1/3 : FROM busybox"
    assert lines[2] == "Step 2/3 : RUN echo out; echo err >&2"
    assert lines[3].startswith(" ---> Running in ")
    assert "out" in lines
    assert "\x1b[91merr" in lines
    assert any(line.startswith("\x1b[0m ---> Removed intermediate container ") for line in lines)
    assert lines[-2:] == [f"Successfully built {made.id[7:19]}", "Successfully tagged stream:1"]


def test_the_image_is_what_the_dockerfile_says(clean: Daemon) -> None:
    made = build(
        clean,
        "FROM busybox\nLABEL a=1\nENV B=2\nEXPOSE 80\nUSER user\nWORKDIR /w\nVOLUME /v\nSTOPSIGNAL SIGINT\n"
        'HEALTHCHECK --interval=5s CMD true\nENTRYPOINT ["/bin/sh"]\nCMD ["-c", "id"]\nONBUILD RUN x\n',
        labels={"b": "2"},
    ).ok
    found = config(clean, made.id)["Config"]

    assert found["Labels"] == {"a": "1", "b": "2"}
    assert "B=2" in found["Env"]
    assert found["ExposedPorts"] == {"80/tcp": {}}
    assert (found["User"], found["WorkingDir"], found["Volumes"]) == ("user", "/w", {"/v": {}})
    assert (found["Entrypoint"], found["Cmd"], found["OnBuild"]) == (["/bin/sh"], ["-c", "id"], ["RUN x"])
    assert found["StopSignal"] == "SIGINT"
    assert found["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000}


def test_a_second_build_is_all_cache_and_the_same_image(clean: Daemon) -> None:
    text = "FROM busybox\nRUN date +%N > /t\nCOPY a /a\nWORKDIR /w\nENV X=1\n"
    first = build(clean, text, {"a": "1"}).ok
    second = build(clean, text, {"a": "1"}).ok

    assert (first.cached, second.cached) == (0, 3)
    assert first.id == second.id


def test_a_changed_file_misses_and_a_touched_one_hits(clean: Daemon) -> None:
    text = "FROM busybox\nCOPY a b /d/\nRUN true\n"
    build(clean, text, {"a": "1", "b": "2"}).ok
    body = context({"Dockerfile": text, "a": "1", "b": "2"}, mtime=1)
    touched = clean.call("POST", "/build", body, headers={"Content-Type": "application/x-tar"})
    changed = build(clean, text, {"a": "1", "b": "3"}).ok

    assert touched.body.count(b"Using cache") == 2
    assert changed.cached == 0


def test_an_argument_misses_what_follows_it_and_nothing_before(clean: Daemon) -> None:
    text = "FROM busybox\nRUN echo 1\nARG V\nRUN echo $V > /v\n"
    build(clean, text, buildargs={"V": "a"}).ok
    other = build(clean, text, buildargs={"V": "b"}).ok

    assert other.cached == 1
    assert show(clean, other.id, "cat /v") == "b\n"


def test_nocache_does_everything_again(clean: Daemon) -> None:
    text = "FROM busybox\nRUN date +%N > /t\n"
    build(clean, text).ok

    assert build(clean, text, nocache=1).ok.cached == 0


def test_explain_names_the_file_the_argument_and_the_base(clean: Daemon) -> None:
    text = "FROM busybox\nCOPY src /src/\nARG V=1\nRUN echo $V\n"
    build(clean, text, {"src/a.c": "1", "src/b.c": "1"}, t="why").ok
    file = build(clean, text, {"src/a.c": "2", "src/b.c": "1"}, t="why", sampan__explain=1).ok
    argument = build(clean, text, {"src/a.c": "2", "src/b.c": "1"}, t="why", sampan__explain=1, buildargs={"V": "2"}).ok

    assert " ---> Not cached: file a.c changed\n" in file.text
    assert " ---> Not cached: base changed\n" in file.text
    assert " ---> Not cached: variable V changed\n" in argument.text


def test_copy_keeps_modes_times_and_links_and_takes_ownership(clean: Daemon) -> None:
    files = {"d/": "", "d/x": ("1", 0o755), "d/e/y": "2", "d/l": link("d/l", "e/y")}
    made = build(clean, "FROM busybox\nCOPY d /d\nCOPY --chown=user:extra --chmod=u=rw,go= d/x /x\n", files).ok
    shown = show(clean, made.id, "stat -c '%n %a %U %G %Y' /d/x /d/e/y /x; readlink /d/l; ls /d")

    assert shown == ("/d/x 755 root root 1700000000\n/d/e/y 644 root root 1700000000\n/x 600 user extra 1700000000\ne/y\ne\nl\nx\n")


@pytest.mark.parametrize(
    ("line", "command", "expected"),
    [
        ("COPY a /new", "cat /new", "A"),
        ("COPY a /new/", "cat /new/a", "A"),
        ("COPY a /etc", "cat /etc/a", "A"),
        ("COPY a b /n/", "cat /n/a /n/b", "AB"),
        ("COPY d /etc", "cat /etc/x /etc/sub/y; grep -c root /etc/passwd", "XY1\n"),
        ("COPY *.txt /t/", "ls /t", "one.txt\ntwo.txt\n"),
        ("COPY d/s?b /t/", "ls /t", "y\n"),
        ("COPY ../../a /x", "cat /x", "A"),
        ("COPY /a /x", "cat /x", "A"),
        ("COPY --parents d/sub/y /p/", "cat /p/d/sub/y", "Y"),
        ("COPY --parents d/./sub/y /p/", "cat /p/sub/y", "Y"),
        ("COPY --exclude=sub d /p/", "ls /p", "x\n"),
        ("COPY --exclude=**/y d /p/", "find /p -type f", "/p/x\n"),
        ("COPY <<EOF /h\nhello\nEOF", "cat /h; stat -c %a /h", "hello\n644\n"),
        ("COPY <<a <<b /h/\n1\na\n2\nb", "cat /h/a /h/b", "1\n2\n"),
        ("RUN ln -s /real /lnk && mkdir /real\nCOPY a /lnk/", "cat /real/a; readlink /lnk", "A/real\n"),
        ("RUN ln -s /real /lnk\nCOPY a /lnk", "cat /real; readlink /lnk", "A/real\n"),
        ("WORKDIR /w\nCOPY a sub/", "cat /w/sub/a", "A"),
        ("COPY --link a /etc/a", "cat /etc/a; grep -c root /etc/passwd", "A1\n"),
        ("RUN <<EOF\nset -e\necho $0 > /o\nEOF", "cat /o", "/bin/sh\n"),
        ("RUN <<EOF\n#!/bin/busybox cat\nx\nEOF", "echo ok", "ok\n"),
        ("USER user\nWORKDIR /uw\nRUN id -u > /uw/me", "cat /uw/me; stat -c %U /uw", "1000\nuser\n"),
        ('SHELL ["/bin/sh", "-ec"]\nRUN false; true\nRUN echo', "", None),
        ("ENV A=1\nARG B=2\nRUN echo $A$B$C > /e", "cat /e", "12\n"),
    ],
)  # fmt: skip
def test_files_land_where_docker_puts_them(clean: Daemon, line: str, command: str, expected: str | None) -> None:
    files = {"a": "A", "b": "B", "d/x": "X", "d/sub/y": "Y", "one.txt": "1", "two.txt": "2"}
    made = build(clean, f"FROM busybox\n{line}\n", files)
    if expected is None:
        assert "returned a non-zero code: 1" in made.error
        return

    assert show(clean, made.ok.id, command) == expected


def test_stages_are_built_side_by_side_and_unneeded_ones_are_not(clean: Daemon) -> None:
    text = (
        "FROM busybox AS one\nRUN echo 1 > /o\nFROM busybox AS never\nRUN exit 9\nFROM busybox AS two\nRUN echo 2 > /t\n"
        "FROM scratch\nCOPY --from=one /o /o\nCOPY --from=two /t /t\nCOPY --from=busybox /bin /bin\n"
    )
    made = build(clean, text).ok

    assert show(clean, made.id, "cat /o /t") == "1\n2\n"
    assert "exit 9" not in made.text
    assert len(config(clean, made.id)["RootFS"]["Layers"]) == 3


def test_a_target_stops_there(clean: Daemon) -> None:
    made = build(clean, "FROM busybox AS one\nENV A=1\nFROM one\nRUN exit 1\n", target="one").ok

    assert "A=1" in config(clean, made.id)["Config"]["Env"]


def test_onbuild_runs_in_the_child(clean: Daemon) -> None:
    build(clean, "FROM busybox\nONBUILD COPY a /from-context\nONBUILD RUN echo t > /trigger\n", t="parent").ok
    child = build(clean, "FROM parent\nRUN cat /trigger\n", {"a": "A"}).ok

    assert "# Executing 2 build triggers\n" in child.text
    assert show(clean, child.id, "cat /from-context /trigger") == "At\n"
    assert not config(clean, child.id)["Config"].get("OnBuild")


def test_nothing_of_the_launch_is_in_the_layer(clean: Daemon) -> None:
    """/etc/hosts and its like are mounts; their empty mount points are not what RUN changed."""
    made = build(clean, "FROM busybox\nRUN echo x > /x\n").ok
    clean.ok("POST", f"/images/{made.id.removeprefix('sha256:')}/tag?repo=stubs")
    before = set(config(clean, "busybox")["RootFS"]["Layers"])
    (layer,) = [one for one in config(clean, made.id)["RootFS"]["Layers"] if one not in before]
    blob = (clean.data_root / "content/blobs/sha256" / layer.removeprefix("sha256:")).read_bytes()

    with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
        assert tar.getnames() == ["x"]


def test_a_failing_command_is_dockers_error_and_leaves_nothing(clean: Daemon) -> None:
    made = build(clean, "FROM busybox\nRUN exit 3\n", t="never")

    assert made.messages[-1] == {
        "error": "The command '/bin/sh -c exit 3' returned a non-zero code: 3",
        "errorDetail": {"code": 3, "message": "The command '/bin/sh -c exit 3' returned a non-zero code: 3"},
    }
    assert "Successfully" not in made.text
    assert clean.call("GET", "/images/never/json").status == 404


def test_a_bad_dockerfile_is_refused_before_any_output(clean: Daemon) -> None:
    made = build(clean, "FROM busybox\nRUM x\n")

    assert made.status == 400
    assert made.refusal.startswith("dockerfile parse error on line 2: unknown instruction: RUM (did you mean RUN?)")


@pytest.mark.parametrize(
    ("dockerfile", "query", "status", "words"),
    [
        ("FROM busybox\nCOPY no /x\n", {}, 200, "file not found in build context"),
        ("FROM nosuch:1\n", {}, 404, ""),
        ("FROM busybox\n", {"dockerfile": "Other"}, 500, "Cannot locate specified Dockerfile: Other"),
        ("FROM busybox\n", {"version": "3"}, 400, 'invalid version "3"'),
        ("FROM busybox\n", {"version": "2"}, 501, "BuildKit"),
        ("FROM busybox\n", {"buildargs": "{"}, 400, "error reading buildargs"),
        ("FROM busybox\n", {"shmsize": "x"}, 400, "invalid shmsize"),
        ("FROM busybox\n", {"t": "UPPER"}, 400, "invalid reference format"),
        ("FROM busybox\n", {"target": "x"}, 400, "failed to reach build target x in Dockerfile"),
        ("FROM busybox\nRUN --security=insecure id\n", {}, 200, "security.insecure is not allowed"),
        ("FROM busybox\nRUN --device=vendor/gpu,required id\n", {}, 200, "unresolvable CDI devices vendor/gpu"),
        ("FROM busybox\nRUN --network=host id\n", {}, 200, "network.host is not allowed"),
        ("FROM busybox\nRUN nosuchprogram\n", {}, 200, "returned a non-zero code: 127"),
        ('FROM busybox\nRUN ["/no/such"]\n', {}, 200, "/no/such"),
        ("FROM busybox\nUSER nobodyknows\nRUN id\n", {}, 200, "nobodyknows"),
        ("FROM busybox\nCOPY --chown=nobodyknows Dockerfile /x\n", {}, 200, "nobodyknows"),
        ("FROM busybox\nCOPY Dockerfile /etc/passwd/\n", {}, 200, "cannot copy to non-directory"),
        ("FROM --platform=linux/s390x busybox\n", {}, 404, "platform"),
    ],
)  # fmt: skip
def test_refusals_say_why(clean: Daemon, dockerfile: str, query: dict[str, str], status: int, words: str) -> None:
    made = build(clean, dockerfile, **query)

    assert made.status in (status, 200)
    assert words in made.error
    assert not made.id


def test_q_says_only_the_id(clean: Daemon) -> None:
    made = build(clean, "FROM busybox\nRUN echo hi\n", q=1)

    assert [message.get("stream") for message in made.messages if "stream" in message][-1].startswith("sha256:")
    assert "hi" not in made.text


def test_unused_build_arguments_are_warned_of(clean: Daemon) -> None:
    made = build(clean, "FROM busybox\nARG USED\n", buildargs={"USED": "1", "NOT": "2"}).ok

    assert "[Warning] One or more build-args [NOT] were not consumed\n" in made.text


def test_build_checks_are_warnings_of_every_build(clean: Daemon) -> None:
    text = "FROM busybox\nENV A 1\nCMD x\n"
    made = build(clean, text).ok
    quiet = build(clean, text, q=1)
    skipped = build(clean, f"# check=skip=LegacyKeyValueFormat,JSONArgsRecommended\n{text}").ok

    assert (
        '\n[Warning] LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 2)\n'
        in made.text
    )
    assert made.text.index("[Warning] JSONArgsRecommended: ") < made.text.index("Successfully built")
    assert "[Warning]" not in quiet.text + skipped.text


def test_a_base_for_another_machine_is_warned_of_unless_one_was_asked_for(clean: Daemon) -> None:
    clean.ok("POST", "/images/create?fromSrc=-&repo=foreign&platform=linux/s390x", context({"etc/": ""}))
    text = "FROM foreign\nCOPY Dockerfile /\n"
    made = build(clean, text).ok
    strict = build(clean, f"# check=error=true\n{text}")
    skipped = build(clean, f"# check=skip=InvalidBaseImagePlatform;error=true\n{text}").ok
    asked = build(clean, text, platform="linux/amd64")

    warning = 'Base image foreign was pulled with platform "linux/s390x", expected "linux/amd64" for current build (line 1)'
    assert f"[Warning] InvalidBaseImagePlatform: {warning}\n" in made.text
    assert strict.error.startswith("lint violation found for rules:\nInvalidBaseImagePlatform - ") and not strict.id
    assert "InvalidBase" not in skipped.text
    assert "does not provide the specified platform (linux/amd64), and it cannot be pulled for it" in asked.error
    assert build(clean, text, platform="linux/s390x").ok
    clean.ok("DELETE", "/images/foreign?force=1")


def test_errors_name_the_file_in_which_the_line_stands(clean: Daemon) -> None:
    base = build(clean, "FROM busybox\nONBUILD COPY ${NOPE:?} /\n", t="triggers").ok
    texts = {"ci/File": "FROM busybox\nRUM x\n", "Late": "FROM busybox\nUSER ${NOPE:?}\n", "Child": f"FROM {base.id}\n"}
    found = {name: build(clean, "", texts, dockerfile=name).error.split("\n")[1] for name in texts}
    outside = build(clean, "", texts, dockerfile="ci/File", sampan__file="/elsewhere/D")

    assert found == {"ci/File": "ci/File:2:1", "Late": "Late:2:6", "Child": "ONBUILD of the base image:1:6"}
    assert "\n/elsewhere/D:2:1\n" in outside.error
    clean.ok("DELETE", "/images/triggers?force=1")


def test_errors_of_steps_say_where_they_stand(clean: Daemon) -> None:
    text = "FROM busybox\n  COPY \\\n  nothing /x\n"
    missing = build(clean, text, sampan__file="ci/D")
    base = build(clean, "FROM no.such.registry.invalid/x\n")
    failed = build(clean, "FROM busybox\nRUN exit 3\n")
    beside = build(clean, "FROM busybox AS a\nRUN exit 3\nFROM busybox\nRUN sleep 9\nCOPY --from=a /x /x\n")

    assert missing.error.startswith("COPY failed: file not found in build context")
    assert missing.error.endswith("\nci/D:2:3\n  2 |   COPY \\\n    |   ^")
    assert base.error.endswith("\nDockerfile:1:1\n  1 | FROM no.such.registry.invalid/x\n    | ^")
    assert failed.error == "The command '/bin/sh -c exit 3' returned a non-zero code: 3"
    for made in (failed, beside):
        assert made.text.count("Dockerfile:2:1\n  2 | RUN exit 3\n    | ^\n") == 1
        assert made.text.count("Dockerfile:") == 1


def test_dockerignore_leaves_files_out(clean: Daemon) -> None:
    files = {".dockerignore": "*\n!keep\nkeep/no*\n", "a": "1", "keep/x": "2", "keep/no1": "3"}
    made = build(clean, "FROM busybox\nCOPY . /c/\n", files).ok

    assert show(clean, made.id, "cd /c; find . -type f | sort") == "./keep/x\n"


def test_a_dockerfile_has_an_ignore_file_of_its_own(clean: Daemon) -> None:
    files = {".dockerignore": "b\n", "Other": "FROM busybox\nCOPY . /c/\n", "Other.dockerignore": "a\n", "a": "1", "b": "2"}
    made = build(clean, "", files, dockerfile="Other").ok

    assert "b" in show(clean, made.id, "ls /c").split()
    assert "a" not in show(clean, made.id, "ls /c").split()


def test_a_command_is_on_the_bridge_and_gives_its_address_back(clean: Daemon) -> None:
    server = clean.create("sh", "-c", "mkdir /w; echo reached > /w/x; exec httpd -f -p 80 -h /w")
    clean.ok("POST", f"/containers/{server}/start")
    address = clean.ok("GET", f"/containers/{server}/json")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    text = f"FROM busybox\nRUN until wget -qO- http://{address}/x; do usleep 50000; done\nRUN --network=none ! ip route | grep ."
    made = build(clean, text).ok

    assert "reached\n" in made.text
    assert list(clean.ok("GET", "/networks/bridge")["Containers"]) == [server]
    clean.ok("DELETE", f"/containers/{server}?force=1")


def test_limits_and_network_are_the_requests(clean: Daemon) -> None:
    text = "FROM busybox\nRUN ip link | grep -c ': ' > /n; cat /etc/hosts > /h\n"
    made = build(clean, text, networkmode="none", extrahosts=["far:10.9.8.7"], memory=64 << 20).ok

    assert show(clean, made.id, "cat /n") == "1\n"
    assert "10.9.8.7\tfar" in show(clean, made.id, "cat /h")


def test_a_client_that_leaves_ends_its_build(clean: Daemon) -> None:
    body = context({"Dockerfile": "FROM busybox\nRUN echo started && sleep 1000\n"})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(clean.sock))
        client.sendall(b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        seen = b""
        while b"started" not in seen.split(b"Running in")[-1] or b"Running in" not in seen:
            data = client.recv(65536)
            assert data, seen
            seen += data
    deadline = time.monotonic() + 20
    while leftovers(clean) and time.monotonic() < deadline:
        os.sched_yield()

    assert leftovers(clean) == []


def test_cached_steps_survive_the_daemon(clean: Daemon) -> None:
    text = "FROM busybox\nRUN date +%N > /t\n"
    first = build(clean, text).ok
    clean.ok("DELETE", f"/images/{first.id}?force=1")
    clean.restart()
    second = build(clean, text).ok

    assert second.cached == 1
    assert second.id == first.id


def test_a_daemon_killed_in_a_build_leaves_nothing(clean: Daemon) -> None:
    body = context({"Dockerfile": "FROM busybox\nRUN echo started && sleep 1000\n"})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(clean.sock))
        client.sendall(b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        seen = b""
        while b"started\\n" not in seen:
            data = client.recv(65536)
            assert data, seen
            seen += data
        clean.restart()

    assert leftovers(clean) == []


def test_prune_frees_what_only_the_cache_needs(clean: Daemon) -> None:
    made = build(clean, "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=3\n").ok
    kept = clean.ok("POST", "/build/prune")
    assert kept["CachesDeleted"] is None
    clean.ok("DELETE", f"/images/{made.id}")
    freed = clean.ok("POST", "/build/prune")

    assert len(freed["CachesDeleted"]) == 1
    assert freed["SpaceReclaimed"] >= 3 << 20
    assert build(clean, "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=3\n").ok.cached == 0


def test_prune_goes_by_age_size_and_type(clean: Daemon) -> None:
    """Steps and cache mounts: the longest unused go first, until what stays is small enough."""

    def step(number: int) -> str:
        return f"FROM busybox\nRUN --mount=type=cache,id=c{number},target=/c dd if=/dev/zero of=/c/f bs=1M count=1 && \\\n" \
            f"  dd if=/dev/zero of=/f{number} bs=1M count=1\n"  # fmt: skip

    def here() -> list[tuple[str, str]]:
        return sorted(
            (one["Type"], one["Description"]) for one in clean.ok("GET", "/system/df?type=build-cache")["BuildCache"] or []
        )

    def ask(**query: str) -> dict[str, Any]:
        pruned: dict[str, Any] = clean.ok("POST", "/build/prune?" + urllib.parse.urlencode(query))
        return pruned

    for number in range(3):
        made = build(clean, step(number), t="pruned").ok
    clean.ok("DELETE", f"/images/{made.id}?force=1")
    clean.ok("POST", "/images/prune?filters=%7B%22dangling%22:%5B%22true%22%5D%7D")
    young = ask(all="1", filters='{"until":["1h"]}')
    only = ask(filters='{"type":["exec.cachemount"],"description":["c1 "]}')
    after = here()
    small = ask(all="1", **{"keep-storage": str(3 << 20)})

    assert young["CachesDeleted"] is None
    assert len(only["CachesDeleted"]) == 1
    assert only["SpaceReclaimed"] >= 1 << 20
    assert [kind for kind, _ in after] == ["exec.cachemount"] * 2 + ["regular"] * 3
    assert after[0][1] == "c0 mounted at /c"
    assert 2 <= len(small["CachesDeleted"]) <= 3
    left = [text for _, text in here()]
    assert any("c2" in text for text in left), "the last to be used stays"
    assert not any("c0" in text for text in left)
    assert len(ask(all="1", filters='{"until":["0s"]}')["CachesDeleted"]) == len(left)


def test_check_warns_and_builds_nothing(clean: Daemon) -> None:
    made = build(clean, "FROM busybox as x\nENV A b\nCMD echo\nENV TOKEN=1\nWORKDIR rel\n", sampan__check=1)

    for rule in ("FromAsCasing", "LegacyKeyValueFormat", "JSONArgsRecommended", "SecretsUsedInArgOrEnv", "WorkdirRelativePath"):
        assert rule in made.text
    assert not made.id


def test_add_unpacks_archives_and_only_those(clean: Daemon) -> None:
    inner = context({"in/x": "X"})
    files = {
        "a.tar": inner,
        "b.tgz": gzip.compress(inner),
        "c.xz": lzma.compress(inner),
        "d.bz2": bz2.compress(inner),
        "e.tar": "no",
    }
    made = build(
        clean,
        "FROM busybox\nADD a.tar /a/\nADD b.tgz /b/\nADD c.xz /c/\nADD d.bz2 /d/\nADD e.tar /e/\nADD --unpack=false a.tar /f/\n"
        "COPY a.tar /g/\n",
        files,
    ).ok

    assert show(clean, made.id, "cat /a/in/x /b/in/x /c/in/x /d/in/x /e/e.tar; ls /f /g") == "XXXXno/f:\na.tar\n\n/g:\na.tar\n"


def test_squash_gives_one_layer_with_the_same_files(clean: Daemon) -> None:
    text = (
        "FROM busybox\nRUN mkdir /d && echo 1 > /d/a && dd if=/dev/zero of=/big bs=1M count=2\nENV E=1\nRUN rm /big /etc/group\n"
        "RUN rm -r /d && mkdir /d && echo 2 > /d/b && chown 3:4 /d/b\nCOPY x /x\nUSER 5\n"
    )
    plain = build(clean, text, {"x": "X"}).ok
    made = build(clean, text, {"x": "X"}, squash=1).ok
    again = build(clean, text, {"x": "X"}, squash=1).ok
    fresh = build(clean, text, {"x": "X"}, squash=1, nocache=1, sampan__epoch=1_700_000_000).ok
    same = build(clean, text, {"x": "X"}, squash=1, nocache=1, sampan__epoch=1_700_000_000).ok

    base, squashed = config(clean, "busybox"), config(clean, made.id)
    assert squashed["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    assert squashed["Size"] < config(clean, plain.id)["Size"] - (2 << 20) + 4096
    assert squashed["Config"] == config(clean, plain.id)["Config"]
    probe = "find / -xdev -path /proc -prune -o -path /dev -prune -o -type f -print0 | xargs -0 stat -c '%n %a %u %g %s'; ls -d /d"
    assert show(clean, made.id, probe) == show(clean, plain.id, probe)
    assert (again.id, fresh.id) == (made.id, same.id)
    history = clean.ok("GET", f"/images/{made.id}/history")
    assert len(history) == len(clean.ok("GET", f"/images/{plain.id}/history")) + 1
    assert history[0]["Comment"].startswith("merge of 4 layers to sha256:")


def test_a_file_that_wants_warnings_to_be_errors_is_not_built(clean: Daemon) -> None:
    made = build(clean, "# check=error=true\nFROM busybox\nCOPY out /\n", {".dockerignore": "out\n"})
    fine = build(clean, "# check=error=true;skip=JSONArgsRecommended\nFROM busybox\nCMD x\n")

    assert made.status == 400
    assert "CopyIgnoredFile" in made.refusal
    assert fine.ok


def test_a_stage_may_be_built_again_alone(clean: Daemon) -> None:
    text = (
        "FROM busybox AS a\nRUN echo a\nFROM busybox AS b\nRUN echo b\nFROM busybox\nRUN echo c\nCOPY --from=a / /a\n"
        "COPY --from=b / /b\n"
    )
    build(clean, text).ok
    made = build(clean, text, sampan__no__cache__filter=["b"], sampan__explain=1).ok

    assert made.text.count("Not cached: the cache is not used") == 1
    assert "RUN echo b\n ---> Not cached" in made.text
