"""Registries for tests: one of our own that misbehaves as told and counts what it sends, and Debian's docker-registry."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import itertools
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.ready import until_listening

OCI = "application/vnd.oci.image."
MANIFEST, INDEX, CONFIG, LAYER = f"{OCI}manifest.v1+json", f"{OCI}index.v1+json", f"{OCI}config.v1+json", f"{OCI}layer.v1.tar+gzip"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def descriptor(kind: str, content: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(content), "size": len(content), **more}


def config_of(*layers: bytes, architecture: str = "amd64", **more: Any) -> bytes:
    value = {
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}, **more,
    }  # fmt: skip
    return json.dumps(value).encode()


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Made:
    """An image in the registry."""

    manifest: bytes
    config: bytes
    blobs: list[bytes] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return digest(self.manifest)


Hook = Callable[["Handler"], bool]


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


class Registry:
    """A registry on a loopback port.  hooks: asked first for each request; True means answered.

    sent: bytes of each blob that went out; user: (name, password) wanted; auth: "", "basic", "bearer".
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.numbers = itertools.count()
        self.log: list[Seen] = []
        self.sent: Counter[str] = Counter()
        self._went = threading.Condition()
        self.hooks: list[Hook] = []
        self.auth = ""
        self.user = ("user", "secret")
        self.realm = ""
        self.scheme = "https" if context else "http"
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.registry = self  # type: ignore[attr-defined]
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, content: bytes) -> str:
        self.blobs[digest(content)] = content
        return digest(content)

    def put(self, repository: str, content: bytes, kind: str, *tags: str) -> str:
        for reference in (digest(content), *tags):
            self.manifests[repository, reference] = (kind, content)
        return digest(content)

    def image(
        self, repository: str, tag: str, *layers: bytes, config: bytes | None = None, kind: str = MANIFEST,
        pack: Callable[[bytes], bytes] = lambda data: gzip.compress(data, 1, mtime=0), layer_type: str = LAYER, **more: Any,
    ) -> Made:  # fmt: skip
        """Put an image of plain layer tars."""
        blobs = [pack(layer) for layer in layers]
        config = config_of(*layers) if config is None else config
        for blob in (*blobs, config):
            self.add(blob)
        body = {
            "schemaVersion": 2, "mediaType": kind, "config": descriptor(CONFIG, config),
            "layers": [descriptor(layer_type, blob) for blob in blobs], **more,
        }  # fmt: skip
        manifest = json.dumps(body).encode()
        self.put(repository, manifest, kind, tag)
        return Made(manifest, config, blobs)

    def index(self, repository: str, tag: str, *manifests: dict[str, Any]) -> bytes:
        content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}).encode()
        self.put(repository, content, INDEX, tag)
        return content

    def went(self, name: str, size: int) -> None:
        """Count bytes of a blob that went out."""
        with self._went:
            self.sent[name] += size
            self._went.notify_all()

    def until_sent(self, name: str, size: int, patience: float = 30) -> None:
        """Wait until so many bytes of a blob have gone out."""
        with self._went:
            assert self._went.wait_for(lambda: self.sent[name] >= size, patience), (self.sent[name], size)

    def asked(self, method: str, part: str) -> list[Seen]:
        return [seen for seen in self.log if seen.method == method and part in seen.path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    @property
    def registry(self) -> Registry:
        return self.server.registry  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *_: object) -> None:
        return

    def reply(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def error(self, status: int, code: str, message: str = "no", **headers: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message, "detail": {}}]}).encode()
        self.reply(status, body, Content_Type="application/json", **headers)

    def cut(self) -> None:
        """End the connection here and now."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def serve(self) -> None:
        self.registry.log.append(Seen(self.command, self.path, dict(self.headers)))
        if any(hook(self) for hook in list(self.registry.hooks)):
            return
        if self.path.startswith("/token"):
            self.token()
        elif self.authorised():
            self.route()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = serve

    def authorised(self) -> bool:
        """Ask for what the registry wants, unless it came."""
        given, registry = self.headers.get("Authorization", ""), self.registry
        wanted = {"": "", "basic": basic(*registry.user), "bearer": "Bearer good"}[registry.auth]
        if not wanted or given == wanted:
            return True
        realm = registry.realm or f"{registry.scheme}://{registry.host}/token"
        challenge = f'Bearer realm="{realm}",service="tests"' if registry.auth == "bearer" else 'Basic realm="tests"'
        if self.command in ("POST", "PUT", "PATCH"):
            self.body()
        self.error(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=challenge)
        return False

    def token(self) -> None:
        given = self.headers.get("Authorization", "")
        form = parse_qs(self.body().decode()) if self.command == "POST" else {}
        right = given == basic(*self.registry.user) or form.get("refresh_token") == ["refresh"]
        if not right:
            self.error(401, "UNAUTHORIZED", "incorrect username or password")
            return
        answer = {"token": "good", "expires_in": 300}
        if "offline_token" in self.path:
            answer["refresh_token"] = "refresh"
        self.reply(200, json.dumps(answer).encode(), Content_Type="application/json")

    def route(self) -> None:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/v2/")
        if not path:
            self.reply(200, b"{}")
        elif "/manifests/" in path:
            self.manifest(*path.split("/manifests/"))
        elif path.endswith("/tags/list"):
            self.tags(path.removesuffix("/tags/list"), parse_qs(parts.query))
        elif "/blobs/uploads" in path:
            self.upload(path.split("/blobs/uploads")[0], path.rpartition("/")[2], parse_qs(parts.query))
        elif "/blobs/" in path:
            self.blob(path.split("/blobs/")[1])
        else:
            self.error(404, "UNSUPPORTED")

    def manifest(self, repository: str, reference: str) -> None:
        if self.command == "PUT":
            kind, content = self.headers["Content-Type"], self.body()
            self.registry.put(repository, content, kind, *([] if ":" in reference else [reference]))
            self.reply(201, Docker_Content_Digest=digest(content), Location="/x")
            return
        found = self.registry.manifests.get((repository, reference))
        if found is None:
            self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        else:
            self.reply(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest(found[1]))

    def tags(self, repository: str, query: dict[str, list[str]]) -> None:
        """Two a page."""
        tags = sorted(tag for name, tag in self.registry.manifests if name == repository and ":" not in tag)
        if not tags:
            self.error(404, "NAME_UNKNOWN", "repository name not known to registry")
            return
        last = query.get("last", [""])[0]
        page = [tag for tag in tags if tag > last][:2]
        more = {"Link": f'</v2/{repository}/tags/list?last={page[-1]}>; rel="next"'} if page and page[-1] != tags[-1] else {}
        self.reply(200, json.dumps({"name": repository, "tags": page}).encode(), Content_Type="application/json", **more)

    def blob(self, name: str) -> None:
        content = self.registry.blobs.get(name)
        if content is None:
            self.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
            return
        start = self.range()
        status, headers = (206, {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}) if start else (200, {})
        if self.command == "GET":
            self.registry.went(name, len(content) - start)
        self.reply(status, content[start:], Docker_Content_Digest=name, **headers)

    def range(self) -> int:
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))

    def upload(self, repository: str, name: str, query: dict[str, list[str]]) -> None:
        registry = self.registry
        if self.command == "POST":
            self.body()
            if query.get("mount", [""])[0] in registry.blobs:
                self.reply(201, Location="/x")
                return
            name = f"u{next(registry.numbers)}"
            registry.uploads[name] = b""
            self.reply(202, Location=f"/v2/{repository}/blobs/uploads/{name}?state=1", Range="0-0")
            return
        if name not in registry.uploads:
            self.body()
            self.error(404, "BLOB_UPLOAD_UNKNOWN")
            return
        if self.command in ("PATCH", "PUT"):
            registry.uploads[name] += self.body()
        end = max(0, len(registry.uploads[name]) - 1)
        if self.command != "PUT":
            status = 204 if self.command == "GET" else 202
            self.reply(status, Location=f"/v2/{repository}/blobs/uploads/{name}?state=2", Range=f"0-{end}")
            return
        content = registry.uploads.pop(name)
        if digest(content) != query["digest"][0]:
            self.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            return
        registry.add(content)
        self.reply(201, Location="/x", Docker_Content_Digest=digest(content))


def basic(user: str, password: str) -> str:
    import base64

    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Authority:
    """A certificate authority of a test's own, made with openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                  "-subj", "/CN=tests",
                  "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def issue(self, name: str, names: str, *, days: int = 2) -> tuple[Path, Path]:
        """Return (certificate, key) for subjectAltName `names`; days < 0 has expired."""
        self._run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                  "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        (self.folder / "ext").write_text(f"subjectAltName={names}\n")
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                  "-days", str(days), "-extfile", "ext", "-out", f"{name}.crt")  # fmt: skip
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def context(self, name: str, names: str, *, days: int = 2, clients: bool = False) -> ssl.SSLContext:
        """Return a server's context; with `clients` only those with a certificate of this authority get in."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(*self.issue(name, names, days=days))
        if clients:
            made.verify_mode = ssl.CERT_REQUIRED
            made.load_verify_locations(self.certificate)
        return made

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


# "user" with the password "secret", by bcrypt.
HTPASSWD = "user:$2b$05$VTZP3ZwTqei8PSBRBSpy6.iGZuh/a37i0L4XQ2BOQWVjtb5gcaPLy"


class DebianRegistry:
    """docker-registry on a loopback port, with a folder of its own."""

    def __init__(self, *, password: bool = False, tls: tuple[Path, Path] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sampanreg-", dir="/var/tmp"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.host = f"127.0.0.1:{self.port}"
        lines = [
            "version: 0.1",
            "log: {level: error, accesslog: {disabled: true}}",
            "storage:",
            "  delete: {enabled: true}",
            f"  filesystem: {{rootdirectory: {self.folder}/data}}",
            "http:",
            f"  addr: {self.host}",
            "  secret: tests",
        ]
        if tls:
            lines.append(f"  tls: {{certificate: {tls[0]}, key: {tls[1]}}}")
        if password:
            (self.folder / "htpasswd").write_text(HTPASSWD + "\n")
            lines.append(f"auth: {{htpasswd: {{realm: tests, path: {self.folder}/htpasswd}}}}")
        (self.folder / "config.yml").write_text("\n".join(lines) + "\n")
        self._log = open(self.folder / "log", "wb")  # noqa: SIM115
        self._process = subprocess.Popen(
            ["docker-registry", "serve", str(self.folder / "config.yml")], stdout=self._log, stderr=self._log, env={}
        )
        until_listening(self.port, self._process)

    def manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """Return (digest, content) of a manifest as it is stored."""
        connection = http.client.HTTPConnection(self.host, timeout=10)
        accept = ", ".join((MANIFEST, INDEX, DOCKER, "application/vnd.docker.distribution.manifest.list.v2+json"))
        connection.request("GET", f"/v2/{repository}/manifests/{reference}", headers={"Accept": accept})
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        assert reply.status == 200, content
        return digest(content), content

    def __enter__(self) -> DebianRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


PIECE = 1 << 18


def begun(handler: Handler) -> tuple[str, bytes, int]:
    """Answer the head of a blob's GET; return its digest, its content and where to go on."""
    name = handler.path.rpartition("/")[2]
    content, start = handler.registry.blobs[name], handler.range()
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    return name, content, start


def paced(handler: Handler) -> bool:
    """For `hooks`: layers in small pieces, from where they are asked for: what happens to their reader finds them under way."""
    if handler.command != "GET" or "/blobs/" not in handler.path or handler.path.rpartition("/")[2] not in handler.registry.blobs:
        return False
    name, content, start = begun(handler)
    try:
        for at in range(start, len(content), PIECE):
            handler.wfile.write(content[at : at + PIECE])
            handler.registry.went(name, len(content[at : at + PIECE]))
            time.sleep(0.01)  # the pace itself
    except OSError:
        handler.close_connection = True
    return True
