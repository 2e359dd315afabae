"""Create, start, inspect and resize execs; finished ones are kept for a while."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import time

import msgspec
from msgspec import UNSET, structs

from sampan import messages as m
from sampan.engine import spec, spec_security
from sampan.engine.containers.attach import Stream
from sampan.engine.containers.container import Container
from sampan.engine.containers.containers import Containers
from sampan.engine.containers.start import exit_code_of, words_of
from sampan.errors import Conflict, InvalidRequest, NotFound
from sampan.oci.runtime import Box
from sampan.wire import execs as e

KEPT = 600.0  # seconds that a finished exec can be inspected, and that one may wait to be started
MOST = 4096  # execs that do not run are remembered, the newest ones
_SWEEP = 10.0
PROBE = b"health"  # the note of a health check's exec
_LONGEST_NOTE = 16 << 10  # bytes that a keeper is given to remember of an exec


class Exec:
    """One exec."""

    def __init__(self, container: Container, body: e.ExecCreate, execs: Execs, name: str = "") -> None:
        self.id = name or secrets.token_hex(32)
        self.created_at = time.monotonic()
        self.container = container
        self.body = body
        self.started = False
        self.probe = False  # of a health check
        self.pid = 0
        self.exit_code: int | None = None
        self.stream: ExecStream | None = None
        self.over = asyncio.Event()
        self.ready = asyncio.Event()
        self.ended_at = 0.0
        self._execs = execs

    @property
    def running(self) -> bool:
        return self.pid > 0 and self.exit_code is None

    def ended(self, status: int) -> None:
        """It has exited, or could not start."""
        if self.exit_code is None:
            self.exit_code, self.ended_at = status, time.monotonic()
            self.over.set()
            if self.pid:
                self.container.emit("exec_die", execID=self.id, exitCode=str(status))

    def forget(self) -> None:
        self._execs.all.pop(self.id, None)
        self.container.execs.pop(self.id, None)
        self.over.set()


class ExecStream(Stream):
    """Remembers whether its output had ended when the client's connection was closed."""

    saw_end = False
    exec_id = ""

    def detached(self) -> None:
        self._container.emit("exec_detach", execID=self.exec_id)

    def close(self) -> None:
        try:
            self.saw_end = self._near.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except OSError:
            pass
        super().close()


class Execs:
    """api/backend.py Execs."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self.all: dict[str, Exec] = {}
        self._swept_at = 0.0

    def find(self, exec_id: str) -> Exec:
        found = self.all.get(exec_id)
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def adopt(self, container: Container, status: m.Status) -> None:
        """Take over the execs that a keeper knows and this daemon does not: those of the daemon before."""
        for name, note in status.exec_notes.items():
            if name in self.all or not (name in status.execs or name in status.exec_statuses):
                continue
            if note == PROBE:  # nobody waits for its result any more
                if name in status.execs and container.keeper is not None:
                    with contextlib.suppress(OSError):
                        container.keeper.send(m.Signal(exec_id=name, number=signal.SIGKILL, group=True))
                continue
            try:
                body = msgspec.json.decode(note, type=e.ExecCreate) if note else e.ExecCreate()
            except msgspec.DecodeError:
                body = e.ExecCreate()
            made = Exec(container, body, self, name)
            made.started, made.pid = True, status.execs.get(name, 0)
            made.ready.set()
            self.all[name] = container.execs[name] = made
            if name in status.exec_statuses:
                made.ended(status.exec_statuses[name])

    @staticmethod
    def _check(container: Container) -> None:
        record = container.record
        if not record.running:
            raise Conflict(f"container {record.id} is not running")
        if record.paused:
            raise Conflict(f"container {record.name} is paused, unpause the container before exec")

    async def create(self, ref: str, body: e.ExecCreate) -> e.ExecCreated:
        container = self._containers.find(ref)
        self._check(container)
        if not body.cmd:
            raise InvalidRequest("No exec command specified")
        for word in (*body.cmd, *(body.env or ())):
            if "\0" in word:
                raise InvalidRequest("an exec's word holds a NUL")
        if body.working_dir and not body.working_dir.startswith("/"):
            raise InvalidRequest(f"working directory {body.working_dir[:64]!r} must be absolute")
        self._collect()
        made = Exec(container, body, self)
        self.all[made.id] = container.execs[made.id] = made
        container.emit(f"exec_create: {' '.join(body.cmd)}", execID=made.id)
        return e.ExecCreated(id=made.id)

    def _collect(self) -> None:
        """Forget execs that do not run: old ones, and the oldest when there are too many."""
        now = time.monotonic()
        if now - self._swept_at < _SWEEP and len(self.all) < MOST * 2:
            return
        self._swept_at = now
        idle = [one for one in self.all.values() if one.ended_at or not one.started]
        for number, found in enumerate(idle):
            if now - (found.ended_at or found.created_at) > KEPT or number < len(idle) - MOST:
                found.forget()

    async def prepare(self, exec_id: str) -> None:
        found = self.find(exec_id)
        self._check(found.container)

    async def start(self, exec_id: str, body: e.ExecStart) -> ExecStream | None:
        made = self.find(exec_id)
        container = made.container
        self._check(container)
        if made.started:
            raise Conflict(f"exec command {exec_id} has already run")
        made.started = True
        keeper = container.keeper
        if keeper is None:
            raise Conflict(f"container {container.id} is not running")
        near: socket.socket | None = None
        far: socket.socket | None = None
        attachments: tuple[m.Attachment, ...] = ()
        wanted = made.body
        if not body.detach:
            near, far = socket.socketpair()
            near.setblocking(False)
            attachments = (m.Attachment(fd=0, stdin=wanted.attach_stdin, stdout=wanted.attach_stdout, stderr=wanted.attach_stderr),)
        container.emit(f"exec_start: {' '.join(wanted.cmd or [])}", execID=made.id)
        try:
            answer = await keeper.exec(self._request(made, body, attachments), [far.fileno()] if far is not None else [])
        except BaseException as error:
            made.ended(128)
            if near is not None:
                near.close()
            if isinstance(error, OSError):
                raise Conflict(f"container {container.id} is not running") from error
            raise
        finally:
            made.ready.set()
            if far is not None:
                far.close()
        if isinstance(answer, m.ExecFailed):
            if near is not None:
                near.close()
            code = exit_code_of(answer.step, answer.code, answer.text)
            made.ended(code)
            raise InvalidRequest(f"OCI runtime exec failed: exec failed: {words_of(answer.step, answer.code, answer.text)}")
        made.pid = answer.pid
        if near is None:
            return None
        made.stream = ExecStream(near, wanted.tty, container)
        made.stream.exec_id = made.id
        made.stream.detach_keys = wanted.detach_keys
        return made.stream

    @staticmethod
    def _request(made: Exec, body: e.ExecStart, attachments: tuple[m.Attachment, ...]) -> m.Exec:
        record, wanted = made.container.record, made.body
        first = spec.process(record)
        names = spec_security.all_capabilities() if wanted.privileged else first.capabilities.bounding
        env = {entry.partition("=")[0]: entry for entry in (*first.env, *(wanted.env or ()))}
        if wanted.tty:
            env.setdefault("TERM", "TERM=xterm")
        size = body.console_size or wanted.console_size
        process = structs.replace(
            first, args=tuple(wanted.cmd or ()), cwd=wanted.working_dir or first.cwd, env=tuple(env.values()),
            terminal=wanted.tty, capabilities=spec_security.capability_sets(names),
            console_size=Box(height=size[0], width=size[1]) if size and len(size) == 2 and any(size) else None,
        )  # fmt: skip
        note = PROBE if made.probe else msgspec.json.encode(wanted)
        return m.Exec(
            exec_id=made.id, note=note if len(note) <= _LONGEST_NOTE else b"", process=process,
            open_stdin=wanted.attach_stdin, privileged=wanted.privileged, attachments=attachments,
            user=wanted.user or record.config.user, group_add=tuple(record.host.group_add or ()),
        )  # fmt: skip

    async def resize(self, exec_id: str, *, height: int, width: int) -> None:
        made = self.find(exec_id)
        try:
            async with asyncio.timeout(10):
                await made.ready.wait()
        except TimeoutError:
            from sampan.errors import Broken

            raise Broken("timeout waiting for exec session ready") from None
        if made.running and made.container.keeper is not None:
            made.container.keeper.send(m.Resize(exec_id=exec_id, height=height, width=width))

    async def inspect(self, exec_id: str) -> e.ExecInspect:
        made = self.find(exec_id)
        if made.running and made.stream is not None and made.stream.saw_end:
            # The output's end was read before the keeper's word of the exit: it is on its way.
            try:
                async with asyncio.timeout(1):
                    await made.over.wait()
            except TimeoutError:
                pass
        body = made.body
        command = body.cmd or [""]
        return e.ExecInspect(
            id=made.id, running=made.running, exit_code=made.exit_code, open_stdin=body.attach_stdin,
            open_stderr=body.attach_stderr, open_stdout=body.attach_stdout, container_id=made.container.id, pid=made.pid,
            can_remove=False, detach_keys=body.detach_keys,
            process_config=e.ExecProcess(
                tty=body.tty, entrypoint=command[0], arguments=command[1:], privileged=body.privileged,
                user=body.user or UNSET,
            ),
        )  # fmt: skip
