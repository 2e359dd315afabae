"""Credentials in ~/.docker/config.json and in credential helpers, as docker keeps them."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.cli import credentials, registry
from sampan.cli.main import Exit


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def test_credentials_are_written_and_found_as_docker_does(folder: Path) -> None:
    (folder / "config.json").write_text('{"psFormat": "x"}')
    credentials.Config().put("r.example:5000", {"username": "u", "password": "p:q"})

    value = json.loads((folder / "config.json").read_text())
    assert value == {"psFormat": "x", "auths": {"r.example:5000": {"auth": base64.b64encode(b"u:p:q").decode()}}}
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o600
    assert credentials.Config().get("r.example:5000") == {"username": "u", "password": "p:q", "serveraddress": "r.example:5000"}
    assert credentials.Config().remove("r.example:5000")
    assert json.loads((folder / "config.json").read_text()) == {"psFormat": "x", "auths": {}}
    assert not credentials.Config().remove("r.example:5000")


def test_an_identity_token_is_kept_instead_of_the_password(folder: Path) -> None:
    credentials.Config().put(credentials.HUB, {"username": "u", "password": "secret", "identitytoken": "t"})

    entry = json.loads((folder / "config.json").read_text())["auths"][credentials.HUB]
    assert entry == {"auth": base64.b64encode(b"u:").decode(), "identitytoken": "t"}
    assert credentials.Config().get(credentials.HUB)["identitytoken"] == "t"


def test_helpers_are_asked_on_stdin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = folder / "docker-credential-fake"
    helper.write_text(
        f"#!/bin/sh\ncat > {folder}/asked.$1\n"
        f'case $1 in get) grep -q good {folder}/asked.get || {{ echo "credentials not found in native keychain"; exit 1; }}; '
        'echo \'{"ServerURL":"good","Username":"<token>","Secret":"s"}\';; esac\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (folder / "config.json").write_text(json.dumps({"credsStore": "fake", "credHelpers": {"bad.example": "no/such"}}))

    assert credentials.Config().get("good.example") == {"identitytoken": "s", "serveraddress": "good.example"}
    assert credentials.Config().get("other.example") == {}
    credentials.Config().put("good.example", {"username": "u", "password": "p"})
    assert json.loads((folder / "asked.store").read_text()) == {"ServerURL": "good.example", "Username": "u", "Secret": "p"}
    assert credentials.Config().remove("good.example")
    with pytest.raises(Exit, match="invalid credential helper"):
        credentials.Config().get("bad.example")


@pytest.mark.parametrize(
    "text", ["[", "[1]", '{"auths": {"r.example": {"auth": "!"}}}', '{"auths": {"r.example": {"auth": "bm9jb2xvbg=="}}}']
)
def test_a_broken_file_is_told(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(Exit):
        credentials.Config().get("r.example")


@pytest.mark.parametrize(
    "broken",
    [
        {"credHelpers": {"private.example": "gone"}}, {"credHelpers": {"private.example": "../gone"}}, {"credsStore": "gone"},
        {"auths": {"private.example": {"auth": "!"}}},
    ],
)  # fmt: skip
def test_row_93_broken_settings_of_one_registry_are_an_error_and_send_nothing_anywhere(folder: Path, broken: object) -> None:
    hub = {credentials.HUB: {"auth": base64.b64encode(b"hub:secret").decode()}}
    assert isinstance(broken, dict)
    settings = {**broken, "auths": {**hub, **broken.get("auths", {})}}
    (folder / "config.json").write_text(json.dumps(settings))
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(folder / "sock"))
        daemon.listen()
        daemon.setblocking(False)
        command = [Path(sys.executable).with_name("sampan"), "-H", f"unix://{folder}/sock"]
        for words in (["pull", "private.example/app"], ["push", "private.example/app"]):
            done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=30, check=False)
            assert done.returncode == 1 and done.stderr.strip(), done
        with pytest.raises(BlockingIOError):
            daemon.accept()


def test_row_93_another_registry_never_gets_docker_hubs_credentials(folder: Path) -> None:
    hub = {credentials.HUB: {"auth": base64.b64encode(b"hub:secret").decode()}}
    (folder / "config.json").write_text(json.dumps({"auths": hub}))
    for image in ("private.example/app", "docker.io.example/app", "localhost/app", "docker.io:443/app", "index.docker.io.x/a"):
        assert json.loads(base64.urlsafe_b64decode(credentials.header(image))) == {}
    assert json.loads(base64.urlsafe_b64decode(credentials.header("app")))["password"] == "secret"


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("busybox", ("busybox", "")),
        ("busybox:1", ("busybox", "1")),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "")),
        ("localhost:5000/a/b:1", ("localhost:5000/a/b", "1")),
        ("a:1@sha256:ff", ("a", "sha256:ff")),
        ("h:5/a@sha256:ff", ("h:5/a", "sha256:ff")),
    ],
)
def test_names_are_taken_apart(image: str, wanted: tuple[str, str]) -> None:
    assert registry.split(image) == wanted


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("busybox", credentials.HUB),
        ("a/b", credentials.HUB),
        ("docker.io/a/b", credentials.HUB),
        ("ghcr.io/a", "ghcr.io"),
        ("localhost/a", "localhost"),
    ],
)
def test_the_key_is_the_registrys_host(image: str, wanted: str) -> None:
    assert credentials.registry_of(image) == wanted
