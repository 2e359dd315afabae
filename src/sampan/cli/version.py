"""sampan version: with --client nothing but this module is loaded."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from sampan import __version__

if TYPE_CHECKING:
    from sampan.cli.main import Invocation

API = "1.50"


def _client(host: str) -> dict[str, Any]:
    machine = os.uname().machine
    return {
        "Version": __version__, "ApiVersion": API, "DefaultAPIVersion": API,
        "PythonVersion": sys.version.split()[0],
        "Os": "linux", "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "Context": host,
    }  # fmt: skip


def _lines(title: str, rows: list[tuple[str, str]]) -> str:
    return title + "\n" + "".join(f" {name + ':':<18}{value}\n" for name, value in rows)


def run(call: Invocation) -> int:
    mine = _client(call.host)
    server: Any = None
    error: Exception | None = None
    if not call.options.client:
        from sampan.client.errors import ClientError

        try:
            server = call.client.json("GET", "/version")
        except ClientError as caught:
            error = caught
    if call.options.format:
        from sampan.cli.inspect import render

        print(render(call.options.format, {"Client": mine, "Server": server}))
    else:
        rows = [("Version", mine["Version"]), ("API version", API), ("Python version", mine["PythonVersion"])]
        print(_lines("Client: Sampan", [*rows, ("OS/Arch", f"{mine['Os']}/{mine['Arch']}")]), end="")
        if server is not None:
            print(_server(server), end="")
    if error is not None:
        from sampan.cli.main import describe

        sys.stdout.flush()
        print(describe(error), file=sys.stderr)
        return 1
    return 0


def _server(server: dict[str, Any]) -> str:
    rows = [
        ("Version", server.get("Version", "")),
        ("API version", f"{server.get('ApiVersion')} (minimum version {server.get('MinAPIVersion')})"),
        ("OS/Arch", f"{server.get('Os')}/{server.get('Arch')}"),
        ("Kernel version", server.get("KernelVersion", "")),
    ]
    return "\n" + _lines(f"Server: {(server.get('Platform') or {}).get('Name', '')}", rows)
