"""A registry as the engine asks it: the first of its hosts that answers, mirrors before the registry itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from sampan.errors import InvalidRequest, SampanError
from sampan.oci.image import strict
from sampan.oci.reference import Reference, is_domain
from sampan.registry.auth import Authorizer
from sampan.registry.credentials import ANONYMOUS, Credentials, server_name
from sampan.registry.faults import AccessDenied, Missing, RegistryFailed, WrongCredentials
from sampan.registry.hosts import HUB_HOST, HUB_NAMES, Endpoint, Hosts
from sampan.registry.repository import Document, Repository
from sampan.registry.session import Session, Timing
from sampan.registry.upload import Uploads

AGENT = "sampan/0.1 (linux)"


@dataclass(frozen=True)
class Found:
    """A manifest and the repository, on the host that had it."""

    document: Document
    repository: Repository


class Client:
    """Makes conversations with registries.  One for the daemon's life; keeps settings and TLS contexts."""

    def __init__(self, hosts: Hosts, timing: Timing = Timing(), agent: str = AGENT) -> None:
        self.hosts = hosts
        self.timing = timing
        self._agent = agent

    def _session(self, endpoint: Endpoint, credentials: Credentials, *, offline: bool = False) -> Session:
        own = ANONYMOUS if endpoint.mirror else credentials.for_domain(endpoint.domain)
        return Session(self.hosts, endpoint, Authorizer(own, offline=offline), timing=self.timing, agent=self._agent)

    @asynccontextmanager
    async def find(self, reference: Reference, credentials: Credentials) -> AsyncIterator[Found]:
        """Find what `reference` (with tag or digest) names, on the first host that has it.

        Raises the registry's own refusal when no mirror had it either.
        """
        wanted = reference.digest or reference.tag
        async with AsyncExitStack() as held:
            endpoints = self.hosts.endpoints(reference.domain)
            for endpoint in endpoints:
                session = await held.enter_async_context(self._session(endpoint, credentials))
                repository = Repository(session, reference.path)
                try:
                    found = Found(await repository.manifest(wanted), repository)
                except SampanError:
                    if endpoint is endpoints[-1]:
                        raise
                    continue
                yield found
                return

    @asynccontextmanager
    async def repository(self, reference: Reference, credentials: Credentials) -> AsyncIterator[Repository]:
        """Open the repository on the registry itself."""
        endpoint = self.hosts.endpoints(reference.domain, push=True)[0]
        async with self._session(endpoint, credentials) as session:
            yield Repository(session, reference.path)

    @asynccontextmanager
    async def uploads(self, reference: Reference, credentials: Credentials) -> AsyncIterator[tuple[Repository, Uploads]]:
        async with self.repository(reference, credentials) as repository:
            yield repository, Uploads(repository)

    async def login(self, credentials: Credentials) -> str:
        """Try the credentials; return the identity token that the registry gives for them, "" for none.

        Raises InvalidRequest, WrongCredentials, RegistryFailed, Forbidden.
        """
        domain = server_name(credentials.serveraddress or "docker.io")
        if not is_domain(domain):
            raise InvalidRequest(f"invalid registry address {domain[:100]!r}: HOST or HOST:PORT is needed")
        endpoint = self.hosts.endpoint(domain, HUB_HOST if domain in HUB_NAMES else domain)
        async with self._session(endpoint, credentials, offline=True) as session:
            try:
                response = await session.open("GET", "/v2/")
            except AccessDenied as error:
                raise WrongCredentials(f"unauthorized: {error}") from error
            except Missing as error:
                raise RegistryFailed(f"{endpoint.host} is no registry: {error}") from error
            except ValueError as error:  # a number too large for an address, for one
                raise InvalidRequest(f"invalid registry address {domain[:100]!r}: {error}") from None
            response.release()
            return session.authorizer.refresh_token

    async def search(self, term: str, limit: int, credentials: Credentials) -> list[dict[str, object]]:
        """Ask Docker Hub's index for `term`.  Raises RegistryFailed, Interrupted."""
        from urllib.parse import quote

        async with self._session(self.hosts.endpoint("docker.io", "index.docker.io"), credentials) as session:
            _, content = await session.document("GET", f"/v1/search?q={quote(term, safe='')}&n={limit}", limit=4 << 20)
        value = strict(content, "answer to a search")
        rows = value.get("results", []) if isinstance(value, dict) else []
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
