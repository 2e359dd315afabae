"""Building through the API: a context made of a dict, the messages taken apart."""

from __future__ import annotations

import http.server
import io
import json
import socket
import tarfile
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from support.daemon import Answer, Daemon

File = str | bytes | tuple[str, int] | tarfile.TarInfo


class Built:
    """An answer of /build.  text: the stream; steps: how each step ended ("cache", "run", "")."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.messages: list[dict[str, Any]] = []
        if answer.status == 200:
            self.messages = [json.loads(line) for line in answer.body.splitlines() if line]
        self.refusal = answer.json["message"] if answer.status >= 400 else ""
        self.text = "".join(message.get("stream", "") for message in self.messages)
        self.error = next((message["error"] for message in self.messages if "error" in message), self.refusal)
        found = [message["aux"]["ID"] for message in self.messages if "ID" in message.get("aux", {})]
        self.id: str = found[-1] if found else ""

    @property
    def ok(self) -> Built:
        assert self.id and not self.error, self.error or self.text
        return self

    @property
    def cached(self) -> int:
        return self.text.count(" ---> Using cache\n")


def context(files: Mapping[str, File], *, mtime: int = 1_700_000_000) -> bytes:
    """Return a tar: texts, (text, mode), or whole TarInfos; names that end in / are folders."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, file in files.items():
            if isinstance(file, tarfile.TarInfo):
                tar.addfile(file)
                continue
            content, mode = file if isinstance(file, tuple) else (file, 0o755 if name.endswith("/") else 0o644)
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.mode, entry.mtime, entry.uid, entry.gid = mode, mtime, 1234, 1234
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.size = 0 if name.endswith("/") else len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


def build(daemon: Daemon, text: str, files: Mapping[str, File] | None = None, /, **query: Any) -> Built:
    """Build and return what came of it.  Lists are repeated, dicts become JSON; __ in a name stands for -."""
    wanted = []
    for name, value in query.items():
        for one in value if isinstance(value, list) else [value]:
            wanted.append((name.replace("__", "-"), json.dumps(one) if isinstance(one, dict) else str(one)))
    body = context({"Dockerfile": text, **(files or {})})
    path = "/build?" + urllib.parse.urlencode(wanted)
    return Built(daemon.call("POST", path, body, headers={"Content-Type": "application/x-tar"}, timeout=120))


def before(daemon: Daemon, text: str, files: Mapping[str, File], told: dict[str, Any], *uploads: bytes, **query: Any) -> Built:
    """Build with what comes before the context: see sampan/build/prefix.py.  uploads: those that `told` lists."""
    head = json.dumps(told).encode()
    body = len(head).to_bytes(8, "big") + head
    for upload in uploads:
        for at in range(0, len(upload), 1000):
            body += len(upload[at : at + 1000]).to_bytes(4, "big") + upload[at : at + 1000]
        body += bytes(4)
    path = "/build?" + urllib.parse.urlencode([(k.replace("__", "-"), v) for k, v in query.items()], doseq=True)
    headers = {"Content-Type": "application/vnd.sampan.build"}
    return Built(daemon.call("POST", path, body + context({"Dockerfile": text, **files}), headers=headers, timeout=120))


def begin(daemon: Daemon, text: str) -> socket.socket:
    """Begin a build and return its connection; whoever closes it gives the build up."""
    body = context({"Dockerfile": text})
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(daemon.sock))
    client.sendall(b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return client


def until(client: socket.socket, words: bytes) -> None:
    """Read on until the words have come."""
    seen = b""
    while words not in seen:
        data = client.recv(65536)
        assert data, seen
        seen += data


@contextmanager
def web(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve HTTP on a port of 127.0.0.1, without a word."""
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def show(daemon: Daemon, image: str, command: str) -> str:
    """Return what a shell command prints in the image."""
    code, output = daemon.run("sh", "-c", command, image=image, Tty=False, Entrypoint=[])
    return f"{code}: {strip(output)}" if code else strip(output)


def strip(frames: bytes) -> str:
    """Return the text of multiplexed frames."""
    out, at = b"", 0
    while at + 8 <= len(frames):
        size = int.from_bytes(frames[at + 4 : at + 8], "big")
        out += frames[at + 8 : at + 8 + size]
        at += 8 + size
    return out.decode(errors="replace")


def config(daemon: Daemon, image: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.ok("GET", f"/images/{image}/json")
    return found
