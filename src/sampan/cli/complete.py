"""Completion for bash, zsh and fish: `sampan completion SHELL` prints a script, which asks `sampan __complete` at each TAB.

What can follow is read from the table of commands; names of containers, images, volumes and networks come from the daemon, if one
answers.  Whatever goes wrong, nothing is offered and nothing is said: somebody is typing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sampan.cli import commands
from sampan.cli.main import Exit, Invocation
from sampan.cli.options import Command, Flag, HelpWanted, UsageError, parse

BASH = r"""# bash completion for sampan:  source <(sampan completion bash)
_sampan() {
    local IFS=$'\n' word="${COMP_LINE:0:COMP_POINT}"
    COMPREPLY=($(sampan __complete bash "$word" 2>/dev/null))
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}
complete -o default -F _sampan sampan
"""
ZSH = r"""#compdef sampan
# zsh completion for sampan:  source <(sampan completion zsh)
_sampan() {
    local -a found
    found=("${(@f)$(sampan __complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then _describe -V sampan found; else _files; fi
}
if [[ "${funcstack[1]}" = _sampan ]]; then _sampan "$@"; else compdef _sampan sampan; fi
"""
FISH = r"""# fish completion for sampan:  sampan completion fish | source
function __sampan_complete
    set -l words (commandline -opc)
    sampan __complete fish $words[2..] (commandline -ct) 2>/dev/null
end
complete -c sampan -e
complete -c sampan -n 'string length -q -- (__sampan_complete)' -f -a '(__sampan_complete)'
complete -c sampan -n 'not string length -q -- (__sampan_complete)' -F
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
Found = dict[str, str]  # a candidate and what it is
VALUES: dict[str, tuple[str, ...]] = {
    "--restart": ("no", "always", "unless-stopped", "on-failure", "on-unhealthy"), "--pull": ("always", "missing", "never"),
    "--log-driver": ("json-file", "local", "none", "syslog"), "--cgroupns": ("private", "host"), "--userns": ("host",),
    "--ipc": ("private", "shareable", "host", "none", "container:"), "--pid": ("host", "container:"), "--uts": ("host",),
    "--type": ("container", "image", "network", "volume"), "--format": ("json", "table"),
    "--signal": ("TERM", "KILL", "HUP", "INT", "QUIT", "USR1", "USR2", "STOP", "CONT"),
}  # fmt: skip
_NAMED = {"--network": "NETWORK", "--volumes-from": "CONTAINER", "--link": "CONTAINER"}
_RUNNING = ("attach", "exec", "kill", "pause", "stop", "top", "unpause", "stats", "port")


def script(call: Invocation) -> int:
    print(SCRIPTS[call.arguments[0]] if call.arguments[0] in SCRIPTS else _unknown(call.arguments[0]), end="")
    return 0


def _unknown(name: str) -> str:
    raise Exit(1, f"sampan: there is no completion for {name[:32]!r}: bash, zsh and fish have it")


def answer(call: Invocation) -> int:
    """What the scripts ask: SHELL and the words after `sampan`, the last one still being typed (of bash, the line so far)."""
    shell, *words = call.arguments
    try:
        if shell == "bash":
            words = _split(words[0] if words else "")[1:]
        common, _ = parse(commands.GLOBAL, words[:-1], stop=True)
        found = candidates(words or [""], Invocation(call.name, call.options, [], common))
    except (ValueError, LookupError, UsageError, HelpWanted):  # such as quotes that are not closed yet
        return 0
    typed = words[-1] if words else ""
    # Bash has split the word at these already, and puts only what follows in.
    cut = max(typed.rfind(":"), typed.rfind("=")) + 1 if shell == "bash" else 0
    for word, text in found.items():
        if not word.isprintable():
            continue
        if shell == "zsh":
            print(word.replace("\\", "\\\\").replace(":", "\\:") + (f":{text}" if text else ""))
        else:
            print(f"{word}\t{text}" if shell == "fish" and text else word[cut:])
    return 0


def _split(line: str) -> list[str]:
    """Return the words of a line; the last one is "" after a blank."""
    import shlex

    words = shlex.split(line)
    return [*words, ""] if not line or line[-1].isspace() else words


def candidates(words: list[str], call: Invocation) -> Found:
    """Return what the last of `words` can become."""
    *before, typed = words
    name, command, rest = _command(before)
    found: Found
    if command is None:
        found = _flags(commands.GLOBAL) if typed.startswith("-") else _names(name)
    else:
        found = _of_command(name, command, rest, typed, call)
    return {word: text for word, text in found.items() if word.startswith(typed)}


def _command(words: list[str]) -> tuple[str, Command | None, list[str]]:
    """Return the group or command that the words lead to, and what is left of them."""
    rest = list(words)
    takes = {name for one in commands.GLOBAL if one.kind != "bool" for name in one.names}
    while rest and rest[0].startswith("-"):
        rest = rest[2:] if rest[0] in takes else rest[1:]
    if not rest:
        return "", None, []
    name = rest.pop(0)
    if name in commands.GROUPS:
        if not rest:
            return name, None, []
        name = f"{name} {rest.pop(0)}"
    found = commands.find(name)
    if found is None:
        raise LookupError(name)
    return name, found, rest


def _names(group: str) -> Found:
    every = {**commands.names(), **{alias: commands.names().get(target, "") for alias, target in commands.ALIASES.items()}}
    if group:
        return {name.split()[1]: text for name, text in sorted(every.items()) if name.startswith(group + " ")}
    plain = {name: text for name, text in every.items() if " " not in name}
    return dict(sorted({**plain, **dict.fromkeys(commands.GROUPS, "More commands")}.items()))


def _flags(flags: tuple[Flag, ...]) -> Found:
    return {name: one.help for one in flags for name in one.names if name.startswith("--")}


def _of_command(name: str, command: Command, words: list[str], typed: str, call: Invocation) -> Found:
    by_name = {flag: one for one in command.flags for flag in one.names}
    if typed.startswith("--") and "=" in typed:
        flag = typed.partition("=")[0]
        return {f"{flag}={word}": text for word, text in _value(flag, call).items()}
    given: list[str] = []
    pending: Flag | None = None
    for word in words:
        if pending is not None:
            pending = None
        elif word.startswith("-") and word != "-" and not (command.stop and given):
            flag = word.partition("=")[0]
            found = by_name.get(flag) or by_name.get(f"-{flag[-1]}")
            pending = found if found is not None and found.kind != "bool" and "=" not in word else None
        else:
            given.append(word)
    if pending is not None:
        return _value(pending.names[-1], call) or _value(pending.names[0], call)
    if typed.startswith("-") and not (command.stop and given):
        return _flags(command.flags)
    return _objects(_kind(name, command, len(given)), call, running=name.split()[-1] in _RUNNING)


def _kind(name: str, command: Command, position: int) -> str:
    """Return what an argument names, as the usage line calls it."""
    if name == "completion":
        return "SHELL"
    places = [place.strip("[]().") for place in command.usage.split() if place not in ("[OPTIONS]", "|")]
    if not places or (command.arguments[1] is not None and position >= command.arguments[1]):
        return ""
    repeats = places[-1] == places[0] or command.usage.rstrip("]").endswith("...")
    place = places[min(position, len(places) - 1)] if position < len(places) or repeats else ""
    return next((kind for kind in SOURCES if place.startswith((kind, f"SOURCE_{kind}", f"NAME|{kind}"))), "")


def _value(flag: str, call: Invocation) -> Found:
    if flag in VALUES:
        return dict.fromkeys(VALUES[flag], "")
    return _objects(_NAMED.get(flag, ""), call, running=False)


def _objects(kind: str, call: Invocation, *, running: bool) -> Found:
    """Ask the daemon what there is of a kind."""
    from sampan.client.errors import ClientError

    if kind == "SHELL":
        return dict.fromkeys(SCRIPTS, "")
    if kind not in SOURCES:
        return {}
    try:
        return dict(sorted(SOURCES[kind](call, running)))
    except (ClientError, OSError):
        return {}


def _containers(call: Invocation, running: bool) -> Iterator[tuple[str, str]]:
    for one in call.client.containers.list(all=not running, limit=0, size=False, wanted={}):
        yield one.names[0].removeprefix("/"), f"{one.image}, {one.status}"


def _images(call: Invocation, _running: bool) -> Iterator[tuple[str, str]]:
    for one in call.client.images.list(all=False, wanted={}):
        for tag in one.repo_tags or ():
            if tag != "<none>:<none>":
                yield tag, ""
                yield tag.removesuffix(":latest"), ""


def _networks(call: Invocation, _running: bool) -> Iterator[tuple[str, str]]:
    for one in call.client.networks.list({}):
        yield one.name, one.driver


def _volumes(call: Invocation, _running: bool) -> Iterator[tuple[str, str]]:
    for one in call.client.volumes.list({}):
        yield one.name, one.driver


SOURCES: dict[str, Callable[[Invocation, bool], Iterator[tuple[str, str]]]] = {
    "CONTAINER": _containers, "IMAGE": _images, "NETWORK": _networks, "VOLUME": _volumes,
}  # fmt: skip
