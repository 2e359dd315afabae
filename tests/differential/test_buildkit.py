"""The same Dockerfile for dockerd's own BuildKit (docker 20.10) and for Sampan: the same configuration, the same tree."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from test_builds import CASES, FILES, settings, tree
from test_builds import build as build_ours

from support.builds import context
from support.daemon import Daemon
from support.oracle import Oracle

CLIENT = "/usr/bin/docker"  # Debian's: the last that speaks BuildKit without a plugin
# What BuildKit knows and the classic builder does not.
MORE = {
    "copy chmod": "COPY --chmod=640 a /a\nCOPY --chmod=750 d /d\n",
    "copy from chown": (
        "RUN echo u:x:7:7::/:/bin/sh >> /etc/passwd && echo x > /f && chown u /f\nFROM busybox\nCOPY --from=0 /f /f\n"
        "COPY --from=0 --chown=9 /f /g\n"
    ),
    "mounts": (
        "RUN --mount=type=bind,target=/m cat /m/a > /o && ls /m/d > /p\n"
        "RUN --mount=type=cache,target=/c touch /c/x && echo y > /q\n"
        "RUN --mount=type=tmpfs,target=/t touch /t/x\n"
    ),
    "mount of a stage": (
        "RUN true\nFROM busybox AS s\nRUN echo 1 > /one\nFROM busybox\n"
        "RUN --mount=from=s,source=/one,target=/two cat /two > /three\n"
    ),
    "mount that writes": "RUN --mount=target=/m,rw echo z > /m/new && cat /m/new > /o\n",
    "mount in a new folder": "RUN --mount=type=tmpfs,target=/x/y/z true\nRUN ls -d /x || echo none > /o\n",
    "secret that is absent": "RUN --mount=type=secret,id=s test ! -e /run/secrets/s && echo none > /o\n",
    "unneeded stage": "RUN exit 1\nFROM busybox\nCMD x\n",
    "platform arguments": "ARG TARGETARCH\nARG TARGETOS\nRUN echo $TARGETOS $TARGETARCH > /o\nENV P=$TARGETARCH\n",
    "global arguments": "ARG V=inner\nENV F=$V\n",
    "healthcheck again": 'HEALTHCHECK --start-period=1m30s CMD ["test", "-e", "/a"]\nHEALTHCHECK --retries=9 CMD true\n',
    "workdir of a number": "USER 7:8\nWORKDIR /tmp/w\n",
    "archive into a new folder": "ADD --chown=user inner.tar /x/\n",
    "workdir of a user": "RUN echo u:x:7:7::/:/bin/sh >> /etc/passwd\nUSER u\nWORKDIR /mine/deep\n",
}
# Where they differ, exactly there: keys of the configuration or paths, and why that stays.
DIFFERENT = {
    "scratch": ({"WorkingDir"}, "BuildKit writes /, the classic builder and Sampan nothing, which means /"),
    "copy from chown": ({"f"}, "BuildKit keeps the owner in the other stage; the classic builder and Sampan give it to root"),
    "mounts": ({"m", "c"}, "BuildKit of 20.10 leaves mount points in the layer; its successors and Sampan do not"),
    "mount that writes": ({"m"}, "likewise"),
}


@pytest.fixture(scope="module", autouse=True)
def _client() -> None:
    done = subprocess.run([CLIENT, "version", "--format", "{{.Client.Version}}"], capture_output=True, text=True, check=False)
    if not done.stdout.startswith("20."):
        pytest.skip(f"{CLIENT} 20.10, which has a BuildKit client of its own, is missing")


def buildkit(oracle: Oracle, text: str, folder: Path) -> tuple[str, str]:
    """Return the image's ID, and what was said."""
    inner = context({"in/x": "X", "in/run": ("r", 0o755)})
    body = context({"Dockerfile": text, **FILES, "inner.tar": inner, "inner.tar.gz": gzip.compress(inner, mtime=0)})
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        tar.extractall(folder, filter="tar")
    done = subprocess.run(
        [CLIENT, "-H", oracle.host, "build", "-q", "--build-arg", "W=given", "--label", "asked=for", folder],
        capture_output=True, text=True, check=False, env={**os.environ, "DOCKER_BUILDKIT": "1", "DOCKER_CONFIG": "/nonexistent"},
    )  # fmt: skip
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("name", [*CASES, *MORE])
def test_buildkit_builds_the_same(sampan: Daemon, oracle: Oracle, name: str, tmp_path: Path) -> None:
    text = "FROM busybox\n" + (CASES | MORE)[name]
    theirs, said = buildkit(oracle, text, tmp_path)
    ours = build_ours(sampan.sock, text)

    assert theirs, said
    assert ours.id, ours.error
    found = differing(settings(sampan.sock, ours.id), settings(oracle.sock, theirs))
    found |= differing(tree(sampan.sock, ours.id), tree(oracle.sock, theirs))
    expected, _ = DIFFERENT.get(name, (set(), ""))
    assert found == expected


def differing(ours: Mapping[str, object], theirs: Mapping[str, object]) -> set[str]:
    return {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)}
