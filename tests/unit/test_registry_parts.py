"""What the registry client decides without a registry: hosts, addresses, challenges, credentials, platforms, progress bars."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from pathlib import Path

import pytest
from api_support import Api

from sampan.engine.images import platforms
from sampan.engine.images.feed import bar, human
from sampan.errors import InvalidRequest
from sampan.oci.image import Platform
from sampan.registry import auth, challenge, credentials, guard, hosts, repository, session


def test_mirrors_come_first_and_never_for_pushes() -> None:
    made = hosts.Hosts(hosts.Settings(mirrors=("https://m.example", "ghcr.io=http://g.example:5000")))

    assert [one.host for one in made.endpoints("docker.io")] == ["m.example", "registry-1.docker.io"]
    assert [(one.host, one.schemes) for one in made.endpoints("ghcr.io")] == [
        ("g.example:5000", ("http",)),
        ("ghcr.io", ("https",)),
    ]
    assert [one.host for one in made.endpoints("ghcr.io", push=True)] == ["ghcr.io"]
    assert [one.host for one in made.endpoints("quay.io")] == ["quay.io"]


@pytest.mark.parametrize(
    "text", ["", "m.example", "ftp://m", "https://m/path", "https://u:p@m", "https://m?x", "ghcr.io=", "https://["]
)
def test_a_mirror_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        hosts.read_mirror(text)


def test_row_51_tls_is_waived_for_names_and_literal_addresses_only() -> None:
    made = hosts.Hosts(hosts.Settings(insecure=("reg.corp:5000", "10.1.0.0/16")))

    for host in ("127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "localhost:5000", "reg.corp:5000", "10.1.2.3"):
        assert made.is_insecure(host), host
    for host in ("reg.corp", "reg.corp:5001", "10.2.0.1", "rebind.example", "127.0.0.1.evil.example", "docker.io", "[::2]"):
        assert not made.is_insecure(host), host


def test_settings_are_shown_as_info_has_them_and_changed_ones_trust_nobody_by_the_old() -> None:
    made = hosts.Hosts(hosts.Settings(insecure=("r.corp:5000", "10.1.0.0/16"), mirrors=("https://m.example", "ghcr.io=https://g")))
    shown = made.described()
    assert shown["Mirrors"] == shown["IndexConfigs"]["docker.io"]["Mirrors"] == ["https://m.example/"]
    assert shown["IndexConfigs"]["r.corp:5000"]["Secure"] is False and "10.1.0.0/16" in shown["InsecureRegistryCIDRs"]
    assert made.context("r.corp:5000").verify_mode == ssl.CERT_NONE

    made.change(hosts.Settings())

    assert made.context("r.corp:5000").verify_mode == ssl.CERT_REQUIRED


def test_row_52_only_insecure_hosts_go_unverified(tmp_path: Path) -> None:
    made = hosts.Hosts(hosts.Settings(certificates=(str(tmp_path),)))

    assert made.context("registry.example").check_hostname
    assert not made.context("localhost:5000").check_hostname


def test_a_key_without_its_certificate_is_told(tmp_path: Path) -> None:
    (tmp_path / "r.example").mkdir()
    (tmp_path / "r.example" / "client.key").write_text("x")

    with pytest.raises(InvalidRequest, match="missing client certificate"):
        hosts.Hosts(hosts.Settings(certificates=(str(tmp_path),))).context("r.example")


def test_proxies_go_by_scheme_and_no_proxy() -> None:
    made = hosts.Hosts(hosts.Settings(http_proxy="p:1", https_proxy="http://q:2", no_proxy="corp.example, 10.0.0.0/8, .in.example"))

    assert made.proxy("https", "docker.io:443") == "http://q:2"
    assert made.proxy("http", "docker.io:80") == "http://p:1"
    for host in ("a.corp.example:443", "corp.example:443", "10.1.1.1:5000", "x.in.example", "localhost:5000", "127.0.0.1:5000"):
        assert made.proxy("https", host) is None, host


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("8.8.8.8", guard.PUBLIC),
        ("10.0.0.1", guard.PRIVATE),
        ("100.64.0.1", guard.PRIVATE),
        ("fd00::1", guard.PRIVATE),
        ("127.0.0.1", guard.LOOPBACK),
        ("::1", guard.LOOPBACK),
        ("::ffff:127.0.0.1", guard.LOOPBACK),
        ("64:ff9b::7f00:1", guard.LOOPBACK),
        ("169.254.169.254", guard.NEVER),
        ("fe80::1%eth0", guard.NEVER),
        ("0.0.0.0", guard.NEVER),
        ("224.0.0.1", guard.NEVER),
        ("2002:7f00:1::", guard.LOOPBACK),
    ],
)
def test_row_50_addresses_are_told_apart(address: str, wanted: int) -> None:
    assert guard.zone(address) == wanted


def test_row_50_a_public_registry_may_not_point_inwards() -> None:
    made = guard.Guard("registry.example")
    made.home = guard.PUBLIC

    for host in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "localhost", "::1"):
        with pytest.raises(guard.Forbidden):
            made.check(host)
    made.check("8.8.8.8")
    inner = guard.Guard("10.0.0.5")
    inner.check("10.0.0.6")
    with pytest.raises(guard.Forbidden):
        inner.check("127.0.0.1")


@pytest.mark.parametrize(
    ("realm", "registry", "wanted"),
    [
        ("auth.example.org", "registry.example.org", True),
        ("ghcr.io", "ghcr.io", True),
        ("gitlab.com", "registry.gitlab.com", True),
        ("r.example:5001", "r.example:5000", True),
        ("evil.example", "registry.example.org", False),
        ("evil.co.uk", "good.co.uk", False),
        ("a.good.co.uk", "b.good.co.uk", True),
        ("10.0.0.2", "10.0.0.1", False),
        ("org", "example.org", False),
        ("127.0.0.1", "127.0.0.1", True),
    ],
)
def test_row_50_credentials_go_to_the_same_site_only(realm: str, registry: str, wanted: bool) -> None:
    assert credentials.may_receive(realm, registry) == wanted


def test_challenges_are_read_as_written() -> None:
    found = challenge.parse(['Bearer realm="https://a/token",service="r, \\"x\\"",scope="repository:a/b:pull,push", Basic realm=x'])

    assert [(one.scheme, one.parameters) for one in found] == [
        ("bearer", {"realm": "https://a/token", "service": 'r, "x"', "scope": "repository:a/b:pull,push"}),
        ("basic", {"realm": "x"}),
    ]


@pytest.mark.parametrize("header", ['"', "=x", 'Bearer realm="' + "a" * 9000, "Bearer @"])
def test_malformed_challenges_are_refused(header: str) -> None:
    with pytest.raises(InvalidRequest):
        challenge.parse([header])


def test_attempts_are_further_and_further_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def asleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(session.asyncio, "sleep", asleep)
    settings = hosts.Hosts(hosts.Settings())
    timing = session.Timing(delay=1.0, longest_wait=30.0)
    one = session.Session(settings, settings.endpoint("a", "a"), auth.Authorizer(credentials.ANONYMOUS), timing=timing, agent="")

    async def main() -> None:
        for attempt in range(7):
            await one.pause(attempt)
        await one.pause(0, after=12.0)
        await one.pause(0, after=3600.0)

    asyncio.run(main())
    for number, wait in enumerate(waits[:5]):
        assert 0.75 * 2**number <= wait <= 1.25 * 2**number
    assert waits[5:] == [waits[5], 30.0, 12.0, 30.0]  # what the registry asks for, within reason
    assert [session._retry_after(text) for text in ("7", "", "x", "9" * 12)] == [7.0, 0.0, 0.0, 0.0]


def test_credentials_of_another_registry_are_not_used() -> None:
    text = base64.urlsafe_b64encode(
        json.dumps({"username": "u", "password": "p", "serveraddress": "https://a.example/v2/"}).encode()
    )
    made = credentials.from_header(text.decode())

    assert made.for_domain("a.example").user == ("u", "p")
    assert made.for_domain("b.example").anonymous
    hub = credentials.Credentials(username="u", serveraddress="https://index.docker.io/v1/")
    assert hub.for_domain("docker.io").username == "u"
    assert "p'" not in repr(made)


@pytest.mark.parametrize(
    "value", ["!", "e30=!", base64.b64encode(b"[1]").decode(), base64.b64encode(b'{"username":1}').decode(), "A" * 70000]
)
def test_a_broken_x_registry_auth_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest):
        credentials.from_header(value)


def test_the_best_platform_is_chosen_as_docker_does() -> None:
    arm = platforms.parse("linux/arm/v7")

    assert platforms.rank(Platform(os="linux", architecture="arm", variant="v7"), arm) == 0
    assert platforms.rank(Platform(os="linux", architecture="arm", variant="v6"), arm) == 1
    assert platforms.rank(Platform(os="linux", architecture="arm", variant="v8"), arm) is None
    assert platforms.rank(Platform(os="windows", architecture="arm", variant="v7"), arm) is None
    assert platforms.parse("arm64/v8".replace("/v8", "")) == Platform(os="linux", architecture="arm64")
    assert platforms.rank(Platform(os="linux", architecture="aarch64", variant="v8"), platforms.parse("linux/arm64")) == 0
    assert platforms.rank(None, arm) == 3
    for wrong in ("bogus", "a/b/c/d", "linux//v7", "*"):
        with pytest.raises(InvalidRequest):
            platforms.parse(wrong)


def test_bars_look_as_dockers() -> None:
    assert bar(36445, 1068671) == "[=>                                                 ]  36.45kB/1.069MB"
    assert bar(1068671, 1068671) == "[==================================================>]  1.069MB/1.069MB"
    assert (human(999), human(1000), human(0), human(1234567890)) == ("999B", "1kB", "0B", "1.235GB")


def test_links_to_the_next_page() -> None:
    assert repository.next_page('</v2/a/tags/list?n=2&last=b>; rel="next"') == "/v2/a/tags/list?n=2&last=b"
    assert repository.next_page("") == repository.next_page("</x>") == repository.next_page('<file:///x>; rel="next"') == ""


@pytest.fixture
def api(tmp_path: Path) -> object:
    with Api(tmp_path) as made:
        yield made


def test_a_pull_is_a_stream_and_an_early_refusal_is_a_status(api: Api) -> None:
    status, headers, body = api.ask(
        "POST", "/images/create?fromImage=busybox&tag=1&platform=linux/arm64", b"", "X-Registry-Auth: e30="
    )
    assert (status, headers["content-type"]) == (200, "application/json")
    assert b'{"status":"Pulling fs layer","id":"aaaaaaaaaaaa","progressDetail":{}}\r\n' in body
    assert api.engine.images.asked == ("busybox", "1", "linux/arm64", "e30=")

    status, _, body = api.ask("POST", "/images/create?fromImage=missing&tag=latest", b"")
    assert (status, json.loads(body)["message"][:12]) == (404, "manifest for")
    status, _, body = api.ask("POST", "/images/create?fromImage=broken&tag=latest", b"")
    assert status == 200
    assert b'"errorDetail":{"message":"filesystem layer verification failed"}' in body


def test_a_push_ends_with_aux(api: Api) -> None:
    status, _, body = api.ask("POST", "/images/localhost:5000/a/b/push?tag=1", b"", "X-Registry-Auth: abc")
    assert status == 200
    assert b'"aux":{"Tag":"1","Digest":"sha256:' in body
    assert api.engine.images.asked == ("localhost:5000/a/b", "1", "", "abc")


def test_login_distribution_and_search_answer_in_dockers_shapes(api: Api) -> None:
    status, _, body = api.ask("POST", "/auth", b'{"username":"u","password":"right"}')
    assert (status, json.loads(body)) == (200, {"Status": "Login Succeeded", "IdentityToken": "token"})
    assert api.ask("POST", "/auth", b'{"username":"u","password":"wrong"}')[0] == 401
    status, _, body = api.ask("GET", "/distribution/localhost:5000/a/b:1/json")
    assert json.loads(body)["Descriptor"]["mediaType"].endswith("index.v1+json")
    assert json.loads(body)["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    status, _, body = api.ask("GET", "/images/search?term=x&limit=7")
    assert json.loads(body) == [{"star_count": 7, "is_official": False, "name": "x", "is_automated": False, "description": ""}]
    assert api.ask("GET", "/images/search?term=x&filters=%7B%22bad%22%3A%5B%221%22%5D%7D")[0] == 400
