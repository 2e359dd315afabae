"""The builder's benchmark: one Dockerfile of twenty steps, from nothing and all cached."""

from __future__ import annotations

import io
import json
import tarfile
import time

from peers import Peer, UnixHttp

UNCACHED, CACHED = "build of 20 steps, uncached, s", "build of 20 steps, all cached, s"
STEPS = (
    "FROM busybox", "ENV A=1 B=2", "WORKDIR /app", "COPY one.txt two.txt /app/", "RUN mkdir -p /data/x && echo 1 > /data/x/1",
    "RUN echo 2 > /data/2", "COPY tree /app/tree/", "RUN cp -r /app/tree /app/copy", "ARG V=3", "RUN echo $V > /app/v",
    "RUN adduser -D someone || true", "COPY one.txt /app/again.txt", "RUN rm -r /app/copy", "ENV C=3", "RUN ls /app > /app/list",
    "LABEL a=b", "RUN chown -R 1000:1000 /app", "EXPOSE 80", 'RUN ["/bin/sh", "-c", "test -d /data"]', 'CMD ["sh"]',
)  # fmt: skip


def context() -> bytes:
    """Return the context: twenty steps, forty files."""
    out = io.BytesIO()
    files = {"Dockerfile": "\n".join(STEPS) + "\n", "one.txt": "1" * 1000, "two.txt": "2" * 100_000}
    files |= {f"tree/{number % 7}/{number}.txt": str(number) * 500 for number in range(40)}
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(text), 1_700_000_000
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def build(peer: Peer) -> None:
    """Build without the cache, then twice with it."""
    body = context()
    for operation, query in ((UNCACHED, "nocache=1"), ("", ""), (CACHED, ""), (CACHED, "")):
        start = time.perf_counter()
        answer = peer.call(UnixHttp(peer.sock, 300), "POST", f"/build?t=bench&rm=1&{query}", body)
        if operation:
            peer.add(operation, time.perf_counter() - start)
        last = [json.loads(line) for line in answer.splitlines() if line]
        if any("error" in one for one in last):
            raise RuntimeError(f"{peer.name}: {last[-1]}")
