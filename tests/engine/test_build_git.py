"""Git repositories as sources and contexts, served by git-daemon; what a repository may not do (SECURITY.md row 67)."""

from __future__ import annotations

import base64
import http.server
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlencode

import pytest

from sampan.build.git import parse
from sampan.errors import InvalidRequest
from support.builds import Built, before, build, config, show, web
from support.daemon import Daemon
from support.ready import until_listening


def git(folder: Path, *words: str) -> str:
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    environment = {
        **os.environ,
        **names,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "file",
    }
    return subprocess.run(["git", *words], cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, Path]]:
    """A repository and the address it is served at."""
    if shutil.which("git") is None:
        pytest.skip("git is missing")
    import tempfile

    top = Path(tempfile.mkdtemp(prefix="sampantest-git-", dir="/var/tmp"))
    top.chmod(0o755)
    repository = top / "x.git"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main", ".")
    (repository / "Dockerfile").write_text("FROM busybox\nCOPY a /a\n")
    (repository / "a").write_text("main")
    (repository / "sub").mkdir()
    (repository / "sub/b").write_text("sub")
    (repository / "out").symlink_to("/etc")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "one")
    git(repository, "tag", "v1")
    (repository / "a").write_text("later")
    git(repository, "commit", "-qam", "two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    daemon = subprocess.Popen(
        ["git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--export-all", f"--base-path={top}", str(top)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
    )  # fmt: skip
    until_listening(port, daemon)
    yield f"git://127.0.0.1:{port}/x.git", repository
    daemon.terminate()
    daemon.wait()
    shutil.rmtree(top)


def test_add_takes_a_branch_a_tag_a_commit_and_a_folder(daemon: Daemon, served: tuple[str, Path]) -> None:
    address, repository = served
    commit = git(repository, "rev-parse", "v1")
    text = (
        f"FROM busybox\nADD {address} /head\nADD {address}#v1 /tag\nADD {address}#{commit} /commit\nADD {address}#main:sub /sub\n"
        f"ADD --checksum={commit} {address}#v1 /sum\n"
    )
    made = build(daemon, text).ok

    assert show(daemon, made.id, "cat /head/a /tag/a /commit/a /sub/b /sum/a") == "latermainmainsubmain"
    assert show(daemon, made.id, "stat -c %u /head/a; test -e /head/.git; echo $?") == "0\n1\n"
    assert "was expected" in build(daemon, f"FROM busybox\nADD --checksum={'0' * 40} {address} /x\n").error


def test_a_repository_is_a_context(daemon: Daemon, served: tuple[str, Path]) -> None:
    made = Built(daemon.call("POST", f"/build?remote={served[0]}%23v1&labels=%7B%22l%22:%221%22%7D")).ok

    assert show(daemon, made.id, "cat /a") == "main"
    assert config(daemon, made.id)["Config"]["Labels"] == {"l": "1"}


def test_a_repository_comes_with_its_git_folder_when_asked(daemon: Daemon, served: tuple[str, Path]) -> None:
    address, repository = served
    commit = git(repository, "rev-parse", "v1")
    made = build(daemon, f"FROM busybox\nADD --keep-git-dir=true {address}#v1 /kept\nADD {address}#v1 /bare\n").ok
    arguments = urlencode({"remote": f"{address}#v1", "buildargs": '{"BUILDKIT_CONTEXT_KEEP_GIT_DIR":"1"}'})
    context = Built(daemon.call("POST", f"/build?{arguments}")).ok

    assert show(daemon, made.id, "cat /kept/.git/HEAD; ls /kept/.git/hooks /bare/.git 2>&1 | grep -c 'No such'") == f"{commit}\n2\n"
    assert show(daemon, context.id, "cat /a") == "main"


class _Locked(http.server.BaseHTTPRequestHandler):
    """Notes who comes with which credentials; /away leads to another host."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((f"{self.headers['Host'].partition(':')[0]}{self.path}", self.headers.get("Authorization", "")))
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere")  # type: ignore[attr-defined]
            self.end_headers()
            return
        self.send_response(404 if ".git" in self.path else 200)
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, *words: object) -> None:
        return


def test_row_50_credentials_go_to_the_host_they_are_for(daemon: Daemon) -> None:
    with web(_Locked) as port:
        host = f"127.0.0.1:{port}"
        secrets = {f"HTTP_AUTH_TOKEN_{host}": "dG9rZW4=", f"GIT_AUTH_TOKEN.{host}": "Z2l0"}
        text = f"FROM busybox\nADD http://{host}/one /one\nADD http://{host}/away /two\nADD http://localhost:{port}/x /x\n"
        before(daemon, text, {}, {"secrets": secrets}).ok
        before(daemon, f"FROM busybox\nADD http://{host}/x.git /r\n", {}, {"secrets": secrets})
        before(daemon, f"FROM busybox\nADD http://localhost:{port}/x.git /r\n", {}, {"secrets": secrets})
        wrong = before(daemon, f"FROM busybox\nADD http://{host}/b /b\n", {}, {"secrets": {f"HTTP_AUTH_TOKEN_{host}": "YQpi"}})

    seen = dict(_Locked.seen)
    assert (seen["127.0.0.1/one"], seen["127.0.0.1/away"]) == ("Bearer token", "Bearer token")
    assert (seen["localhost/elsewhere"], seen["localhost/x"]) == ("", "")
    git_seen = {name.partition("?")[0]: given for name, given in seen.items() if "info/refs" in name}
    assert git_seen == {
        "127.0.0.1/x.git/info/refs": "basic " + base64.b64encode(b"x-access-token:git").decode(), "localhost/x.git/info/refs": ""
    }  # fmt: skip
    assert "one line of printable ASCII is expected" in wrong.error


def test_a_repository_is_a_named_context(daemon: Daemon, served: tuple[str, Path]) -> None:
    text = "FROM busybox\nCOPY --from=repo b /b\nRUN --mount=from=repo,target=/m ls -A /m\n"
    made = build(daemon, text, sampan__context=f"repo={served[0]}#main:sub").ok

    assert show(daemon, made.id, "cat /b") == "sub"


def test_row_67_a_folder_that_is_a_link_stays_inside(daemon: Daemon, served: tuple[str, Path]) -> None:
    made = build(daemon, f"FROM busybox\nADD {served[0]}#main:out /x\nRUN cat /x/passwd\n")

    assert not made.id
    assert "root:" not in made.text


def test_row_67_hooks_and_local_submodules_do_nothing(daemon: Daemon, served: tuple[str, Path], tmp_path: Path) -> None:
    address, repository = served
    hook = repository / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    hook.chmod(0o755)
    git(repository, "checkout", "-q", "-b", "evil")
    secret = tmp_path / "secret"
    secret.mkdir()
    git(secret, "init", "-q", ".")
    (secret / "s").write_text("SECRET")
    git(secret, "add", "-A")
    git(secret, "commit", "-qm", "s")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", f"file://{secret}", "module")
    git(repository, "commit", "-qm", "evil")
    git(repository, "checkout", "-q", "-f", "main")
    (tmp_path / "hooked").unlink(missing_ok=True)
    made = build(daemon, f"FROM busybox\nADD {address}#evil /x\nRUN cat /x/module/s\n")

    assert not made.id
    assert "SECRET" not in made.text
    assert not (tmp_path / "hooked").exists()


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/x.git", "/etc/x.git", "ext::sh -c id%.git", "git://-oProxyCommand=id/x.git", "ssh://h/-x.git", "git@-h:x.git",
        "https://h/x.git#--upload-pack=id", "https://h/x.git#-f", "https://h/x.git#a..b", "https://h/x.git#main:../..",
        "https://h/x.git?ref=--exec=id", "https://h/x.git?subdir=a/../../b", "https://h/x y.git", "https://h/x.git\n", "git://h",
    ],
)  # fmt: skip
def test_row_67_addresses_that_could_be_something_else_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)
