"""What went through Python's tarfile and its filters goes nowhere here (SECURITY.md P13); tests/engine loads the same archives."""

from __future__ import annotations

import gc
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.files.tar_apply import BadArchive, Options, Whiteouts
from support.tar_attacks import attacks
from support.tars import PLAIN_USER, Yard, archive, hardlink, member, yard

ATTACKS = attacks("../canary")


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Yard]:
    with yard(tmp_path) as made:
        yield made


@pytest.mark.parametrize("mode", [Whiteouts.PLAIN, Whiteouts.REMOVE])
@pytest.mark.parametrize("name", ATTACKS)
def test_p13_what_tarfile_let_out_stays_inside_or_is_refused(at: Yard, name: str, mode: Whiteouts) -> None:
    try:
        at.apply(ATTACKS[name], whiteouts=mode)
    except BadArchive as refused:
        assert "at byte" in str(refused)


def test_p13_the_harness_sees_tarfile_go_out(tmp_path: Path) -> None:
    """The control: unpacked by tarfile without a filter, most of the archives reach the canary."""
    out = []
    for number, (name, data) in enumerate(ATTACKS.items()):
        place = tmp_path / str(number)
        place.mkdir()
        try:
            with yard(place) as at, tarfile.open(fileobj=io.BytesIO(data)) as tar:
                tar.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
                try:
                    tar.extractall(at.root)
                except (OSError, tarfile.TarError, KeyError):
                    pass
        except AssertionError:
            out.append(name)
    gc.collect()  # what tarfile has left open, before another test counts descriptors
    assert {name for name in ATTACKS if name.startswith(("cve_2025_4517", "cve_2025_4330", "cve_2025_4138"))} <= set(out), out


def test_p13_cve_2025_4435_what_is_refused_is_not_there(at: Yard) -> None:
    with pytest.raises(BadArchive):
        at.apply(archive(member("good"), hardlink("bad", "../canary/CANARY"), member("after")))
    assert os.listdir(at.root) == ["good"]


def test_p13_cve_2026_4360_no_way_to_a_setuid_file_where_none_may_be(at: Yard) -> None:
    plain = Options(owner=PLAIN_USER.owner, special=False)
    at.apply(archive(member("a", mode=0o6755), hardlink("b", "a", mode=0o6755), member("b", mode=0o4755)), options=plain)
    assert [path.stat().st_mode & 0o6000 for path in sorted(at.root.iterdir())] == [0, 0]
