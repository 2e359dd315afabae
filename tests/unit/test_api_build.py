"""The builder's door: parameters, refusals and messages, as bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from api_support import Api

from sampan.build.options import BuildFailed
from sampan.build.report import failure
from sampan.errors import InvalidRequest


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as made:
        yield made


def test_every_parameter_arrives(api: Api) -> None:
    query = urlencode(
        [
            ("t", "a:1"), ("t", "b"), ("dockerfile", "sub/D"), ("target", "x"), ("nocache", "1"), ("pull", "1"), ("q", "0"),
            ("buildargs", '{"A":"1","B":null}'), ("labels", '{"l":"v"}'), ("networkmode", "none"), ("memory", "1048576"),
            ("memswap", "-1"), ("cpuquota", "x"), ("cpusetcpus", "0"), ("shmsize", "65536"), ("extrahosts", "h:1.2.3.4"),
            ("ulimits", '[{"Name":"nofile","Hard":9,"Soft":8}]'), ("platform", "aarch64"), ("cgroupparent", "/p"),
            ("outputs", '[{"Type":"moby","Attrs":{"type":"image","name":"c,d"}},{"Type":"moby"}]'),
        ]
    )  # fmt: skip
    login = base64.urlsafe_b64encode(b'{"https://index.docker.io/v1/":{"username":"u"},"r.example:5000":{"username":"w"}}').decode()

    status, _, body = api.ask("POST", f"/build?{query}", b"tar", "Content-Type: application/x-tar", f"X-Registry-Config: {login}")

    assert (status, json.loads(body.splitlines()[1])) == (200, {"stream": "Successfully built abc\n"})
    options, remote, content = api.engine.builder.asked[0]
    assert (options.tags, options.dockerfile, remote, content) == (("a:1", "b", "c", "d"), "sub/D", "", b"tar")
    assert options.request.arguments == {"A": "1", "B": None}
    assert (options.request.labels, options.request.target) == ({"l": "v"}, "x")
    assert (options.request.platform, options.request.strict_platform) == ("linux/arm64", True)
    assert (options.no_cache, options.pull, options.quiet) == (True, True, False)
    host = options.host
    assert (host.network_mode, host.memory, host.memory_swap, host.cpu_quota) == ("none", 1 << 20, -1, 0)
    assert (host.cpuset_cpus, host.shm_size, host.extra_hosts, host.cgroup_parent) == ("0", 65536, ["h:1.2.3.4"], "/p")
    assert host.ulimits is not None
    assert [(one.name, one.hard, one.soft) for one in host.ulimits] == [("nofile", 9, 8)]
    assert sorted(options.auth) == ["docker.io", "r.example:5000"]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("version=3", 400, 'invalid version \\"3\\"'),
        ("version=2", 501, "BuildKit"),
        ("securityopt=x", 400, "security options are not supported on linux"),
        ("buildargs=[]", 400, "error reading buildargs"),
        ("labels=%7B%22a%22%3A1%7D", 400, "error reading labels"),
        ("ulimits=x", 400, "error reading ulimits"),
        ("shmsize=big", 400, "invalid shmsize"),
        ("isolation=hyperv", 400, "Windows"),
        ("outputs=[1]", 400, "error reading outputs"),
        ('outputs=[{"Type":"local"}]', 501, "sampan build -o"),
        ('outputs=[{"Type":"moby","Attrs":{"compression":"zstd"}}]', 501, "compression=zstd is not supported"),
        ('outputs=[{"Type":"moby","Attrs":{"push":"true"}}]', 501, "push=true is not supported"),
        ("platform=linux/amd64,linux/arm64", 400, "invalid platform specifier"),
        ("platform=windows", 400, "not supported"),
        ('ulimits=[{"Name":"nofile","Hard":"x"}]', 400, "error reading ulimits"),
    ],
)
def test_what_is_not_done_is_refused_before_the_context_is_read(api: Api, query: str, status: int, words: str) -> None:
    answer, _, body = api.ask("POST", f"/build?{query}", b"", "Content-Type: application/x-tar")

    assert (answer, words.encode() in body) == (status, True), body
    assert api.engine.builder.asked == []


def test_a_bad_dockerfile_is_a_status(api: Api) -> None:
    api.engine.builder.error = InvalidRequest("dockerfile parse error on line 1: x")

    status, _, body = api.ask("POST", "/build", b"tar", "Content-Type: application/x-tar")

    assert (status, json.loads(body)["message"]) == (400, "dockerfile parse error on line 1: x")


def test_a_failed_command_is_a_message_with_its_code() -> None:
    message = failure(BuildFailed("The command 'x' returned a non-zero code: 7", 7))

    assert message.error_detail is not None
    assert (message.error, message.error_detail.code) == ("The command 'x' returned a non-zero code: 7", 7)


def test_row_71_build_arguments_are_not_in_the_job_table(api: Api) -> None:
    secret = "https://user:hunter2@git.example/x.git"
    query = urlencode({"buildargs": json.dumps({"TOKEN": "hunter2"}), "remote": secret, "sampan-context": f"a={secret}"})

    api.ask("POST", f"/build?{query}", b"", "Content-Type: application/x-tar")

    assert "hunter2" not in str(api.engine.arguments)


def test_prune_takes_its_filters(api: Api) -> None:
    sizes = {"keep-storage": "10", "reserved-space": "3", "max-used-space": "20", "min-free-space": "30"}
    query = urlencode({"all": "1", **sizes, "filters": '{"until":["24h"]}'})

    status, _, body = api.ask("POST", f"/build/prune?{query}")

    assert (status, json.loads(body)) == (200, {"CachesDeleted": ["a"], "SpaceReclaimed": 7})
    wanted = api.engine.builder.pruned[0]
    assert (wanted.all, wanted.filters) == (True, {"until": ("24h",)})
    assert (wanted.reserved, wanted.max_used, wanted.min_free) == (10, 20, 30)
    assert api.ask("POST", '/build/prune?filters={"colour":["red"]}')[0] == 400


def test_row_64_fuzzed_parameters_are_answers_not_failures(api: Api) -> None:
    values = ["", "%00", "-1", "99999999999999999999", "[]", "{}", "null", '"', "[[", "%ff", "true", "{%22a%22:[]}", "x" * 5000]
    names = ("t dockerfile target buildargs labels ulimits memory shmsize cpuquota platform networkmode extrahosts q cachefrom "
             "version squash outputs remote isolation securityopt nocache").split()  # fmt: skip
    for name in names:
        for value in values:
            status, _, body = api.ask("POST", f"/build?{name}={value}", b"", "Content-Type: application/x-tar")
            assert status < 500 or status == 501, (name, value, body)
