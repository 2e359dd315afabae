"""Questions to registries that store nothing here: what is under a name, who may log in, what can be found."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import UNSET

from sampan.engine.images.filters import boolean, check_keys
from sampan.engine.images.pull import opened
from sampan.errors import Broken, InvalidRequest, Unsupported
from sampan.oci import image as oci
from sampan.oci.reference import parse
from sampan.registry.client import Client
from sampan.registry.credentials import Credentials, server_name
from sampan.registry.faults import AccessDenied, Missing
from sampan.registry.hosts import HUB
from sampan.wire.registry import AuthAnswer, AuthConfig, Distribution, OfDescriptor, OfPlatform, SearchResult

Filters = Mapping[str, tuple[str, ...]]
DEFAULT_LIMIT = 25


async def distribution(client: Client, ref: str, credentials: Credentials) -> Distribution:
    """Return the descriptor of what a name means on its registry, and the platforms it is for.

    Raises NotFound, Forbidden when the registry does not let us, InvalidRequest for a bad reference.
    """
    reference = parse(ref).tagged()
    async with opened(client, reference, credentials) as found:
        document = found.document
        value = oci.read_manifest(document.content, document.media_type, f"manifest {reference.familiar}")
        if isinstance(value, oci.Index):
            platforms = [_platform(one.platform) for one in value.manifests if one.platform is not None]
        else:
            content = await found.repository.small_blob(value.config.checked(), value.config.size)
            config = oci.decode(content, oci.ImageConfig, f"configuration of {reference.familiar}")
            platforms = [_platform(oci.Platform(architecture=config.architecture, os=config.os, variant=config.variant))]
    descriptor = OfDescriptor(media_type=document.media_type, digest=document.digest, size=document.size)
    return Distribution(descriptor=descriptor, platforms=platforms)


def _platform(given: oci.Platform) -> OfPlatform:
    return OfPlatform(
        architecture=given.architecture, os=given.os, variant=given.variant or UNSET, os_version=given.os_version or UNSET
    )


async def login(client: Client, body: AuthConfig) -> AuthAnswer:
    """Try credentials.  Raises Unauthorized, Broken."""
    credentials = msgspec.convert(msgspec.to_builtins(body), Credentials)
    if credentials.anonymous:
        raise InvalidRequest("no credentials given")
    token = await client.login(credentials)
    return AuthAnswer(identity_token=token)


async def search(client: Client, term: str, limit: int, filters: Filters, credentials: Credentials) -> list[SearchResult]:
    """Ask Docker Hub's index; no other registry can be searched.  Raises InvalidRequest, Unsupported, Broken."""
    if not term:
        raise InvalidRequest("a term to search for is needed")
    if not 0 <= limit <= 100:
        raise InvalidRequest(f"limit {limit} is outside the range of [1, 100]")
    check_keys(filters, ("is-automated", "is-official", "stars"))
    name, slash, rest = term.partition("/")
    if slash and ("." in name or ":" in name or name == "localhost"):
        if server_name(name) != HUB:
            raise Unsupported(
                f"registry {name[:200]} cannot be searched: the distribution API has no search; "
                f"`docker pull -a {term[:200]}` fetches every tag of a repository"
            )
        term = rest
    try:
        rows = await client.search(term, limit or DEFAULT_LIMIT, credentials)
    except (Missing, AccessDenied) as error:
        raise Broken(f"searching Docker Hub: {error}") from error
    try:
        found = [msgspec.convert(row, SearchResult, strict=False) for row in rows]
    except msgspec.ValidationError as error:
        raise Broken(f"searching Docker Hub: {error}") from error
    return [one for one in found if _wanted(one, filters)]


def _wanted(one: SearchResult, filters: Filters) -> bool:
    official, automated = boolean(filters, "is-official"), boolean(filters, "is-automated")
    stars = [text for text in filters.get("stars", ()) if not (text.isascii() and text.isdigit() and len(text) < 10)]
    if stars:
        raise InvalidRequest(f"invalid filter 'stars={stars[0][:40]}'")
    return (
        (official is None or one.is_official == official)
        and (automated is None or one.is_automated == automated)
        and all(one.star_count >= int(text) for text in filters.get("stars", ()))
    )
