"""The builder's parts that need neither root nor a daemon: modes, stubs, selections, kept contexts, messages, keys."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from sampan.build.builder import Builder
from sampan.build.cache import Cache, StepRecord, bounded, key_of
from sampan.build.checks import check, warnings
from sampan.build.chmod import change
from sampan.build.digests import Digests
from sampan.build.outbox import ROOM, Kept, Outbox
from sampan.build.parse import parse
from sampan.build.plan import plan
from sampan.build.prefix import Before, Pieces, read_prefix
from sampan.build.prune import Wanted
from sampan.build.report import Console
from sampan.build.scope import Request
from sampan.build.select import Picked, Root, pick, resolve
from sampan.build.synced import Synced
from sampan.client import context as client_context
from sampan.client.context import entries, told
from sampan.client.errors import BadContext
from sampan.errors import Conflict, InvalidRequest, NotFound
from sampan.files.ignore import Ignore
from sampan.files.stubs import remove_stubs
from sampan.kernel.fds import Fd, open_fd
from sampan.state import State
from sampan.wire.images import Progress


def folder(path: Path) -> Fd:
    return open_fd(path, os.O_RDONLY | os.O_DIRECTORY)


@pytest.mark.parametrize(
    ("text", "before", "is_folder", "after"),
    [
        ("", 0o640, False, 0o640), ("755", 0o600, False, 0o755), ("4755", 0o600, False, 0o4755),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o600, True, 0o755), ("u=rwX,go=rX", 0o700, False, 0o755), ("a+x", 0o644, False, 0o755),
        ("+x", 0o644, False, 0o755), ("go-rwx", 0o777, False, 0o700), ("g=u", 0o640, False, 0o660), ("u+s", 0o755, False, 0o4755),
        ("+t", 0o755, True, 0o1755), ("o=", 0o757, False, 0o750), ("u+x-w", 0o644, False, 0o544),
    ],
)  # fmt: skip
def test_modes_change_as_by_chmod(text: str, before: int, is_folder: bool, after: int) -> None:
    assert oct(change(text, before, folder=is_folder)) == oct(after)


class Layer:
    """A layer over another, as plain folders."""

    def __init__(self, top: Path) -> None:
        self.upper, self.below = top / "upper", top / "below"
        self.upper.mkdir()
        self.below.mkdir()

    def clean(self, *targets: str) -> list[str]:
        with folder(self.upper) as upper, folder(self.below) as below:
            remove_stubs(upper, below, targets)
        return sorted(str(path.relative_to(self.upper)) for path in self.upper.rglob("*"))


def test_empty_mount_points_go_with_the_folders_made_for_them(tmp_path: Path) -> None:
    layer = Layer(tmp_path)
    (layer.below / "etc").mkdir(mode=0o755)
    (layer.upper / "etc").mkdir(mode=0o755)
    (layer.upper / "etc/hosts").touch()
    (layer.upper / "run/secrets").mkdir(parents=True)
    (layer.upper / "run/secrets/s").touch()
    (layer.upper / "kept").mkdir()

    assert layer.clean("/etc/hosts", "/run/secrets/s", "/proc") == ["kept"]


def test_what_says_something_stays(tmp_path: Path) -> None:
    layer = Layer(tmp_path)
    (layer.below / "etc").mkdir(mode=0o755)
    (layer.upper / "etc").mkdir(mode=0o700)  # the step changed it
    (layer.upper / "etc/hosts").write_text("content")
    (layer.upper / "proc").mkdir()
    (layer.upper / "proc/file").touch()

    assert layer.clean("/etc/hosts", "/proc") == ["etc", "etc/hosts", "proc", "proc/file"]


def test_row_61_no_link_is_followed_to_a_stub(tmp_path: Path) -> None:
    layer = Layer(tmp_path)
    outside = tmp_path / "host"
    outside.mkdir()
    (outside / "b").touch()
    (layer.upper / "a").symlink_to(outside)

    assert layer.clean("/a/b") == ["a"]
    assert (outside / "b").exists()


def test_row_70_sources_stop_at_the_root(tmp_path: Path) -> None:
    top = tmp_path / "context"
    (top / "d").mkdir(parents=True)
    (top / "d/x").write_text("1")
    (top / "out").symlink_to("/etc")
    (top / "in").symlink_to("/d")
    with folder(top) as fd:
        root = Root(fd, Ignore(()))

        assert [one.path for one in resolve(root, "../../d/../d")] == ["d"]
        assert resolve(root, "in")[0].folder
        for bad in ("out", "out/passwd", "nothing", "*.none"):
            with pytest.raises(NotFound, match="file not found in build context"):
                resolve(root, bad)
        picked = list(pick(root, resolve(root, "in"), parents=False, exclude=Ignore(()), into_folder=True))
        assert [one.name for one in picked] == ["x"]


def test_a_left_out_source_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with folder(tmp_path) as fd, pytest.raises(NotFound, match="left out by .dockerignore"):
        resolve(Root(fd, Ignore(["a"])), "a")


def test_content_is_read_once_while_its_metadata_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    digests = Digests()
    with folder(tmp_path) as fd:
        root = Root(fd, Ignore(()), namespace="kept")

        def entry() -> str:
            return digests.entry(root, Picked("a", "a", root.lstat("a")))

        first = entry()
        assert (entry(), digests.read) == (first, 1)
        os.utime(tmp_path / "a", ns=(5, 5))
        assert (entry(), digests.read) == (first, 2)  # read again, and the same: times are no part of it
        (tmp_path / "a").write_text("2")
        assert entry() != first


def test_a_file_written_for_this_build_is_read_whatever_is_remembered_of_its_inode(tmp_path: Path) -> None:
    """The same inode, size, mtime and ctime: two files of one tick of the clock, as git's index knows them."""
    (tmp_path / "a").write_text("1")
    digests = Digests()
    with folder(tmp_path) as fd:
        root = Root(fd, Ignore(()), namespace="kept")
        same = Picked("a", "a", root.lstat("a"))
        first = digests.entry(root, same)
        (tmp_path / "a").write_text("2")
        second = digests.entry(replace(root, fresh=frozenset({"a"})), same)

        assert first != second
        assert digests.entry(root, same) == second


FILE, FOLDER, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


def test_a_kept_context_wants_what_changed_and_forgets_what_is_gone(tmp_path: Path) -> None:
    synced = Synced(tmp_path / "synced")
    key = "0" * 64
    token, wanted = synced.tell(key, [("d", FOLDER, 4096, 1, ""), ("d/a", FILE, 1, 1, ""), ("l", LINK, 1, 1, "d/a")])
    assert wanted == ["d", "d/a", "l"]
    told, tree = synced.claim(token)
    with tree:
        os.mkdir("d", dir_fd=tree.fileno())
        (tmp_path / "synced" / key / "tree/d/a").write_text("1")
    synced.release(told, whole=True)
    token, wanted = synced.tell(key, [("d", FOLDER, 0, 9, ""), ("d/b", FILE, 1, 1, ""), ("l", LINK, 1, 9, "d/a")])

    assert wanted == ["d/b"]
    told, tree = synced.claim(token)
    tree.close()
    assert not (tmp_path / "synced" / key / "tree/d/a").exists()
    with pytest.raises(NotFound):
        synced.claim(token)
    with pytest.raises(Conflict):
        synced.tell(key, [])
    synced.release(told, whole=False)
    assert synced.tell(key, [("l", LINK, 1, 1, "x")])[1] == ["l"]
    assert synced.trim(0) == []  # it is told, so it is in use


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../b", "a//b", ".", "a\0b"])
def test_row_69_a_kept_context_has_no_path_that_leads_out(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidRequest):
        Synced(tmp_path / "synced").tell("0" * 64, [(path, FILE, 1, 1, "")])


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 7, (99).to_bytes(8, "big") + b"{}", (1 << 40).to_bytes(8, "big"), (2).to_bytes(8, "big") + b"[]",
     (21).to_bytes(8, "big") + b'{"secrets":{"a":"!"}}', (40).to_bytes(8, "big") + b'{"uploads":[{"kind":"spell","name":"a"}]}'],
)  # fmt: skip
def test_row_64_what_stands_before_the_tar_is_checked(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_prefix(io.BytesIO(content))


def test_secrets_and_token_come_before_the_tar() -> None:
    told = b'{"secrets":{"a":"Yg=="},"context":"t"}'
    upload = io.BytesIO(len(told).to_bytes(8, "big") + told + b"tar")

    assert read_prefix(upload) == Before({"a": b"b"}, "t")
    assert upload.read() == b"tar"


def test_uploads_come_in_pieces_and_in_order() -> None:
    told = b'{"uploads":[{"kind":"context","name":"a"},{"kind":"cache","name":""}]}'
    pieces = b"\0\0\0\3abc\0\0\0\1d" + bytes(4) + bytes(4)
    upload = io.BytesIO(len(told).to_bytes(8, "big") + told + pieces + b"tar")
    found = read_prefix(upload).uploads
    first, second = Pieces(upload), Pieces(upload)

    assert [(one.kind, one.name) for one in found] == [("context", "a"), ("cache", "")]
    assert [first.read(2), first.read(), first.read(), first.read(), first.read()] == [b"ab", b"c", b"d", b"", b""]
    second.drain()
    assert upload.read() == b"tar"


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"\0\0\0\5abc"])
def test_row_64_an_upload_that_breaks_off_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        Pieces(io.BytesIO(content)).drain()


def test_a_file_that_may_change_without_a_change_of_its_time_is_sent_again(tmp_path: Path) -> None:
    """Written while the folder is read: a second change within the same tick would be seen by nobody."""
    for name in ("old", "new", "whole"):
        (tmp_path / name).write_text(name)
    begun = 1_700_000_000_500_000_000
    for name, before in (("old", 21_000_000), ("new", 19_000_000), ("whole", 500_000_000)):
        os.utime(tmp_path / name, ns=(begun - before, begun - before))
    found = dict(entries(str(tmp_path), Ignore(())))
    first = told(str(tmp_path), found, begun)
    kept = Synced(tmp_path.parent / "kept")
    named, wanted = kept.tell("a" * 64, first)
    context, tree = kept.claim(named)
    tree.close()
    kept.release(context, whole=True)

    assert {one[0]: one[3] for one in first} == {"old": begun - 21_000_000, "new": -1, "whole": -1}
    assert sorted(wanted) == ["new", "old", "whole"]
    assert sorted(kept.tell("a" * 64, first)[1]) == ["new", "whole"]
    kept._told.clear()
    later = told(str(tmp_path), found, begun + 10**10)
    assert sorted(kept.tell("a" * 64, later)[1]) == ["new", "whole"]
    tree_of_it = tmp_path.parent / "kept" / ("a" * 64) / "tree"
    for path, _, size, mtime, _ in later:  # as a build that is broken off now may leave it
        (tree_of_it / path).write_bytes(bytes(size))
        (tree_of_it / path).chmod(0o644)
        os.utime(tree_of_it / path, ns=(mtime, mtime))
    another = Synced(tmp_path.parent / "kept")  # the next daemon: the time in the tree is the one that says nothing
    named, wanted = another.tell("a" * 64, later)
    assert sorted(wanted) == ["new", "whole"]
    context, tree = another.claim(named)
    tree.close()
    another.release(context, whole=True)
    assert Synced(tmp_path.parent / "kept").tell("a" * 64, later)[1] == []


def test_what_goes_while_a_folder_is_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Editors and compilers work on while their folder is sent; but what a daemon was told it has to get."""
    for name in ("a", "b", "d/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = dict(entries(str(tmp_path), Ignore(())))
    walk = entries(str(tmp_path), Ignore(()))
    first = next(walk)
    (tmp_path / "d/x").unlink()
    (tmp_path / "d").rmdir()
    rest = [path for path, _ in walk]
    monkeypatch.setattr(client_context, "entries", lambda *_: iter(found.items()))
    sent = b"".join(client_context.tar(str(tmp_path), Ignore(()), {}))
    with tarfile.open(fileobj=io.BytesIO(sent)) as archive:
        names = archive.getnames()

    assert (first[0], rest) == ("a", ["b", "d"])
    assert names == ["a", "b", "d"]
    with pytest.raises(BadContext, match="d/x' went away meanwhile"):
        b"".join(client_context.wanted_tar(str(tmp_path), found, ["a", "d/x"]))


def test_a_context_can_be_told_again_while_its_build_gives_it_back(tmp_path: Path) -> None:
    """Refused, the client would send all of it: fifty thousand files, and every one of them read."""
    builder = object.__new__(Builder)
    builder._synced, builder._notes = Synced(tmp_path / "kept"), set()
    key, content = "a" * 64, b'[["x",33188,1,1,""]]'

    async def both() -> list[str]:
        first = await builder.tell(key, io.BytesIO(content))
        context, tree = builder._synced.claim(first.token)
        tree.close()
        with pytest.raises(Conflict):
            await builder.tell(key, io.BytesIO(content))

        async def give_back() -> None:
            for _ in range(50):
                await asyncio.sleep(0)
            builder._synced.release(context, whole=True)

        builder._later(give_back())
        return (await builder.tell(key, io.BytesIO(content))).wanted

    assert asyncio.run(both()) == []


def test_whoever_prints_waits_for_a_client_that_is_behind() -> None:
    """Commands may print gigabytes: what waits for the client is bounded, and every byte arrives."""
    outbox = Outbox()
    console = Console(outbox.put, 1, outbox.room)
    lines = console.step("RUN yes")
    most, piece = 0, b"y" * 65536

    async def print_much() -> None:
        for _ in range(400):
            await lines.output(1, piece)
        outbox.end()

    async def read() -> int:
        nonlocal most
        task = asyncio.ensure_future(print_much())
        got = 0
        while (message := await outbox.get()) is not None:
            got += message.stream.count("y")
            most = max(most, outbox._size)
        await task
        return got

    assert asyncio.run(read()) == 400 * len(piece) + "Step 1/1 : RUN yes".count("y")
    assert ROOM - len(piece) < most <= ROOM + len(piece)


def test_of_a_quiet_build_that_prints_much_the_end_is_kept() -> None:
    kept = Kept()
    for number in range(100):
        kept.put(Progress(stream=f"{number:03}" * 40_000))

    assert kept.all()[0].stream == "[output cut]\n"
    assert kept.all()[-1].stream.startswith("099")
    assert sum(len(one.stream) for one in kept.all()) <= ROOM + 20


def test_steps_side_by_side_are_shown_one_after_the_other() -> None:
    said: list[Progress] = []
    console = Console(said.append, 2)
    one, two = console.step("RUN a"), console.step("RUN b")
    asyncio.run(two.output(1, b"second\n"))
    asyncio.run(one.output(2, b"first\n"))
    two.end("2")
    one.end("1")

    assert "".join(message.stream for message in said) == (
        "Step 1/2 : RUN a\n\x1b[91mfirst\n\x1b[0m ---> 1\nStep 2/2 : RUN b\nsecond\n ---> 2\n"
    )


@pytest.mark.parametrize(
    ("wanted", "free", "stays"),
    [
        ({}, 0, 0), ({"reserved": 30}, 0, 30), ({"max_used": 70}, 0, 70), ({"max_used": 70, "reserved": 90}, 0, 90),
        ({"min_free": 50}, 60, 100), ({"min_free": 50}, 20, 70), ({"min_free": 500}, 20, -380),
        ({"min_free": 500, "reserved": 10}, 0, 10),
        ({"min_free": 50, "max_used": 60}, 40, 60), ({"min_free": 50, "max_used": 95}, 40, 90),
    ],
)  # fmt: skip
def test_prune_leaves_what_was_reserved_and_frees_what_was_wanted(wanted: dict[str, int], free: int, stays: int) -> None:
    assert max(0, Wanted(**wanted).keep(100, free)) == max(0, stays)  # type: ignore[arg-type]


def test_keys_do_not_run_together_and_explanations_name_the_input(tmp_path: Path) -> None:
    assert key_of({"a": "bc"}) != key_of({"ab": "c"})
    state = State(tmp_path)
    try:
        cache = Cache(state)
        cache.put("k", StepRecord(text="RUN", layers=(), made=False, added=1, used=1))
        assert cache.explain("place", {"a": "1"}) == ["it was never built here"]
        cache.remember({"place": {"a": "1", "b": "1"}})
        assert cache.explain("place", {"a": "2", "c": "1"}) == ["a changed", "b is gone", "c is new"]
        assert cache.explain("place", {"a": "1", "b": "1"}) == ["its result is not in the cache any more"]
    finally:
        state.close()
    many = {f"file d{n % 3}/f{n}": "x" for n in range(3000)}
    assert sorted(bounded(many)) == ["file d0", "file d1", "file d2"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FROM a AS Build\n", "StageNameCasing"), ("FROM a as b\n", "FromAsCasing"),
        ("FROM a\nrun x\nRUN y\nRUN z\n", "ConsistentInstructionCasing"),
        ("FROM a AS x\nFROM b AS x\n", "DuplicateStageName"), ("FROM a AS context\n", "ReservedStageName"),
        ("FROM a\nCMD x\n", "JSONArgsRecommended"), ("FROM a\nMAINTAINER x\n", "MaintainerDeprecated"),
        ("FROM a\nWORKDIR x\n", "WorkdirRelativePath"), ('FROM a\nCMD ["x"]\nCMD ["y"]\n', "MultipleInstructionsDisallowed"),
        ("FROM a\nENV k v\n", "LegacyKeyValueFormat"), ("FROM --platform=$TARGETPLATFORM a\n", "RedundantTargetPlatform"),
        ("FROM a\nARG DB_PASSWORD\n", "SecretsUsedInArgOrEnv"),
        ("FROM --platform=linux/amd64 a\n", "FromPlatformFlagConstDisallowed"),
        ("FROM scratch\nENV A=$NOPE\n", "UndefinedVar"), ("FROM a\nEXPOSE 80/TCP\n", "ExposeProtoCasing"),
        ("FROM a\nEXPOSE 1.2.3.4:80:80\n", "ExposeInvalidFormat"), ("FROM a\nRUN x \\\n\n  y\n", "NoEmptyContinuation"),
        ("FROM busybox:$NOPE\n", "UndefinedArgInFrom"),
        ("ARG T\nFROM busybox:${T}\n", "InvalidDefaultArgInFrom"), ("ARG T\nFROM $T\n", "InvalidDefaultArgInFrom"),
    ],
)  # fmt: skip
def test_checks_name_their_rule(text: str, rule: str) -> None:
    request = Request(arguments={"T": "1"})
    assert any(line.startswith(f"{rule} - ") for line in check(plan(parse(text.encode()), request)))
    skipped = f"# check=skip={rule}\n{text}"
    assert not any(line.startswith(f"{rule} - ") for line in check(plan(parse(skipped.encode()), request)))


@pytest.mark.parametrize("text", ["ARG T=1\nFROM busybox:$T\n", "ARG B=stage\nFROM a AS stage\nFROM $B\n", "FROM busybox\n"])
def test_good_defaults_are_no_warning(text: str) -> None:
    assert check(plan(parse(text.encode()), Request())) == ["Check complete, no warnings found."]


def test_experimental_checks_are_asked_for() -> None:
    text = "# the base\nFROM a AS base\n# base is fine\nARG other\n\nARG third\n# third is told\nARG third\n"
    wanted = [
        ("", []), ("# check=experimental=all\n\n", [4, 6]), ("# check=experimental=InvalidDefinitionDescription\n\n", [4, 6]),
        ("# check=experimental=all;skip=InvalidDefinitionDescription\n\n", []),
    ]  # fmt: skip
    for directive, lines in wanted:
        made = plan(parse((directive + text).encode()), Request())
        assert [one.line for one in warnings(made, Request(), Ignore(()))] == lines, directive


def test_what_only_the_base_image_sets_is_no_error_of_the_checks() -> None:
    made = plan(parse(b"FROM python AS a\nENV V=${PYTHON_VERSION:?}\nFROM a\nENV W=${V:?}\n"), Request())

    assert check(made) == ["Check complete, no warnings found."]


def test_files_that_are_left_out_are_named() -> None:
    text = b"FROM a\nCOPY x ./in /d/\nCOPY --from=b x /\nCOPY *.md $y /e/\nADD http://x/x /\n"
    found = check(plan(parse(text), Request()), Request(), Ignore(["x", "*.md", "http:*"]))

    assert [line.partition(" - ")[0] for line in found if "CopyIgnored" in line] == ["CopyIgnoredFile"]
    assert "Attempting to Copy file 'x' that is excluded by .dockerignore" in found[0]


def test_checks_can_be_errors() -> None:
    with pytest.raises(InvalidRequest, match="JSONArgsRecommended"):
        check(plan(parse(b"# check=error=true\nFROM a\nCMD x\n"), Request()))
    request = Request(arguments={"BUILDKIT_DOCKERFILE_CHECK": "error=true"})
    with pytest.raises(InvalidRequest, match="JSONArgsRecommended"):
        check(plan(parse(b"FROM a\nCMD x\n"), request), request)
