"""Removing names and images, with Docker's rules and words for what is in the way."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from sampan.content.images import ImageRecord
from sampan.engine.images.context import Event, Stores
from sampan.engine.images.filters import Filters, boolean, check_keys, duration, labels_match, until
from sampan.engine.images.image import nanoseconds, short
from sampan.errors import Conflict, InvalidRequest, SampanError
from sampan.oci.digest import Digest
from sampan.oci.reference import Reference
from sampan.wire.images import Deleted, PruneResult

_pruning = threading.Lock()


@dataclass
class Removal:
    """What a removal did, in order, and the events that tell of it."""

    done: list[Deleted] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    freed: int = 0


def remove(stores: Stores, ref: str, *, force: bool, prune: bool) -> Removal:
    """Take a name away and, when it was the last, the image with its layers (and with `prune` its untagged parents).

    Raises NotFound, InvalidRequest for a blank name, Conflict when containers or other names are in the way.
    """
    if not ref.strip():
        raise InvalidRequest("image name cannot be blank")
    image, reference = stores.catalogue.resolve(ref)
    removal = Removal()
    names = [*stores.catalogue.tags(image), *stores.catalogue.repo_digests(image)]
    if reference is not None:
        others = _others(names, reference)
        if others:
            for name in [one for one in names if one not in others]:
                _untag(stores, image, name, removal)
            return removal
        _refuse_last_name(stores, image, ref, force)
    else:
        repositories = {name.name for name in names}
        tags = [name for name in names if name.tag]
        if not force and (len(repositories) > 1 or len(tags) > 1):
            raise _conflict(image, "must be forced", "image is referenced in multiple repositories")
    children = Counter(record.parent for record in stores.catalogue.all())
    _refuse_users(stores, image, force, children)
    _delete(stores, image, removal, children, prune=prune)
    freed, layers = stores.collect()
    removal.freed += freed
    removal.done += [Deleted(deleted=chain) for chain in layers]
    return removal


def _others(names: list[Reference], reference: Reference) -> list[Reference]:
    """Return the names that stay when `reference` goes; digests of its repository go with the repository's last tag."""
    rest = [name for name in names if name != reference]
    tagged = {name.name for name in rest if name.tag}
    return [name for name in rest if name.tag or name.name != reference.name or name.name in tagged or reference.digest]


def _refuse_last_name(stores: Stores, image: Digest, ref: str, force: bool) -> None:
    users = stores.in_use(image)
    if users and not force:
        raise Conflict(
            f'conflict: unable to remove repository reference "{ref}" (must force) - '
            f"container {short(users[0][0])} is using its referenced image {short(image)}"
        )


def _refuse_users(stores: Stores, image: Digest, force: bool, children: Counter[str]) -> None:
    users = stores.in_use(image)
    for container, running in users:
        if running:
            reason = f"image is being used by running container {short(container)}"
            raise _conflict(image, "cannot be forced", reason)
    if children[image]:
        raise _conflict(image, "cannot be forced", "image has dependent child images")
    if users and not force:
        raise _conflict(image, "must be forced", f"image is being used by stopped container {short(users[0][0])}")


def _conflict(image: Digest, how: str, reason: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {short(image)} ({how}) - {reason}")


def _untag(stores: Stores, image: Digest, name: Reference, removal: Removal) -> None:
    event = stores.event("untag", image, name.familiar)
    if stores.catalogue.untag(name):
        removal.done.append(Deleted(untagged=name.familiar))
        removal.events.append(event)


def _delete(stores: Stores, image: Digest, removal: Removal, children: Counter[str], *, prune: bool) -> None:
    """Forget the image, then with `prune` each ancestor that has neither a name, nor a child, nor a container.

    children: how many each image has; kept true.
    """
    while True:
        record = stores.catalogue.get(image)
        event = stores.event("delete", image)
        with stores.catalogue.state.batch():  # one commit for all its names
            for name in (*stores.catalogue.tags(image), *stores.catalogue.repo_digests(image)):
                _untag(stores, image, name, removal)
            stores.catalogue.forget(image)
        removal.done.append(Deleted(deleted=image))
        removal.events.append(event)
        children[record.parent] -= 1
        parent = Digest(record.parent)
        if not prune or not parent or stores.catalogue.find(parent) is None:
            return
        named = stores.catalogue.tags(parent) or stores.catalogue.repo_digests(parent)
        if named or stores.in_use(parent) or children[parent]:
            return
        image = parent


class Rules:
    """What a prune leaves alone."""

    def __init__(self, filters: Filters) -> None:
        self._filters = filters
        self._latest = until(filters)
        keep = filters.get("keep", ())
        if len(keep) > 1 or any(not (one.isascii() and one.isdigit() and len(one) < 7) for one in keep):
            raise InvalidRequest("keep takes one number")
        self._keep = int(keep[0]) if keep else None
        unused = filters.get("unused-for", ())
        ages = [duration(one) for one in unused]
        if len(ages) > 1 or None in ages:
            raise InvalidRequest('unused-for takes one duration, such as "240h"')
        self._since = time.time_ns() - (ages[0] or 0) if ages else None
        wide = self._keep is not None or self._since is not None
        self._only_dangling = not wide and boolean(filters, "dangling") is not False

    def spared(self, stores: Stores) -> frozenset[Reference]:
        """Return the newest tags of every repository, as many as are to be kept."""
        if self._keep is None:
            return frozenset()
        by_repository: dict[str, list[Reference]] = {}
        for tag in stores.catalogue.tags():
            by_repository.setdefault(tag.name, []).append(tag)
        return frozenset(
            tag for tags in by_repository.values() for tag in sorted(tags, key=stores.catalogue.since, reverse=True)[: self._keep]
        )

    def stays(self, stores: Stores, record: ImageRecord, spared: frozenset[Reference]) -> bool:
        """Return whether the image is left alone with all its names."""
        facts = stores.catalogue.facts(record)
        names = [*stores.catalogue.tags(record.id), *stores.catalogue.repo_digests(record.id)]
        tags = [name for name in names if name.tag]
        return (
            (self._only_dangling and bool(names))
            or (self._latest is not None and nanoseconds(facts.created) >= self._latest)
            or (self._since is not None and stores.catalogue.last_used(record) > self._since)
            or (bool(tags) and all(tag in spared for tag in tags))
            or not labels_match(self._filters, facts.labels)
        )


def prune(stores: Stores, filters: Filters) -> tuple[PruneResult, list[Event]]:
    """Remove dangling images, or with `dangling=false` every image without a container.

    keep=N spares the N newest tags of every repository, and unused-for=DURATION what was used since; both mean all images.
    Unfinished downloads and layers without an image go too.  Raises InvalidRequest, Conflict when another prune is running.
    """
    check_keys(filters, ("dangling", "keep", "label", "label!", "unused-for", "until"))
    rules = Rules(filters)
    if not _pruning.acquire(blocking=False):
        raise Conflict("a prune operation is already running")
    try:
        total = Removal()
        spared = rules.spared(stores)
        records = stores.catalogue.all()
        children = Counter(record.parent for record in records)
        for record in records:
            try:
                if rules.stays(stores, record, spared) or stores.in_use(record.id):
                    continue
                _refuse_users(stores, record.id, False, children)
                names = stores.catalogue.tags(record.id)
                if any(name in spared for name in names):
                    for name in names:
                        if name not in spared:
                            _untag(stores, record.id, name, total)
                    continue
                _delete(stores, record.id, total, children, prune=True)
            except SampanError:  # it is in use by now, or gone, or has children
                continue
        stores.catalogue.drop_kept(time.time_ns())
        freed, layers = stores.collect()
        total.done += [Deleted(deleted=chain) for chain in layers]
    finally:
        _pruning.release()
    if total.done:
        total.events.append(Event("prune", "", {"reclaimed": str(freed)}))
    return PruneResult(images_deleted=total.done or None, space_reclaimed=freed), total.events
