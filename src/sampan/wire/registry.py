"""What has to do with registries: credentials, DistributionInspect, search results (engine-api 1.9, 3.1, 3.4)."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from sampan.wire.shape import Shape


class AuthConfig(Shape, frozen=True, kw_only=True, rename="lower"):
    """The body of /auth."""

    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class AuthAnswer(Shape, frozen=True, kw_only=True):
    status: str = "Login Succeeded"
    identity_token: str = ""


class OfDescriptor(Shape, frozen=True, kw_only=True, rename="camel"):
    media_type: str
    digest: str
    size: int


class OfPlatform(Shape, frozen=True, kw_only=True, rename=None):
    architecture: str
    os: str
    variant: str | UnsetType = UNSET
    os_version: str | UnsetType = field(name="os.version", default=UNSET)


class Distribution(Shape, frozen=True, kw_only=True):
    """What a registry has under a name."""

    descriptor: OfDescriptor
    platforms: list[OfPlatform] = []


class SearchResult(Shape, frozen=True, kw_only=True, rename=None):
    star_count: int = 0
    is_official: bool = False
    name: str = ""
    is_automated: bool = False
    description: str = ""
