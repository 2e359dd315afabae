"""Who --user means: strict grammar, the container's own files, no libc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidRequest
from sampan.files.users import Identity, resolve
from sampan.kernel.fds import Fd, open_fd

PASSWD = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001:Ann:/home/ann:/bin/sh\n99999999999:x:0:0::/:\nbroken\n7:x:8:8::/seven:\n"
GROUP = "root:x:0:\nann:x:1001:\nwheel:x:10:root,ann\naudio:x:29:ann\n"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Fd]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    with open_fd(tmp_path, os.O_PATH | os.O_DIRECTORY) as opened:
        yield opened


@pytest.mark.parametrize(
    ("user", "wanted"),
    [("", Identity(0, 0, (0, 10), "/root")), ("ann", Identity(1000, 1001, (1001, 10, 29), "/home/ann")),
     ("1000", Identity(1000, 1001, (1001, 10, 29), "/home/ann")), ("ann:audio", Identity(1000, 29, (29,), "/home/ann")),
     ("4242", Identity(4242, 0, (0,), "/")), ("4242:43", Identity(4242, 43, (43,), "/")), ("0:0", Identity(0, 0, (0,), "/root")),
     ("7", Identity(7, 0, (0,), "/")), ("2147483647", Identity(2147483647, 0, (0,), "/"))],
)  # fmt: skip
def test_row_21_each_form_means_exactly_one_identity(root: Fd, user: str, wanted: Identity) -> None:
    assert resolve(root, user, ()) == wanted


def test_row_23_added_groups_are_names_or_numbers(root: Fd) -> None:
    assert resolve(root, "ann:ann", ("wheel", "5", "ann")).groups == (1001, 10, 5)


@pytest.mark.parametrize("user", ["1:1:1", "+1", " 1", "1 ", "0x0", "\u0661", ":", "a\nb", "-1", "1.0"])
def test_row_21_leftovers_are_an_error(root: Fd, user: str) -> None:
    with pytest.raises(InvalidRequest):
        resolve(root, user, ())


@pytest.mark.parametrize("user", ["2147483648", "4294967296", "99999999999", "1:4294967295", "9" * 5000])
def test_row_22_a_number_out_of_range_is_never_a_name(root: Fd, user: str) -> None:
    with pytest.raises(InvalidRequest, match="out of range"):
        resolve(root, user, ())


def test_missing_names_are_refused_in_dockers_words(root: Fd) -> None:
    with pytest.raises(InvalidRequest, match="^unable to find user bob: no matching entries in passwd file$"):
        resolve(root, "bob", ())
    with pytest.raises(InvalidRequest, match="^unable to find group gods: no matching entries in group file$"):
        resolve(root, "ann:gods", ())


@pytest.mark.parametrize("kind", ["fifo", "folder", "huge", "outside", "missing"])
def test_row_56_a_strange_passwd_file_is_no_file(root: Fd, tmp_path: Path, kind: str) -> None:
    passwd = tmp_path / "etc/passwd"
    passwd.unlink()
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "folder":
        passwd.mkdir()
    elif kind == "huge":
        passwd.write_text(PASSWD + "x" * (1 << 20))
    elif kind == "outside":
        passwd.symlink_to("../../../../../../etc/passwd")
    with pytest.raises(InvalidRequest, match="unable to find user"):
        resolve(root, "ann", ())
    assert resolve(root, "5", ()) == Identity(5, 0, (0,), "/")
