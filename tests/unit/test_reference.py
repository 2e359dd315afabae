"""Digests and image references."""

from __future__ import annotations

import time

import pytest

from sampan.errors import InvalidRequest
from sampan.oci import digest
from sampan.oci.reference import Reference, parse, with_tag

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c"),
        ("a/b", "docker.io/a/b", "a/b"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b"),
        ("quay.io/x/y__z.w-----v", "quay.io/x/y__z.w-----v", "quay.io/x/y__z.w-----v"),
        ("[fd00::1]:5000/a", "[fd00::1]:5000/a", "[fd00::1]:5000/a"),
        (f"a@sha256:{HEX}", f"docker.io/library/a@sha256:{HEX}", f"a@sha256:{HEX}"),
        (f"a:t@sha256:{HEX}", f"docker.io/library/a:t@sha256:{HEX}", f"a:t@sha256:{HEX}"),
        ("Host/a", "Host/a", "Host/a"),
    ],
)
def test_a_reference_has_one_full_and_one_familiar_form(text: str, full: str, familiar: str) -> None:
    reference = parse(text)

    assert str(reference) == full and reference.familiar == familiar
    assert parse(str(reference)) == reference == parse(familiar)


@pytest.mark.parametrize(
    "text",
    ["", "/", "a/", "/a", "a//b", "a:", ":t", "a:t:u", "a@", "-a", "a-", "a.-b", "a___b", "a..b", "../x", "a/../b", "%2e%2e",
     "a b", "a\0", "a\n", "é", "a:é", "a:-t", "a:" + "t" * 129, "h.example:99999999/a", "[x]/a", "h..x/a", "a" * 300,
     "a" * 2000, "٣", "a:٣", "b@sha256:" + "A" * 64, "b@sha256:../../x", "b@md5:" + "a" * 32],
)  # fmt: skip
def test_row_48_91_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


def test_refusals_are_in_dockers_words() -> None:
    for text, words in {
        "UPPER": r"invalid reference format: repository name \(library/UPPER\) must be lowercase",
        HEX: "cannot specify 64-byte hexadecimal strings",
        "a/" + "b" * 254: "repository name must not be more than 255 characters",
        "a b": "^invalid reference format$",
    }.items():
        with pytest.raises(InvalidRequest, match=words):
            parse(text)


def test_a_hostile_reference_takes_no_time() -> None:
    begun = time.process_time()
    for text in ("a" + "-" * 1000, "a" + "_" * 1000 + "!", "a." * 500, "a/" * 500 + "!", "a:" * 500):
        with pytest.raises(InvalidRequest):
            parse(text)
    assert time.process_time() - begun < 0.1


def test_repo_and_tag_arguments_make_a_tagged_name() -> None:
    assert with_tag("a", "") == Reference("docker.io", "library/a", "latest") == with_tag("a:x", "latest")
    with pytest.raises(InvalidRequest, match="invalid tag format"):
        with_tag("a", "b c")
    with pytest.raises(InvalidRequest, match="refusing to create a tag with a digest reference"):
        with_tag(f"a@sha256:{HEX}", "t")


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "sha256:../../x", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 65, "md5:" + "a" * 32,
     "sha512:" + "a" * 64, "a" * 64, "sha256:" + "a" * 63 + "\n", "sha256:" + "٣" * 64, "SHA256:" + "a" * 64],
)  # fmt: skip
def test_row_48_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        digest.parse(text)


def test_a_chain_is_the_specifications() -> None:
    a, b = digest.of(b"a"), digest.of(b"b")

    assert digest.chain_ids((a, b)) == (a, digest.of(f"{a} {b}".encode()))
    assert digest.parse("sha512:" + "a" * 128)
