"""The bill of materials of an image that was made here: what it says, that it is the same each time, and where it goes."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from sampan.content.blobs import Blobs
from sampan.content.repositories import GRACE, Repositories
from sampan.engine.images import documents, referrers, sbom
from sampan.errors import NotFound
from sampan.oci import image as oci
from sampan.oci.digest import Digest, of
from sampan.state import State
from support.images import config, docker_archive
from support.places import Place, collect
from support.registry import Handler, Registry
from support.served import Served
from support.tars import archive, member

DPKG = b"""Package: libc6
Status: install ok installed
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u9
Description: GNU C Library
 Contains the standard libraries
 Version: 9

Package: gone
Status: deinstall ok config-files
Version: 1
"""


def bootstrapped(place: Place, recipe: str, tag: str) -> Digest:
    return Digest(str(place.run(collect(place.images.bootstrap(recipe, tag=tag)))[-1].status))


def spdx(place: Place, ref: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.run(place.images.sbom(ref)))
    return found


def checked(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the packages by name of a document that has what SPDX 2.3 asks for (and pyspdxtools, tried by hand)."""
    assert (document["spdxVersion"], document["dataLicense"], document["SPDXID"]) == ("SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["creationInfo"]["created"])
    ids = [one["SPDXID"] for one in (document, *document["packages"], *document.get("files", ()))]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", one) for one in ids)
    for relation in document["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= set(ids)
    files = {one["SPDXID"] for one in document.get("files", ())}
    holders = {one["spdxElementId"] for one in document["relationships"] if one["relatedSpdxElement"] in files}
    assert {one["SPDXID"] for one in document["packages"] if one["filesAnalyzed"]} == holders
    sums = sorted(one["checksums"][0]["checksumValue"] for one in document.get("files", ()))
    codes = [one["packageVerificationCode"] for one in document["packages"] if one["filesAnalyzed"]]
    assert codes == [{"packageVerificationCodeValue": hashlib.sha1("".join(sums).encode()).hexdigest()}] * len(holders)
    for one in document.get("files", ()):
        assert {sum_["algorithm"] for sum_ in one["checksums"]} == {"SHA1", "SHA256"} and one["fileName"].startswith("./")
    return {one["name"]: one for one in document["packages"]}


def test_the_packages_of_dpkg_are_listed() -> None:
    found = sbom.of_debs(io.BytesIO(archive(member("./var/lib/dpkg/status", content=DPKG))), "debian", "bookworm")
    image = of(b"image")
    content = sbom.document(found, name="debian bookworm minbase", image=image, diff_id=image, created="1970-01-01T00:00:00Z")
    packages = checked(json.loads(content))

    assert set(packages) == {"debian bookworm minbase", "libc6"}
    libc = packages["libc6"]
    assert libc["versionInfo"] == "2.36-9+deb12u9" and libc["originator"].startswith("Person: GNU Libc Maintainers (debian-")
    url = libc["externalRefs"][0]["referenceLocator"]
    assert url == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64&distro=bookworm"


def test_the_same_programs_have_the_same_bill_of_files(place: Place) -> None:
    image = bootstrapped(place, "host true", "one:1")
    first = place.run(place.images.sbom("one:1"))
    place.run(place.images.remove("one:1", force=True, prune=True))
    assert place.is_clean()  # the document is gone with its image

    assert bootstrapped(place, "host true", "two:1") == image
    assert place.run(place.images.sbom("two:1")) == first
    document = json.loads(first)
    checked(document)
    root = place.layers.diff(place.images.resolve("two:1").chain_ids[0])
    for one in document["files"]:
        assert of((root / one["fileName"]).read_bytes()) == f"sha256:{one['checksums'][1]['checksumValue']}"
    assert "./usr/bin/true" in {one["fileName"] for one in document["files"]}
    assert document["packages"][0]["versionInfo"] == image


def test_the_distributions_of_a_virtual_environment_are_listed(place: Place, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    site = next((home / "lib").glob("python3*/site-packages"))
    (site / "Some_Thing-1.2.dist-info").mkdir()
    metadata = "Metadata-Version: 2.4\nName: Some_Thing\nVersion: 1.2\nLicense-Expression: MIT\n\nName: no\n"
    (site / "Some_Thing-1.2.dist-info/METADATA").write_text(metadata)
    bootstrapped(place, f"venv {home}", "venv:1")
    packages = checked(spdx(place, "venv:1"))

    assert packages["python"]["versionInfo"] == sys.version.split()[0]
    assert (packages["Some_Thing"]["versionInfo"], packages["Some_Thing"]["licenseDeclared"]) == ("1.2", "MIT")
    assert packages["Some_Thing"]["externalRefs"][0]["referenceLocator"] == "pkg:pypi/some-thing@1.2"


def test_an_image_without_a_bill_says_so(place: Place) -> None:
    layer = archive(member("a", content=b"a"))
    place.run(collect(place.images.load(io.BytesIO(docker_archive(config(layer), layer, tags=["plain:1"])), quiet=True)))
    with pytest.raises(NotFound, match="image plain:1 has no SBOM"):
        spdx(place, "plain:1")
    with pytest.raises(NotFound, match="No such image"):
        spdx(place, "none:1")


def load(place: Place, tar: bytes) -> None:
    place.run(collect(place.images.load(io.BytesIO(tar), quiet=True)))


def save(place: Place, ref: str) -> bytes:
    return b"".join(place.run(collect(place.images.save([ref]))))


def layout(saved: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}  # type: ignore[union-attr]
    return json.loads(files["index.json"]), files


def test_a_bill_is_saved_and_loaded_with_its_image(place: Place, other: Place) -> None:
    bootstrapped(place, "host true", "one:1")
    first, saved = place.run(place.images.sbom("one:1")), save(place, "one:1")
    index, files = layout(saved)
    (image,) = index["manifests"]  # skopeo and podman refuse an archive with two, unless they are told which

    manifest = json.loads(files["blobs/" + image["annotations"][referrers.ANNOTATION].replace(":", "/")])
    assert manifest["artifactType"] == referrers.SPDX
    assert manifest["subject"] == {key: image[key] for key in ("mediaType", "digest", "size")}
    assert files["blobs/" + manifest["layers"][0]["digest"].replace(":", "/")] == first
    load(other, saved)
    assert other.run(other.images.sbom("one:1")) == first
    assert save(other, "one:1") == saved
    del files["manifest.json"]  # as other tools write layouts
    other.run(other.images.remove("one:1", force=True, prune=True))
    assert other.is_clean()
    load(other, archive(*(member(name, content=content) for name, content in files.items())))
    assert other.run(other.images.sbom("one:1")) == first
    other.run(other.images.remove("one:1", force=True, prune=True))
    entry = {"digest": image["annotations"].pop(referrers.ANNOTATION), "mediaType": image["mediaType"]}
    entry["size"] = len(files["blobs/" + entry["digest"].replace(":", "/")])
    files["index.json"] = json.dumps({**index, "manifests": [image, entry]}).encode()  # as the layout's own referrers are listed
    load(other, archive(*(member(name, content=content) for name, content in files.items())))
    assert other.run(other.images.sbom("one:1")) == first


def test_a_saved_image_with_a_bill_is_one_image_to_skopeo(place: Place, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    bootstrapped(place, "host true", "one:1")
    (tmp_path / "saved.tar").write_bytes(save(place, "one:1"))
    subprocess.run(["skopeo", "copy", "-q", f"oci-archive:{tmp_path}/saved.tar", f"dir:{tmp_path}/out"], check=True)


def test_a_damaged_bill_is_found_and_dropped(place: Place) -> None:
    image = bootstrapped(place, "host true", "one:1")
    (one,) = place.images.catalogue.referrers(image)
    place.images.blobs.delete(one.blobs[-1])
    found = place.run(place.images.check(repair=False))
    assert [(fault.level, fault.text) for fault in found] == [("error", "is missing")]

    place.run(place.images.check(repair=True))
    assert [fault.level for fault in place.run(place.images.check(repair=False))] == ["ok"]
    with pytest.raises(NotFound, match="has no SBOM"):
        spdx(place, "one:1")


def test_a_bill_goes_to_a_registry_and_comes_back(place: Place, other: Place) -> None:
    with Served() as registry:
        name = f"{registry.host}/team/base"
        bootstrapped(place, "host true", f"{name}:1")
        first = place.run(place.images.sbom(f"{name}:1"))
        (pushed,) = [message.aux["Digest"] for message in place.push(name) if message.aux]
        listed = json.loads(
            registry.ask("GET", f"/v2/team/base/referrers/{pushed}?artifactType={quote(referrers.SPDX, safe='')}")[2]
        )
        assert [one["artifactType"] for one in listed["manifests"]] == [referrers.SPDX]
        other.pull(name)
        assert other.run(other.images.sbom(f"{name}:1")) == first
        other.run(other.images.tag(f"{name}:1", f"{registry.host}/copy", "1"))
        other.push(f"{registry.host}/copy")  # byte for byte as it came, under the same digests
        assert json.loads(registry.ask("GET", f"/v2/copy/referrers/{pushed}")[2]) == listed
        other.run(other.images.remove(f"{name}:1", force=True, prune=True))
        other.run(other.images.remove(f"{registry.host}/copy:1", force=True, prune=True))
        assert other.is_clean()


@pytest.mark.parametrize("refused", [False, True])
def test_a_registry_without_an_api_for_it_keeps_a_bill_under_a_tag(place: Place, other: Place, refused: bool) -> None:
    with Registry() as registry:
        name = f"{registry.host}/base"
        bootstrapped(place, "host true", f"{name}:1")
        first = place.run(place.images.sbom(f"{name}:1"))

        def unwanted(handler: Handler) -> bool:
            artifact = handler.command == "PUT" and "/manifests/sha256:" in handler.path
            if artifact:
                handler.body()
                handler.error(400, "MANIFEST_INVALID")
            return artifact

        if refused:
            registry.hooks.append(unwanted)
        said = place.push(name)
        assert any(message.aux for message in said)
        assert any("was not pushed" in message.status for message in said) is refused
        other.pull(name)
        if refused:
            with pytest.raises(NotFound, match="has no SBOM"):
                other.run(other.images.sbom(f"{name}:1"))
        else:
            assert other.run(other.images.sbom(f"{name}:1")) == first


def test_what_refers_to_a_manifest_that_is_gone_is_collected(tmp_path: Path) -> None:
    state = State(tmp_path)
    repositories = Repositories(state, Blobs(tmp_path))
    for content in (documents.EMPTY, b"bill"):
        repositories.link("a", repositories.blobs.put(content))
    subject = documents.encoded({"schemaVersion": 2, "config": described(documents.EMPTY), "layers": []})
    artifact = documents.artifact(referrers.SPDX, b"bill", documents.described(subject), {})
    for content in (subject, artifact):
        assert repositories.put_manifest("a", of(content), content, oci.OCI_MANIFEST, ()) == []
    later = time.time() + GRACE + 60
    repositories.collect(later)
    assert [one for one, _ in repositories.referrers("a", of(subject))] == [of(artifact)]
    repositories.delete("a", of(subject))
    repositories.collect()  # what came just now may wait for its subject
    assert [one for one, _ in repositories.referrers("a", of(subject))] == [of(artifact)]
    repositories.collect(later)
    assert list(repositories.blobs.digests()) == [] and list(repositories.referrers("a", of(subject))) == []
    state.close()


def described(content: bytes) -> dict[str, Any]:
    return {**documents.described(content, oci.EMPTY_CONFIG)}
