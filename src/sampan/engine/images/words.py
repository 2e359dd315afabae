"""Registries' refusals in the words and with the statuses that Docker's clients know (engine-api 1.9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sampan.errors import Broken, NotFound, SampanError
from sampan.oci.reference import Reference
from sampan.registry.faults import AccessDenied, Interrupted, Missing


@contextmanager
def explained(reference: Reference) -> Iterator[None]:
    """Turn what a registry refuses while the body pulls `reference` into Docker's words."""
    try:
        yield
    except AccessDenied as error:
        raise NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require 'docker login': {error}"
        ) from error
    except Missing as error:
        what = "manifest for" if reference.tag or reference.digest else "repository"
        raise NotFound(f"{what} {reference.familiar} not found: {error}") from error
    except Interrupted as error:
        raise Broken(str(error)) from error


@contextmanager
def push_explained() -> Iterator[None]:
    """Likewise while the body pushes.  Raises the first refusal of several uploads."""
    try:
        try:
            yield
        except (
            BaseExceptionGroup
        ) as group:  # not except*: Python 3.11.2, which Debian 12 has, puts what is raised there into a group
            refusals, others = group.split(SampanError)
            if refusals is None or others is not None:
                raise
            raise _first(refusals) from group
    except AccessDenied as error:
        raise NotFound(f"denied: requested access to the resource is denied: {error}") from error
    except Interrupted as error:
        raise Broken(str(error)) from error


def _first(group: BaseExceptionGroup[SampanError]) -> SampanError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found if isinstance(found, SampanError) else Broken(str(found))
