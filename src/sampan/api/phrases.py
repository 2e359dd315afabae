"""Words that Docker's clients match on, each with the client that does; keep them to the letter."""

from __future__ import annotations

import errno

PAGE_NOT_FOUND = "page not found"

# docker service/node/stack print it as it is; compose ignores swarm after a 503.
NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
)

# The textbook's warning, printed for every TCP address that is not loopback and has no TLS.
EXPOSED = "[!] DON'T BIND ON ANOTHER IP ADDRESS THAN 127.0.0.1 IF YOU DON'T KNOW WHAT YOU'RE DOING [!]"

ONE_STREAM = "Bad parameters: you must choose at least one stream"  # docker-py shows it
EMPTY_CONFIG = "config cannot be empty in order to create a container"
NO_EXEC_COMMAND = "No exec command specified"

# docker run looks for these words to choose its exit codes 127 and 126.
NOT_IN_PATH = "executable file not found in $PATH"
NOT_ALLOWED = "permission denied"


def too_old(version: str, minimum: str) -> str:
    return (
        f"client version {version} is too old. Minimum supported API version is {minimum}, "
        "please upgrade your client to a newer version"
    )


def too_new(version: str, maximum: str) -> str:
    return f"client version {version} is too new. Maximum supported API version is {maximum}"


def needs_version(method: str, path: str, since: str) -> str:
    return f"{method} {path} requires minimum API version {since}"


def container_name(name: str) -> str:
    return f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"


def detach_keys(keys: str) -> str:
    return f"Invalid detach keys ({keys}) provided"


def content_type(value: str) -> str:
    return f"unsupported Content-Type header ({value}): must be 'application/json'"


def start_failed(step: str, code: int, text: str) -> str:
    """A failed start, with the words the docker client looks for when the program was the cause."""
    wanted = ""
    if step.startswith("exec"):
        if code in (errno.ENOENT, errno.ENOTDIR) and NOT_IN_PATH not in text:
            wanted = NOT_IN_PATH
        elif code in (errno.EACCES, errno.EISDIR) and NOT_ALLOWED not in text.lower():
            wanted = NOT_ALLOWED
    return f"{text}: {wanted}" if wanted else text
