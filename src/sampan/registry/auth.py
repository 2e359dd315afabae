"""Answering a registry's challenge: Basic, or a Bearer token from its token service (distribution-spec, Docker's token docs).

Credentials go to the registry's own host and to a token service of the same site, never over plain HTTP when the registry
itself is spoken to with TLS.  An unknown site's token service is asked anonymously (SECURITY.md row 50).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec
from yarl import URL

from sampan.errors import Forbidden
from sampan.oci.image import decode
from sampan.registry.challenge import Challenge, parse
from sampan.registry.credentials import Credentials, may_receive
from sampan.registry.faults import RETRIED, AccessDenied, Interrupted, RegistryFailed, WrongCredentials, shown, words
from sampan.registry.hosts import HUB_NAMES

if TYPE_CHECKING:
    from sampan.registry.session import Session

CLIENT = "docker"  # token services know this one and give it refresh tokens
MAX_TOKEN = 64 << 10
LEAST_LIFE = 60.0  # seconds: a token without a stated life lives this long


class TokenAnswer(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: int = 0


class Authorizer:
    """Credentials for one registry and the tokens they gave so far.

    refresh_token: what the token service gave when one was asked for (login).
    """

    def __init__(self, credentials: Credentials, *, offline: bool = False) -> None:
        self.credentials = credentials
        self.refresh_token = ""
        self._offline = offline
        self._basic = ""
        self._asking = asyncio.Lock()
        self._tokens: dict[frozenset[str], tuple[str, float]] = {}

    def header(self, scopes: Sequence[str]) -> str:
        """Return the Authorization header known to be wanted, "" for none."""
        if self.credentials.registrytoken:
            return "Bearer " + _safe(self.credentials.registrytoken)
        token, until = self._tokens.get(frozenset(scopes), ("", 0.0))
        return f"Bearer {token}" if token and until > time.monotonic() else self._basic

    async def answer(self, headers: Sequence[str], scopes: Sequence[str], session: Session, tried: str) -> str:
        """Return the Authorization header that answers a challenge, "" when there is none but `tried`.

        Raises WrongCredentials, AccessDenied, RegistryFailed, Forbidden.
        """
        challenges = parse(headers)
        if self.credentials.registrytoken:
            return ""
        for challenge in challenges:
            if challenge.scheme == "bearer":
                async with self._asking:  # requests that are made side by side share one token
                    known = self.header(scopes)
                    return known if known not in ("", tried) else await self._bearer(challenge, scopes, session)
        for challenge in challenges:
            if challenge.scheme == "basic":
                self._basic = self.credentials.basic() if any(self.credentials.user) else ""
                return self._basic if self._basic != tried else ""
        return ""

    async def _bearer(self, challenge: Challenge, scopes: Sequence[str], session: Session) -> str:
        service = challenge.parameters.get("service", "")
        wanted = list(scopes) or [one for one in challenge.parameters.get("scope", "").split(" ") if one]
        realm = _realm(challenge.parameters.get("realm", ""), session)
        own = may_receive(realm.authority, session.endpoint.host) or _is_hub(realm, session)
        credentials = self.credentials if own else Credentials()
        answer = await self._ask(realm, service, wanted, credentials, session)
        token = answer.token or answer.access_token
        if not token:
            raise RegistryFailed(f"the token service {shown(str(realm))} gave no token")
        self.refresh_token = answer.refresh_token
        until = time.monotonic() + max(LEAST_LIFE, float(min(answer.expires_in, 86400))) * 0.9
        self._tokens[frozenset(scopes)] = (_safe(token), until)
        return f"Bearer {token}"

    async def _ask(
        self, realm: URL, service: str, scopes: Sequence[str], credentials: Credentials, session: Session
    ) -> TokenAnswer:
        if credentials.identitytoken:
            form = {"grant_type": "refresh_token", "refresh_token": credentials.identitytoken}
            return await self._post(realm, service, scopes, form, session)
        user, _ = credentials.user
        query = [*([("account", user)] if user else []), *(("scope", one) for one in scopes)]
        query += [("service", service)] if service else []
        query += [("client_id", CLIENT), ("offline_token", "true")] if self._offline else []
        headers = {"Authorization": credentials.basic()} if any(credentials.user) else {}
        status, content = await self._exchange(session, "GET", realm, query, headers)
        if status in (404, 405) and headers:
            user, password = credentials.user
            form = {"grant_type": "password", "username": user, "password": password}
            return await self._post(realm, service, scopes, form, session)
        return _read(status, content, realm, asked=bool(headers))

    async def _post(self, realm: URL, service: str, scopes: Sequence[str], form: dict[str, str], session: Session) -> TokenAnswer:
        fields = {**form, "client_id": CLIENT, "service": service}
        if scopes:
            fields["scope"] = " ".join(scopes)
        if self._offline:
            fields["access_type"] = "offline"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        status, content = await self._exchange(session, "POST", realm, [], headers, urlencode(fields).encode())
        return _read(status, content, realm, asked=True)

    async def _exchange(
        self, session: Session, method: str, realm: URL, query: list[tuple[str, str]], headers: dict[str, str], body: bytes = b""
    ) -> tuple[int, bytes]:
        """Ask the token service; it may redirect nowhere.  Another port of the registry's host counts as the registry's."""
        url = realm if not query else realm.with_query(list(realm.query.items()) + query)
        content = await session.ask(method, url, headers, body or None, MAX_TOKEN)
        if content[0] in RETRIED:
            raise Interrupted(f"{shown(str(realm))}: {words(content[1])[1] or f'status {content[0]}'}")
        return content


def _realm(text: str, session: Session) -> URL:
    try:
        realm = URL(text)
    except ValueError:
        realm = URL()
    if realm.scheme not in ("http", "https") or not realm.host or realm.user is not None:
        raise RegistryFailed(f"the registry names an invalid token service: {text[:200]!r}")
    if realm.scheme == "http" and session.endpoint.verify:
        raise Forbidden(f"the registry names a token service without encryption: {shown(text)}")
    return realm


def _is_hub(realm: URL, session: Session) -> bool:
    return realm.host == "auth.docker.io" and session.endpoint.domain in HUB_NAMES and not session.endpoint.mirror


def _read(status: int, content: bytes, realm: URL, *, asked: bool) -> TokenAnswer:
    if status == 200:
        return decode(content, TokenAnswer, f"answer of {shown(str(realm))}")
    _, text = words(content)
    if status in (400, 401, 403) and asked:
        raise WrongCredentials(text or "unauthorized: incorrect username or password")
    if status in (401, 403):
        raise AccessDenied(text or "denied: requested access to the resource is denied")
    raise RegistryFailed(f"{shown(str(realm))}: {text or f'unexpected status {status}'}")


def _safe(token: str) -> str:
    if len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise RegistryFailed("a token holds characters that no header may have")
    return token
