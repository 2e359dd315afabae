"""The zygote: a small, single-threaded process that has imported all that keepers and inits will ever need.

It holds no secret and no state: it receives a Breed, forks, and forgets.  At the daemon's end it ends; keepers live on.
"""

from __future__ import annotations

import codecs
import errno
import gc
import os
import signal
import socket
import sys
from typing import NoReturn

from sampan import messages
from sampan.kernel.fds import Fd, close_from, open_fd
from sampan.kernel.process import PR, Clone, prctl, set_name, unshare
from sampan.launch import bare, keeper, rehearsal
from sampan.launch.channel import Channel, unpack
from sampan.launch.client import SPAWNER_FD
from sampan.launch.failures import failed
from sampan.launch.host import Host
from sampan.messages import MakeUserns, UsernsMade

_USERNS = b"MakeUserns"  # a body begins with its message's name


def main() -> None:
    """Run until the daemon closes its end."""
    close_from(SPAWNER_FD + 1)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1):
        os.dup2(null, number)
    os.close(null)
    os.set_inheritable(SPAWNER_FD, False)
    prctl(PR.SET_DUMPABLE, 0)  # a container must never be able to look at its init before execve (SECURITY.md P9)
    set_name("sampan-spawner")
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    os.environ.clear()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)  # ignored SIGCHLD: the kernel reaps the keepers (wait(2))
    _warm_up()
    gc.collect()
    gc.disable()
    gc.freeze()
    _serve(bare.adopt(SPAWNER_FD))


def _warm_up() -> None:
    """Touch what is lazy in Python, so that nothing is looked up inside a container (SECURITY.md P4)."""
    for codec in ("ascii", "utf-8", "latin-1", "utf-8-sig"):
        codecs.lookup(codec)
    rehearsal.learn()
    # From here on no import, hook or codec search can find a file, the host's or a container's.  Here and not in init: giving
    # the memory of a hundred caches back would copy their pages first, in every container.
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
    sys.excepthook = lambda *_: None
    sys.unraisablehook = lambda *_: None


def _serve(daemon: bare.Socket) -> NoReturn:
    """Fork a keeper for every Breed, which it passes on unread."""
    host = Host.look()
    while True:
        body, ancillary = bare.receive(daemon)
        if not body:
            os._exit(0)
        numbers = bare.numbers(ancillary)
        if _USERNS in body[:16]:
            _make_userns(body, numbers)
        else:
            _breed(daemon, body, numbers, host)
        for number in numbers:
            os.close(number)


def _breed(daemon: bare.Socket, body: bytes, ends: tuple[int, ...], host: Host) -> None:
    try:
        if os.fork() == 0:
            try:
                daemon.close()
                keeper.main(body, ends, host)
            finally:
                os._exit(1)
    except OSError as error:  # no room for more processes
        inits = bare.adopt(os.dup(ends[1]))
        bare.send(inits, messages.to_bytes(failed(error)), [])
        inits.close()


def _make_userns(body: bytes, numbers: tuple[int, ...]) -> None:
    """Make the namespace with a child that lives only for a moment; answer with its descriptor."""
    wanted = unpack(body, [])
    assert isinstance(wanted, MakeUserns)
    control = Channel.adopt(Fd(os.dup(numbers[wanted.control])))
    ours, theirs = socket.socketpair()
    try:
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                unshare(Clone.NEWUSER)
                theirs.send(b"1")
                theirs.recv(1)
            finally:
                os._exit(0)
        theirs.close()
        if not ours.recv(1):
            raise OSError(errno.ENOSPC, "no user namespace")
        for name in ("uid_map", "gid_map"):
            with open_fd(f"/proc/{pid}/{name}", os.O_WRONLY) as file:
                os.write(file.fileno(), f"0 {wanted.base} {wanted.size}\n".encode())
        with open_fd(f"/proc/{pid}/ns/user", os.O_RDONLY) as namespace:
            control.send(UsernsMade(), [namespace])
    except OSError as error:
        try:
            control.send(UsernsMade(code=error.errno or errno.EIO))
        except OSError:
            pass  # whoever asked has gone
    finally:
        ours.close()
        theirs.close()
        control.close()
