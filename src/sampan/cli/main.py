"""The start of the `sampan` command.  Imports as little as it can; everything else when it is needed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from sampan.cli import commands
from sampan.cli.options import Command, HelpWanted, Options, UsageError, count, parse

if TYPE_CHECKING:
    from sampan.client.api import Client
    from sampan.wire.hosts import TlsFiles

DEFAULT_HOST = "unix:///run/sampan/sampan.sock"


class Exit(Exception):
    """End with `code`; `text` goes to stderr."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Invocation:
    """A command with its flags and arguments, and the daemon that it is for."""

    def __init__(self, name: str, options: Options, arguments: list[str], common: Options) -> None:
        self.name = name
        self.options = options
        self.arguments = arguments
        self.common = common
        self._client: Client | None = None

    @property
    def host(self) -> str:
        return str(self.common.host or os.environ.get("SAMPAN_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST)

    @property
    def is_default_host(self) -> bool:
        return self.host == DEFAULT_HOST

    @property
    def client(self) -> Client:
        if self._client is None:
            from sampan.client.api import Client

            self._client = Client(self.host, self._tls())
        return self._client

    def _tls(self) -> TlsFiles | None:
        common = self.common
        if not (common.tls or common.tlsverify or common.tlscacert or common.tlscert):
            return None
        from sampan.wire.hosts import TlsFiles

        verify = bool(common.tlsverify or common.tlscacert)
        return TlsFiles(common.tlscacert, common.tlscert, common.tlskey, verify)


def entry() -> NoReturn:
    """Run the command line of this process and exit."""
    sys.exit(main(sys.argv[1:]))


def main(words: list[str]) -> int:
    """Run a command line; return its exit code."""
    debug = False
    try:
        common, rest = parse(commands.GLOBAL, words, stop=True)
        debug = bool(common.debug)
        return _dispatch(common, rest)
    except HelpWanted:
        from sampan.cli.help import overview

        print(overview(), end="")
        return 0
    except UsageError as error:
        print(f"{error}\nSee 'sampan --help'.", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:
        if debug:
            raise
        return _failed(error)
    finally:
        _flush()


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads: nothing can be written any more, nor at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _failed(error: Exception) -> int:
    if isinstance(error, Exit):
        if error.text:
            print(error.text, file=sys.stderr)
        return error.code
    print(describe(error), file=sys.stderr)
    return 1


def describe(error: Exception) -> str:
    """The words for what went wrong, as docker says them."""
    if type(error).__name__ == "ApiError":
        return f"Error response from daemon: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if type(error).__module__.startswith("sampan."):
        return str(error)
    return f"sampan: {type(error).__name__}: {error} (a bug; --debug shows where)"


def _dispatch(common: Options, rest: list[str]) -> int:
    if common.version:
        from sampan import __version__

        print(f"Sampan version {__version__}")
        return 0
    if not rest or rest == ["help"]:
        raise HelpWanted
    if rest[0] == "help":
        rest = [*rest[1:], "--help"]
    name = rest.pop(0)
    if name in commands.GROUPS:
        if not rest or rest[0] in ("--help", "-h"):
            from sampan.cli.help import group

            print(group(name), end="")
            return 0
        name = f"{name} {rest.pop(0)}"
    command = commands.find(name)
    if command is None:
        print(f"sampan: unknown command: sampan {name}\n\nRun 'sampan --help' for more information", file=sys.stderr)
        return 1
    return _call(name, command, common, rest)


def _call(name: str, command: Command, common: Options, words: list[str]) -> int:
    try:
        options, arguments = parse(command.flags, words, stop=command.stop)
        count(f"sampan {name}", command.arguments, len(arguments))
    except HelpWanted:
        from sampan.cli.help import describe_command

        print(describe_command(name, command), end="")
        return 0
    except UsageError as error:
        if error.code == 1:
            print(f"sampan: {error}\n\nUsage:  sampan {name} {command.usage}\n\nRun 'sampan {name} --help' for more information",
                  file=sys.stderr)  # fmt: skip
        else:
            print(f"{error}\n\nUsage:  sampan {name} {command.usage}\n\nRun 'sampan {name} --help' for more information",
                  file=sys.stderr)  # fmt: skip
        return error.code
    module, _, function = command.run.partition(":")
    from importlib import import_module

    run: Any = getattr(import_module(f"sampan.cli.{module}"), function)
    return int(run(Invocation(name, options, arguments, common)))
