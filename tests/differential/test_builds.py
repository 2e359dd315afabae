"""The same Dockerfile for dockerd's classic builder and for Sampan: the same configuration, the same tree."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from support.builds import Built, context, link
from support.daemon import Answer, Daemon, UnixHttp
from support.oracle import Oracle

FILES = {
    "a": "A", "b": ("B", 0o755), "d/x": "X", "d/sub/y": "Y", "d/l": link("d/l", "sub/y"), "d/empty/": "",
    "one.txt": "1", "two.txt": "2", "sp ace": "S",
}  # fmt: skip
CASES = {
    "metadata": "ENV A=1 B=\"x y\"\nLABEL l=$A\nEXPOSE 80 53/udp 7000-7002\nUSER user\nVOLUME /v\nSTOPSIGNAL SIGINT\nCMD echo hi\n",
    "entrypoint resets cmd": 'CMD ["own"]\nENTRYPOINT ["e"]\n',
    "entrypoint alone": 'ENTRYPOINT ["e", "$A"]\n',
    "healthcheck": "HEALTHCHECK --interval=5s --timeout=3s --retries=2 CMD test -e /a || exit 1\n",
    "healthcheck none": "HEALTHCHECK NONE\n",
    "shell": 'SHELL ["/bin/sh", "-ec"]\nRUN echo $0 > /o\nCMD x\n',
    "onbuild": "ONBUILD RUN echo $A\nONBUILD COPY . /x\n",
    "workdir": "WORKDIR /w\nWORKDIR x/../y\nRUN pwd > here\n",
    "workdir through a link": "RUN ln -s /real /lnk && mkdir /real\nWORKDIR /lnk/sub\nRUN echo x > f\n",
    "environment": "ENV A=1\nENV A=2 B=$A\nENV C=${B:-no} D=${NO:-dd} E=${A:+alt}\nRUN echo $A$B$C$D$E > /o\n",
    "arguments": "ARG V=1\nARG W\nENV F=$V\nRUN echo $V-$W > /o\n",
    "copy a file": "COPY a /f\nCOPY a /g/\nCOPY a /etc\nCOPY b /b\n",
    "copy a folder": "COPY d /d\nCOPY d /e/\nCOPY d/ /etc/d\n",
    "copy everything": "COPY . /all/\n",
    "copy wildcards": "COPY *.txt /t/\nCOPY d/s* /s/\n",
    "copy json": 'COPY ["sp ace", "/with space/"]\n',
    "copy over": "COPY d /d\nCOPY a /d/x\nRUN cat /d/x > /o\n",
    "copy through links": "RUN mkdir /real && ln -s /real /l && ln -s /etc/new /f\nCOPY a /l/\nCOPY d /l/d\n",
    "copy chown": "COPY --chown=user:extra a /a\nCOPY --chown=1:2 d /d\nCOPY --chown=user b /b\n",
    "copy relative": "WORKDIR /w/x\nCOPY a .\nCOPY a ./n/\nCOPY a ../up\n",
    "remove and replace": "RUN rm -r /tmp && mkdir /tmp && echo x > /tmp/y && rm /etc/group && ln -s passwd /etc/group\n",
    "modes": "RUN mkdir -m 700 /p && touch /s && chmod 4755 /s && mknod /fifo p && ln /s /hard\n",
    "users": "USER user\nRUN id -u > /tmp/id && touch /tmp/mine\nUSER 0:5\nRUN id -g > /tmp/g\n",
    "heredoc free text": "RUN echo '<''<EOF' > /o\n",
    "comments": "# one\nRUN echo a && \\\n  # two\n  echo b > /o\n",
    "stages": "RUN echo 1 > /one\nFROM busybox AS two\nCOPY --from=0 /one /two\nFROM two\nCOPY --from=two /two /three\nENV Z=1\n",
    "scratch": "RUN echo 1 > /one\nFROM scratch\nCOPY --from=0 /one /\nCMD [\"/one\"]\n",
    "volume then write": "RUN mkdir /v && echo 1 > /v/kept\nVOLUME /v\n",
    "label merge": "LABEL a=1 b=2\nLABEL b=3 \"c d\"=e\n",
    "legacy pairs": "ENV A b c\nLABEL L m n\n",
    "maintainer": "MAINTAINER me\n",
    "add an archive": "ADD inner.tar /x/\nADD inner.tar.gz /y/\nADD a /z/\n",
}  # fmt: skip


def ask(sock: Path, method: str, path: str, body: Any = None, kind: str = "application/json") -> Answer:
    connection = UnixHttp(sock, 120)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": kind} if data is not None else {})
    reply = connection.getresponse()
    answer = Answer(reply.status, reply.headers, reply.read())
    connection.close()
    return answer


def build(sock: Path, text: str) -> Built:
    inner = context({"in/x": "X", "in/run": ("r", 0o755)})
    files = {**FILES, "inner.tar": inner, "inner.tar.gz": gzip.compress(inner, mtime=0)}
    body = context({"Dockerfile": text, **files})
    query = "buildargs=%7B%22W%22:%22given%22%7D&labels=%7B%22asked%22:%22for%22%7D&rm=1"
    return Built(ask(sock, "POST", f"/build?{query}", body, "application/x-tar"))


def settings(sock: Path, image: str) -> dict[str, Any]:
    found = ask(sock, "GET", f"/images/{image}/json").json
    keys = ("User", "ExposedPorts", "Env", "Cmd", "Volumes", "WorkingDir", "Entrypoint", "OnBuild", "Labels", "StopSignal",
            "Healthcheck", "Shell")  # fmt: skip
    made = {key: found["Config"].get(key) or None for key in keys}
    return {**made, "Author": found.get("Author", ""), "Architecture": found["Architecture"]}


def tree(sock: Path, image: str) -> dict[str, tuple[object, ...]]:
    """Return the files of an image: kind, mode, owner, link, content."""
    container = ask(sock, "POST", "/containers/create", {"Image": image, "Cmd": ["x"], "Entrypoint": []}).json["Id"]
    try:
        exported = ask(sock, "GET", f"/containers/{container}/export").body
    finally:
        ask(sock, "DELETE", f"/containers/{container}?v=1")
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        for entry in tar:
            name = entry.name.strip("/")
            if name.split("/")[0] in ("dev", "proc", "sys", ".dockerenv", "") or name in (
                "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "etc"
            ):  # fmt: skip
                continue
            file = tar.extractfile(entry) if entry.isreg() else None
            content = hashlib.sha256(file.read()).hexdigest()[:12] if file else ""
            kind = entry.type if not entry.islnk() else b"hard"
            found[name] = (kind, oct(entry.mode & 0o7777), entry.uid, entry.gid, entry.linkname, content)
    return found


@pytest.mark.parametrize("name", CASES)
def test_dockerd_builds_the_same(sampan: Daemon, oracle: Oracle, name: str) -> None:
    text = "FROM busybox\n" + CASES[name]
    theirs, ours = build(oracle.sock, text), build(sampan.sock, text)

    assert theirs.id, theirs.error
    assert ours.id, ours.error
    assert settings(sampan.sock, ours.id) == settings(oracle.sock, theirs.id)
    assert tree(sampan.sock, ours.id) == tree(oracle.sock, theirs.id)


REFUSED = {
    "unknown instruction": "FROM busybox\nRUM x\n",
    "missing file": "FROM busybox\nCOPY nothing /x\n",
    "failing command": "FROM busybox\nRUN exit 3\n",
    "several to a file": "FROM busybox\nCOPY a b /x\n",
    "copy to one": "FROM busybox\nCOPY a\n",
    "no stage": "RUN x\n",
    "bad env": "FROM busybox\nENV a=b c\n",
    "bad chown": "FROM busybox\nCOPY --chown=nobodyknows a /x\n",
    "onbuild chained": "FROM busybox\nONBUILD ONBUILD RUN x\n",
    "shell form of shell": "FROM busybox\nSHELL /bin/sh\n",
    "healthcheck": "FROM busybox\nHEALTHCHECK FOO x\n",
    "from with too much": "FROM busybox AS x y\n",
    "empty": "",
    "missing image": "FROM no.such.registry.invalid/x:1\n",
    "open quote": 'FROM busybox\nENV A="x\n',
    "unknown flag": "FROM busybox\nCOPY --wat=1 a /x\n",
    "bad signal": "FROM busybox\nSTOPSIGNAL NOSUCH\n",
    "bad port": "FROM busybox\nEXPOSE x\n",
    "unsupported modifier": "FROM busybox\nENV A=${B:=x}\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_dockerd_refuses_the_same(sampan: Daemon, oracle: Oracle, name: str) -> None:
    theirs, ours = build(oracle.sock, REFUSED[name]), build(sampan.sock, REFUSED[name])

    assert theirs.error
    assert ours.error
    assert not ours.id
