"""image prune --keep and --unused-for: the newest tags stay, and what was used lately."""

from __future__ import annotations

import io
import threading
import time
from typing import Any

import pytest

from sampan.errors import InvalidRequest
from support.places import Place, collect
from support.registry import Handler, Registry, digest
from support.tars import archive, member

DAY = 86400 * 10**9


def make(place: Place, repo: str, tag: str) -> str:
    tar = archive(member(f"{repo}-{tag}"))
    return place.run(collect(place.images.import_(io.BytesIO(tar), repo=repo, tag=tag, message="", changes=[], platform="")))[
        -1
    ].status


def prune(place: Place, **filters: str) -> Any:
    return place.run(place.images.prune({key.replace("_", "-"): (value,) for key, value in filters.items()}))


def tags(place: Place) -> set[str]:
    return {tag.familiar for tag in place.images.catalogue.tags()}


def test_the_newest_tags_of_every_repository_stay(place: Place) -> None:
    for tag in ("1", "2", "3"):
        make(place, "a", tag)
    make(place, "b", "1")
    freed = prune(place, keep="2")
    assert tags(place) == {"a:2", "a:3", "b:1"}
    assert [one.untagged for one in freed.images_deleted if one.untagged] == ["a:1"]
    assert len(place.images.catalogue.all()) == 3


def test_an_image_with_a_spared_tag_loses_only_the_others(place: Place) -> None:
    make(place, "a", "1")
    place.run(place.images.tag("a:1", "a", "old"))
    place.run(place.images.tag("a:1", "a", "new"))
    prune(place, keep="1")
    assert tags(place) == {"a:new"}
    assert len(place.images.catalogue.all()) == 1


def test_what_was_used_lately_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    used, unused = make(place, "a", "1"), make(place, "b", "1")
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 20 * DAY)
    place.images.used(place.images.resolve(used).id)
    prune(place, unused_for="240h")
    assert tags(place) == {"a:1"}
    place.again()
    monkeypatch.setattr(time, "time_ns", lambda: now + 25 * DAY)
    prune(place, unused_for="240h")
    assert tags(place) == {"a:1"}, "when an image was used is kept over a restart"
    assert unused


@pytest.mark.parametrize("wrong", [{"keep": "x"}, {"keep": "-1"}, {"unused_for": "soon"}, {"unused_for": ""}])
def test_rules_that_make_no_sense_are_refused(place: Place, wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        prune(place, **wrong)


def test_layers_of_a_cancelled_pull_go_with_a_prune(place: Place) -> None:
    finished = threading.Event()
    with Registry() as registry:
        made = registry.image("a", "1", archive(member("x")), b"no archive" * 100)

        def hold(handler: Handler) -> bool:
            if handler.path.endswith(digest(made.blobs[1])):
                assert finished.wait(10)
            return False

        async def pull() -> None:
            async for one in place.images.pull(f"{registry.host}/a", tag="1", platform="", auth=""):
                if one.status == "Pull complete":
                    finished.set()

        registry.hooks.append(hold)
        with pytest.raises(Exception, match="failed to register layer"):
            place.run(pull())
        assert len(place.layers.layers()) == 1
        prune(place)
        assert not place.layers.layers()
