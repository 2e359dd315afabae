"""sampan pull, push, login, logout, search: registries, as the daemon asks them, with the credentials of this user."""

from __future__ import annotations

import getpass
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from sampan.cli import credentials
from sampan.cli.main import Exit

if TYPE_CHECKING:
    from sampan.cli.main import Invocation

COLUMNS = [("Name", "NAME"), ("Description", "DESCRIPTION"), ("StarCount", "STARS"), ("IsOfficial", "OFFICIAL")]


def split(image: str) -> tuple[str, str]:
    """Return (repository, tag or digest), the tag "" when there is none."""
    name, at, digest = image.partition("@")
    if at:
        return (name.rpartition(":")[0] if ":" in name.rsplit("/", 1)[-1] else name), digest
    head, colon, tag = name.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (name, "")


def _meant(call: Invocation) -> tuple[str, str]:
    """Return the repository and tag to pull or push, the tag "" with --all-tags.  Raises Exit."""
    repository, tag = split(call.arguments[0])
    if call.options.all_tags and tag:
        raise Exit(1, "tag can't be used with --all-tags/-a")
    if not call.options.all_tags and not tag:
        tag = "latest"
        if not call.options.quiet:
            print(f"Using default tag: {tag}", flush=True)
    return repository, tag


def pull(call: Invocation) -> int:
    from sampan.cli.progress import follow

    o, image = call.options, call.arguments[0]
    repository, tag = _meant(call)
    auth = credentials.header(image)
    follow(call.client.images.pull(repository, tag, platform=o.platform, auth=auth), quiet=o.quiet)
    print(_full(repository, tag))
    return 0


def _full(repository: str, tag: str) -> str:
    first, slash, _ = repository.partition("/")
    if not (slash and ("." in first or ":" in first or first == "localhost")):
        repository = f"docker.io/{repository}" if slash else f"docker.io/library/{repository}"
    return f"{repository}{'@' if ':' in tag else ':'}{tag}" if tag else repository


def push(call: Invocation) -> int:
    from sampan.cli.progress import follow

    o, image = call.options, call.arguments[0]
    repository, tag = _meant(call)
    follow(call.client.images.push(repository, tag, platform=o.platform, auth=credentials.header(image)), quiet=o.quiet)
    if o.quiet:
        print(_full(repository, tag))
    return 0


def login(call: Invocation) -> int:
    key = credentials.key_of(call.arguments[0] if call.arguments else "")
    config = credentials.Config()
    user, password = _asked(call, key, config)
    given = {"username": user, "password": password, "serveraddress": key}
    if not user and not password:
        given = config.get(key)
        if not given:
            raise Exit(1, "Error: Cannot perform an interactive login from a non TTY device")
        print("Authenticating with existing credentials...")
    answer = call.client.images.login(given)
    if user or password:
        config.put(key, {"username": user, "password": password, "identitytoken": answer.identity_token})
        if not config.helper(key):
            print(f"WARNING! Your credentials are stored unencrypted in '{config.path}'.", file=sys.stderr)
    print(answer.status or "Login Succeeded")
    return 0


def _asked(call: Invocation, key: str, config: credentials.Config) -> tuple[str, str]:
    """Return user and password from the flags, stdin or the terminal; both empty for what is stored already."""
    o = call.options
    user, password = str(o.username), str(o.password)
    if o.password_stdin:
        if password:
            raise Exit(1, "--password and --password-stdin are mutually exclusive")
        if not user:
            raise Exit(1, "Must provide --username with --password-stdin")
        return user, sys.stdin.read().rstrip("\r\n")
    if password:
        print("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", file=sys.stderr)
    if user and password:
        return user, password
    if not user and config.get(key):
        return "", ""
    if not sys.stdin.isatty():
        raise Exit(1, "Error: Cannot perform an interactive login from a non TTY device")
    user = user or input("Username: ").strip()
    password = password or getpass.getpass("Password: ")
    if not user or not password:
        raise Exit(1, "username and password are required")
    return user, password


def logout(call: Invocation) -> int:
    key = credentials.key_of(call.arguments[0] if call.arguments else "")
    if credentials.Config().remove(key):
        print(f"Removing login credentials for {key}")
    else:
        print(f"Not logged in to {key}")
    return 0


def search(call: Invocation) -> int:
    from sampan.cli.table import filters, short, show

    o, term = call.options, call.arguments[0]
    auth = ""
    with suppress(Exit):
        auth = credentials.header(term)
    found = call.client.images.search(term, limit=o.limit, wanted=filters(o.filter), auth=auth)
    rows = [
        {
            "Name": one.name, "Description": one.description if o.no_trunc else short(one.description, 45),
            "StarCount": str(one.star_count), "IsOfficial": "[OK]" if one.is_official else "",
            "IsAutomated": "[OK]" if one.is_automated else "",
        }
        for one in found
    ]  # fmt: skip
    show(rows, COLUMNS, o.format, "formatter.SearchContext")
    return 0
