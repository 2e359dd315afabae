"""Downloading a blob into something that keeps what has come: broken connections are taken up where they broke."""

from __future__ import annotations

from typing import Protocol

from sampan.oci.digest import Digest
from sampan.registry.faults import Interrupted
from sampan.registry.repository import Repository


class Sink(Protocol):
    """Where a blob goes.  size: bytes that are there already, from an earlier try perhaps."""

    @property
    def size(self) -> int: ...
    async def write(self, data: bytes) -> None: ...


async def download(repository: Repository, digest: Digest, size: int, sink: Sink) -> None:
    """Fetch what `sink` lacks of the blob.  The sink verifies; here only the length is watched.

    A transfer that goes on is never given up; one that gains nothing is, after as many attempts as a request gets.
    Raises Interrupted, Missing, AccessDenied, InvalidRequest when it is longer than `size`.
    """
    session = repository.session
    failures = 0
    while sink.size < size:
        before = sink.size
        try:
            async with await repository.blob(digest, size, before) as stream:
                async for data in stream.chunks():
                    await sink.write(data)
        except Interrupted as error:
            failures = 0 if sink.size > before else failures + 1
            if failures >= session.timing.attempts:
                raise
            await session.pause(min(failures, 5), error.after)
