"""The log of a container's output: which driver a LogTarget means, and whether it needs a process of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sampan.errors import StepFailed
from sampan.kernel.fds import Fd
from sampan.launch.logger import Driver, Link, Log
from sampan.launch.loop import Loop
from sampan.logs import json_file, local, syslog
from sampan.logs.options import Options, boolean, parse
from sampan.messages import LogTarget


def check(target: LogTarget, fds: Sequence[Fd]) -> None:
    """Open the log and close it again: a start must fail when its output could not be kept.  Raises as `open_log` does."""
    if target.driver == "none" or target.fd is None:
        return
    _driver(target, parse(target.options, target.driver), os.dup(fds[target.fd].fileno())).close()


def open_log(loop: Loop, target: LogTarget, fds: Sequence[Fd]) -> Log | Link | None:
    """Return what takes the output, None when it is not kept; it owns the descriptor.  Raises InvalidRequest, OSError."""
    if target.driver == "none" or target.fd is None:
        return None
    options = parse(target.options, target.driver)
    folder = fds[target.fd].take()
    if target.driver != "syslog" and not options.buffer:
        return _file(target, options, folder)
    try:
        return Link(loop, lambda: _driver(target, options, folder), [folder], options.buffer)
    except OSError as error:
        raise StepFailed("log", error.errno or 0, f"the {target.driver} log cannot be opened: {error.strerror}") from None
    finally:
        os.close(folder)


def _file(target: LogTarget, options: Options, folder: int) -> Log:
    writer = json_file.Writer if target.driver == "json-file" else local.Writer
    return writer(folder, target.name, options, target.attributes)


def _driver(target: LogTarget, options: Options, folder: int) -> Driver:
    if target.driver != "syslog":
        return _file(target, options, folder)
    copy = None
    if boolean(target.options.get("cache-disabled", "false"), "cache-disabled"):
        os.close(folder)
    else:
        copy = local.Writer(folder, target.name, options, target.attributes)
    where = syslog.address(target.options.get("syslog-address", ""))
    number = syslog.facility(target.options.get("syslog-facility", "daemon"))
    kind = target.options.get("syslog-format", "")
    counted = where.network == "tcp+tls" and kind.startswith("rfc5424")  # RFC 5425
    return syslog.Writer(where, syslog.Formatter(kind, number, target.tag, counted=counted), copy, target.tls)
