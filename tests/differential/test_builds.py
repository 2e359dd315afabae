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
    ".hidden": "h", "one.txt": "1", "two.txt": "2", "sp ace": "S",
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
    "add with an owner": "ADD --chown=user inner.tar /tmp/\nADD --chown=7:8 d /y\nADD *.txt /z/\n",
    "onbuild of a stage": (
        "RUN true\nFROM busybox AS s\nONBUILD ENV T=1\nONBUILD RUN echo $T > /o\nONBUILD COPY a /a\nFROM s\nRUN cat /o > /p\n"
    ),
    "path": "ENV PATH=/own:$PATH\nRUN echo $PATH > /o\n",
    "run a list": 'RUN ["/bin/sh", "-c", "echo $0 $HOME > /o", "zero"]\nRUN ["touch", "/with space"]\n',
    "expose variables": 'ARG R=7000-7002\nENV P="80 81"\nEXPOSE $R $P 9/UDP\n',
    "volumes": 'VOLUME ["/a", "/b c"]\nVOLUME /d /e\n',
    "quotes": 'LABEL "a b"="c \\"d\\"" e=\'f $g\' h=i\\ j\nENV A="x\\ty" B=\'$A\' C=a\\$b D=\n',
    "stopsignal number": "STOPSIGNAL 9\n",
    "entrypoint in shell form": "ENTRYPOINT exec top -b\nCMD [\"ignored\"]\n",
    "commands again": 'CMD ["a"]\nCMD b\nENTRYPOINT ["c"]\nENTRYPOINT []\nCMD []\n',
    "healthcheck exec": 'HEALTHCHECK --start-period=1m30s CMD ["test", "-e", "/a"]\n',
    "copy one to a new name": "COPY a /new/deep/name\nCOPY d/sub /n\nCOPY d/sub/y d/x /two/\n",
    "copy hidden and short names": "COPY .h* /h/\nCOPY ? /q/\nCOPY d/[a-x] /r/\n",
    "copy a link": "COPY d/l /f\nCOPY d/ /e/\nRUN cat /e/l > /o\n",
    "owners and links": "RUN touch /x && chown 5:6 /x && ln /x /y && ln -s x /z && chown -h 7 /z\nRUN rm /x\n",
    "folders come and go": (
        "RUN mkdir -p /p/q && touch /p/q/r\nRUN rm -r /p/q && mkdir /p/q && touch /p/q/s\nRUN rm -r /p && touch /p\n"
    ),
    "user of a number": "USER 7:8\nRUN id -u > /tmp/u; id -g > /tmp/g; touch /tmp/f\n",
    "onbuild kept and merged": "ONBUILD ENV A=1\nONBUILD LABEL b=$A\nLABEL c=d\n",
    "arguments and variables": "ARG A=1\nENV B=$A\nARG A=2\nENV C=$A\nENV A=3\nENV D=$A\nRUN echo $A > /o\n",
    "substitutions": "ENV A=x\nENV B=${A:+y} C=${N:+y} D=${N:-${A}z} E=\\${A} F=${A}b G=$N\n",
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
    "no arguments": "FROM busybox\nRUN\n",
    "two words to workdir": "FROM busybox\nWORKDIR\n",
    "volume of nothing": 'FROM busybox\nVOLUME [""]\n',
    "onbuild of from": "FROM busybox\nONBUILD FROM busybox\n",
    "onbuild of maintainer": "FROM busybox\nONBUILD MAINTAINER me\n",
    "bad escape": "# escape=x\nFROM busybox\n",
    "bad stage name": "FROM busybox AS 1x\n",
    "copy from an unknown stage": "FROM busybox\nCOPY --from=no.such.registry.invalid/x /a /b\n",
    "copy from itself": "FROM busybox AS a\nCOPY --from=a /a /b\n",
    "outside of the context": "FROM busybox\nCOPY ../nothing /x\n",
    "wildcard of nothing": "FROM busybox\nCOPY *.none /x/\n",
    "folder onto a file": "FROM busybox\nRUN touch /x\nCOPY d /x/\n",
    "unknown user": "FROM busybox\nUSER nobodyknows\nRUN true\n",
    "bad interval": "FROM busybox\nHEALTHCHECK --interval=1 CMD true\n",
    "label without a value": "FROM busybox\nLABEL a\n",
    "arg without a name": "FROM busybox\nARG =x\n",
    "port too large": "FROM busybox\nEXPOSE 70000\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_dockerd_refuses_the_same(sampan: Daemon, oracle: Oracle, name: str) -> None:
    theirs, ours = build(oracle.sock, REFUSED[name]), build(sampan.sock, REFUSED[name])

    assert theirs.error
    assert ours.error
    assert not ours.id
