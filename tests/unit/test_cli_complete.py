"""The command has every command and flag of docker's that the project's description lists for what Sampan has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sampan.cli import commands

CLI = Path(__file__).resolve().parents[3] / "shared/spec/cli.md"
SECTIONS = ("(top level)", "container", "volume", "system", "builder")
# What only a swarm or Windows has.
OTHERS = {
    "volume update", "volume ls --cluster",
    *(f"container run --{flag}" for flag in ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops")),
    *(f"volume create --{flag}" for flag in (
        "availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing", "topology-preferred",
        "topology-required", "type")),
}  # fmt: skip


def described() -> dict[str, set[str]]:
    """Return the flags of each command, as "container run": {"--rm", "-d", ...}."""
    found: dict[str, set[str]] = {}
    section, name = "", ""
    for line in CLI.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            section, name = line.lstrip("# "), ""
        elif section in SECTIONS and (head := re.match(r"\*\*docker ([a-z -]+)\*\*", line)):
            name = head[1]
            found[name] = set()
        elif name and line.startswith("| `-"):
            found[name] |= set(re.findall(r"`(--?[a-z0-9-]+)`", line.split(" | ")[0], re.IGNORECASE))
    return found


@pytest.mark.skipif(not CLI.exists(), reason=f"needs {CLI}")
def test_nothing_that_is_described_is_missing() -> None:
    assert len(described()) > 40
    missing = []
    for name, flags in described().items():
        command = commands.find(name)
        if command is None:
            missing.append(name)
            continue
        own = {word for one in command.flags for word in one.names}
        missing += [f"{name} {flag}" for flag in sorted(flags - own)]
    short = re.findall(r"\| `docker ([a-z]+)` \| `docker ([a-z ]+)` \|", CLI.read_text(encoding="utf-8"))
    missing += [one for one, long in short if commands.find(one) != commands.find(long)]
    assert [one for one in missing if one not in OTHERS] == []
