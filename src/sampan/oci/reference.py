"""Image references: `[domain[:port]/]path[:tag][@digest]`, Docker's normal and familiar forms (image-spec; engine-api 5.3).

Everything is checked by walking the text once; there is no pattern that could backtrack.  What a Reference holds is
ASCII, without `..`, without control characters (SECURITY.md rows 48, 91).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sampan.errors import InvalidRequest
from sampan.oci.digest import Digest, is_hex
from sampan.oci.digest import parse as parse_digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_MAX_PATH = 255
_MAX_REFERENCE = 1024

_DIGITS = frozenset("0123456789")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz") | _DIGITS
_ALNUM = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_TAG = _ALNUM | frozenset("_.-")
_IPV6 = frozenset("0123456789abcdefABCDEF:.")


@dataclass(frozen=True)
class Reference:
    """A checked, normalised name: domain "docker.io", path "library/busybox", tag "latest" or "", digest or None."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """The repository, in full: docker.io/library/busybox."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: busybox."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in rest else rest

    @property
    def familiar(self) -> str:
        """The reference as people write it: busybox:latest."""
        return self.familiar_name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def tagged(self) -> Reference:
        """Return it with the default tag when it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def __str__(self) -> str:
        return self.name + self._suffix()


def parse(text: str) -> Reference:
    """Return the normalised reference.  Raises InvalidRequest in Docker's words.

    The tag stays empty when `text` names none; `tagged()` adds the default.
    """
    if len(text) > _MAX_REFERENCE:
        raise InvalidRequest("invalid reference format")
    if is_hex(text, 64):
        raise InvalidRequest(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    rest, at, digest_text = text.partition("@")
    digest = parse_digest(digest_text) if at else None
    name, tag = _split_tag(rest)
    domain, path = _split_domain(name)
    if not is_path(path):
        if is_path(path.lower()):
            raise InvalidRequest(f"invalid reference format: repository name ({path}) must be lowercase")
        raise InvalidRequest("invalid reference format")
    if not is_domain(domain):
        raise InvalidRequest("invalid reference format")
    if len(path) > _MAX_PATH:
        raise InvalidRequest("repository name must not be more than 255 characters")
    return Reference(domain, path, tag, digest)


def recorded(text: str) -> Reference:
    """Return the reference whose str() `text` is: what a record holds, checked when it was written."""
    rest, _, digest = text.partition("@")
    domain, _, path = rest.partition("/")
    if digest:
        return Reference(domain, path, "", Digest(digest))
    path, _, tag = path.rpartition(":")
    return Reference(domain, path, tag)


def is_tag(text: str) -> bool:
    """Return whether `text` may be a tag."""
    return 0 < len(text) <= 128 and text[0] not in ".-" and _TAG.issuperset(text)


def with_tag(repository: str, tag: str) -> Reference:
    """Return the reference for separate `repo` and `tag` arguments, the tag `latest` by default."""
    name = parse(repository)
    if name.digest is not None:
        raise InvalidRequest("refusing to create a tag with a digest reference")
    if tag:
        if not is_tag(tag):
            raise InvalidRequest("invalid tag format")
        name = replace(name, tag=tag)
    return name.tagged()


def _split_tag(text: str) -> tuple[str, str]:
    colon = text.rfind(":")
    if colon < 0 or "/" in text[colon:]:
        return text, ""
    tag = text[colon + 1 :]
    if not is_tag(tag):
        raise InvalidRequest("invalid reference format")
    return text[:colon], tag


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def is_domain(domain: str) -> bool:
    """Return whether it may be a registry's host, with or without a port."""
    host, port = domain, ""
    if domain.startswith("["):
        inside, bracket, after = domain[1:].partition("]")
        if not bracket or not inside or not _IPV6.issuperset(inside) or (after and not after.startswith(":")):
            return False
        return not after or _is_port(after[1:])
    if ":" in domain:
        host, _, port = domain.partition(":")
        if not _is_port(port):
            return False
    return len(host) <= 253 and all(_is_label(label) for label in host.split("."))


def _is_port(port: str) -> bool:
    return 0 < len(port) <= 5 and _DIGITS.issuperset(port)


def _is_label(label: str) -> bool:
    return 0 < len(label) <= 63 and (_ALNUM | {"-"}).issuperset(label) and label[0] != "-" and label[-1] != "-"


def is_path(path: str) -> bool:
    return all(_is_component(component) for component in path.split("/"))


def _is_component(component: str) -> bool:
    """Lower-case letters and digits, joined by one `.`, by one or two `_`, or by any number of `-`."""
    if not component or component[0] not in _LOWER or component[-1] not in _LOWER:
        return False
    separator = ""
    for character in component:
        if character not in _LOWER:
            separator += character
            continue
        if separator not in ("", ".", "_", "__") and separator.strip("-"):
            return False
        separator = ""
    return True
