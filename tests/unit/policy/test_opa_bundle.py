"""The bundle that OPA serves: the same bytes for the same policy, and exactly the files that the broker activates."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

from policies import ALLOW, one
from stepgrant_broker.policy.bundle import Bundle, from_files, read_starter, starter_files
from stepgrant_broker.policy.opa_bundle import opa_bundle, roots


def unpacked(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        return {one.name: (archive.extractfile(one) or io.BytesIO()).read() for one in archive.getmembers()}


def test_it_holds_the_evaluated_files_and_a_manifest_and_nothing_else() -> None:
    starter = read_starter()
    found = unpacked(opa_bundle(starter))
    manifest = json.loads(found.pop("/.manifest"))
    assert found == {"/" + path: text.encode() for path, text in starter.files.items()}
    assert starter.tests
    assert manifest == {"revision": starter.digest, "roots": ["stepgrant", "stepgrant_config"], "rego_version": 1}


def test_from_what_it_holds_comes_the_same_digest() -> None:
    starter = read_starter()
    files = {path[1:]: raw for path, raw in unpacked(opa_bundle(starter)).items()}
    assert from_files(files).digest == starter.digest


def test_the_same_policy_gives_the_same_bytes() -> None:
    files = starter_files()
    backwards = dict(reversed(list(files.items())))
    assert opa_bundle(from_files(files)) == opa_bundle(from_files(backwards))


def test_nothing_of_this_machine_or_moment_is_in_it() -> None:
    packed = opa_bundle(read_starter())
    assert packed[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff", "no name and no time in gzip's header"
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as archive:
        entries = archive.getmembers()
    assert {(e.mtime, e.uid, e.gid, e.uname, e.gname, e.mode, e.type) for e in entries} == {
        (0, 0, 0, "", "", 0o644, tarfile.REGTYPE)
    }
    assert [e.name for e in entries] == ["/.manifest", *sorted("/" + path for path in read_starter().files)]


def test_another_policy_has_another_revision() -> None:
    other = one(ALLOW.replace("listed", "other"))
    assert json.loads(unpacked(opa_bundle(other))["/.manifest"])["revision"] == other.digest != one(ALLOW).digest


def test_roots_are_whole_names() -> None:
    bundle: Bundle = from_files(
        {
            "a.rego": ALLOW, "b.rego": "package stepgrant.rules.x\n\nallow := 1\n",
            "c.rego": "package stepgrant_more\n\nallow := 1\n", "stepgrant/config/data.json": "{}",
            "settings/deep/data.json": "{}",
        }
    )  # fmt: skip
    assert roots(bundle) == ["settings/deep", "stepgrant", "stepgrant_more"]
