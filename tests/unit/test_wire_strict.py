"""JSON from strangers."""

from __future__ import annotations

import time

import pytest

from sampan.errors import InvalidRequest
from sampan.wire import strict, versions
from sampan.wire.containers import CreateBody, ExecCreate
from support.malformed import AMBIGUOUS


@pytest.mark.parametrize("data", AMBIGUOUS, ids=range(len(AMBIGUOUS)))
def test_row_49_what_is_ambiguous_or_huge_is_refused_at_once(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(InvalidRequest):
        strict.decode(data, CreateBody)
    assert time.process_time() - began < 0.1


def test_row_49_a_document_over_the_cap_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="too large"):
        strict.loads(b" " * (strict.LIMIT + 1))


def test_names_match_in_any_case_nulls_are_zeros_unknown_fields_are_ignored() -> None:
    body = strict.decode(
        b'{"image":"i","CMD":"sh","Labels":{"a":null},"env":null,"Foo":[{}],"hostconfig":{"ioMaximumIOPS":3,"Memory":null,'
        b'"KernelMemory":5,"PortBindings":{"80/tcp":null}},"ExposedPorts":{"80/tcp":null},"Tty":null}',
        CreateBody,
    )
    assert (body.image, body.cmd, body.labels, body.tty) == ("i", "sh", {"a": ""}, False)
    assert body.host_config is not None
    assert (body.host_config.io_maximum_iops, body.host_config.memory) == (3, 0)
    assert body.exposed_ports == {"80/tcp": {}}


def test_versions_compare_by_number() -> None:
    assert versions.parse("1.9") < versions.parse("1.24") < versions.NEWEST
    for bad in ("", ".", "1.", "1..2", "1.2.3.4.5", "9" * 100, "١.٢"):
        with pytest.raises(InvalidRequest):
            versions.parse(bad)


def test_old_requests_are_lifted_new_ones_left_alone() -> None:
    body = strict.decode(
        b'{"Image":"x","HostConfig":{"ConsoleSize":[1,2],"Annotations":{"a":"b"},'
        b'"Mounts":[{"Type":"bind","BindOptions":{"CreateMountpoint":true},"VolumeOptions":{"NoCopy":true}}]},'
        b'"Healthcheck":{"StartInterval":5}}',
        CreateBody,
    )
    assert versions.lift(body, versions.NEWEST) is body
    host = versions.lift(body, (1, 39)).host_config
    assert host is not None and isinstance(host.mounts, list)
    assert (host.ipc_mode, host.console_size) == ("shareable", None)
    assert host.mounts[0].bind_options is not None
    assert not host.mounts[0].bind_options.create_mountpoint
    assert host.mounts[0].volume_options is None
    assert versions.lift(ExecCreate(console_size=[1, 2]), (1, 41)).console_size is None
    image = strict.decode(b'{"HostConfig":{"Mounts":[{"Type":"image"}]}}', CreateBody)
    with pytest.raises(InvalidRequest):
        versions.lift(image, (1, 47))
