"""Where Sampan may fork, run programs or unpack archives: read from its own source (SECURITY.md P6, P7, P13, P14)."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/sampan"
FORKS = {"os.fork", "os.forkpty"}
STARTS = {"os.posix_spawn", "os.posix_spawnp", "os.system", "os.popen", "os.spawnv", "os.spawnl"}
NEVER = {"tarfile", "zipfile", "pickle", "marshal", "shelve", "multiprocessing", "yaml", "concurrent.futures.process", "pty"}
# The spawner and what it forks, keepers among them: single-threaded to their end.
MAY_FORK = {"launch/keeper.py", "launch/spawner.py", "launch/logger.py", "logs/rotate.py"}
# The interpreter, as a fresh program; the sealed one, but for the unpackers, which never enter a container.
MAY_START = {"launch/client.py", "network/resolver.py", "logs/syslog.py", "storage/unpackers.py"}
# Programs of the host's, by absolute names or as the user's own: never in a container, never on its start path.
MAY_RUN = {
    "engine/images/bootstrap.py",
    "engine/images/distribution.py",
    "cli/credentials.py",
    "cli/build_ssh.py",
    "cli/serve.py",
    "cli/editor.py",
}


@functools.cache
def uses() -> dict[str, set[str]]:
    """Return module -> names of modules that it imports and functions of `os` that it calls."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        names = found.setdefault(str(path.relative_to(SOURCE)), set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                names.add(f"os.{node.attr}")
    return found


def test_p7_only_the_spawners_family_forks() -> None:
    assert {module for module, names in uses().items() if names & FORKS} <= MAY_FORK
    assert {module for module, names in uses().items() if names & STARTS} <= MAY_START


def test_p6_no_room_below_the_daemon_runs_a_program_but_those_listed() -> None:
    running = {module for module, names in uses().items() if "subprocess" in names}
    assert {module for module in running if not module.startswith("build/")} <= MAY_RUN


def test_p13_p14_nothing_unpacks_with_tarfile_or_decodes_code() -> None:
    assert {module: names & NEVER for module, names in uses().items() if names & NEVER} == {}
