"""The store in S3, on moto's bucket: by the store's own doors, with writers that race, die, and lie."""

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, cast

import boto3
import numpy as np
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ResponseStreamingError
from moto import mock_aws

import models
from sampan.aws.multipart import PART
from sampan.aws.objects import Objects, Stored
from sampan.aws.session import CloudError, Session
from sampan.contract.errors import ConflictError, ModelError, NotFoundError, StoreError
from sampan.contract.manifest import FileEntry
from sampan.store import LocalStore, open_store
from sampan.store.add import add_model
from sampan.store.copy import copy_between
from sampan.store.files import hash_file
from sampan.store.history import history
from sampan.store.moves import promote, rollback
from sampan.store.s3 import S3Store
from sampan.store.verify import verify

pytestmark = pytest.mark.infra
BUCKET = "models"
MIB = 1 << 20
TICKS = count()


@pytest.fixture(autouse=True)
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket in process, credentials for it, and a home of the test's own."""
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client


def ticking() -> Callable[[], str]:
    """A clock that shows another time each time it is read; no two clocks ever show the same."""
    return lambda: f"2026-01-01T00:00:00.{next(TICKS):06}Z"


class Meddling(Objects):
    """Objects with somebody who acts right before a put, once."""

    def __init__(self, before_put: Callable[[str], None]) -> None:
        super().__init__(BUCKET, "dev")
        self._before_put: Callable[[str], None] | None = before_put

    def put(self, key: str, content: bytes, etag: str | None) -> bool:
        if self._before_put is not None:
            meddle, self._before_put = self._before_put, None
            meddle(key)
        return super().put(key, content, etag)


def opened(tmp_path: Path, cache: str = "cache", objects: Objects | None = None, who: str = "ada@host") -> S3Store:
    return S3Store(objects or Objects(BUCKET, "dev"), cache=tmp_path / cache, clock=ticking(), who=lambda: who)


def linear(tmp_path: Path, seed: int) -> Path:
    return models.save(models.linear(seed=seed), tmp_path / f"m{seed}.onnx")


@pytest.fixture
def store(tmp_path: Path) -> S3Store:
    """Two versions of the model 'm'."""
    store = opened(tmp_path)
    for seed in range(2):
        add_model(store, linear(tmp_path, seed), name="m")
    return store


def keys(s3: Any, part: str = "") -> list[str]:
    listed = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return [entry["Key"] for entry in listed if part in entry["Key"]]


def tamper(s3: Any, key: str) -> None:
    """Flip one bit in the middle, and keep the metadata."""
    found = s3.get_object(Bucket=BUCKET, Key=key)
    content = bytearray(found["Body"].read())
    content[len(content) // 2] ^= 1
    s3.put_object(Bucket=BUCKET, Key=key, Body=bytes(content), Metadata=found["Metadata"])


def model_key(s3: Any, store: S3Store, ref: str) -> str:
    [key] = keys(s3, f"{store.find(ref).manifest.digest.removeprefix('sha256:')}/model.onnx")
    return key


def test_a_version_is_its_files_and_one_manifest(store: S3Store, s3: Any):
    assert (store.names(), store.versions("m"), store.find("m").ref) == (["m"], [1, 2], "m:2")
    assert keys(s3, "versions") == ["dev/m/versions/1.json", "dev/m/versions/2.json"]
    assert len(keys(s3, "dev/m/files/")) == len(keys(s3, "dev/m/beside/")) == 2
    assert all(key.startswith("dev/m/") for key in keys(s3))
    assert store.location == "s3://models/dev"


def test_files_go_up_with_checksums_that_s3_checks(store: S3Store, s3: Any):
    for key in keys(s3):
        assert s3.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")["ChecksumSHA256"]


def test_the_same_content_exists_already(store: S3Store, s3: Any, tmp_path: Path):
    before = keys(s3)
    again = add_model(opened(tmp_path, "other"), linear(tmp_path, 0), name="m")
    assert (again.existed, again.version.ref) == (True, "m:1")
    assert keys(s3) == before


def test_what_lists_downloads_no_model(store: S3Store, tmp_path: Path):
    other = opened(tmp_path, "other")
    found = other.find("m")
    assert [event.manifest.version for event in history(other, "m")] == [1, 2]
    assert not found.place.exists()
    assert found.model_path.is_file()


def test_what_was_just_sent_is_not_fetched_for_its_proof(tmp_path: Path):
    counted = Counting()
    store = opened(tmp_path, objects=counted)
    promote(store, add_model(store, linear(tmp_path, 0), name="m").version.ref)
    assert counted.came == {}
    promote(opened(tmp_path, "other", counted), "m:1", "candidate")
    assert set(counted.came) == {"golden.npz", "model.onnx"}


def test_a_file_that_is_damaged_here_comes_again(store: S3Store, tmp_path: Path):
    version = opened(tmp_path).find("m:1")
    sound = version.model_path.read_bytes()
    version.model_path.write_bytes(b"x" * len(sound))
    (version.place / "strange").write_text("?")
    healed = opened(tmp_path).find("m:1")
    assert healed.model_path.read_bytes() == sound
    assert sorted(path.name for path in healed.folder.iterdir()) == ["golden.npz", "manifest.json", "model.onnx"]


def test_a_download_that_stopped_goes_on_where_it_was(store: S3Store, tmp_path: Path):
    whole = store.find("m:1").model_path.read_bytes()
    counted = Counting()
    version = opened(tmp_path, "other", counted).find("m:1")
    part = version.place.parent / "parts" / version.manifest.files["model.onnx"].sha256
    part.parent.mkdir(parents=True)
    part.write_bytes(whole[:100])
    assert version.model_path.read_bytes() == whole
    assert counted.came["model.onnx"] == len(whole) - 100
    assert not part.exists()


def test_a_wrong_beginning_of_a_download_is_thrown_away(store: S3Store, tmp_path: Path):
    whole = store.find("m:1").model_path.read_bytes()
    version = opened(tmp_path, "other").find("m:1")
    part = version.place.parent / "parts" / version.manifest.files["model.onnx"].sha256
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * 100)
    assert version.model_path.read_bytes() == whole


class Counting(Objects):
    """Objects that count the bytes that come."""

    def __init__(self) -> None:
        super().__init__(BUCKET, "dev")
        self.came: dict[str, int] = {}

    def fetch(self, key: str, found: Stored, into: Any, moved: Callable[[int], None] = lambda count: None) -> None:
        start = into.tell()
        super().fetch(key, found, into, moved)
        self.came[key.rpartition("/")[2]] = into.tell() - start


def test_what_was_tampered_with_is_refused(store: S3Store, s3: Any, tmp_path: Path):
    tamper(s3, model_key(s3, store, "m:1"))
    with pytest.raises(StoreError, match=r"m:1 is damaged: model.onnx is not what was registered: its SHA-256 differs"):
        _ = opened(tmp_path, "other").find("m:1").model_path
    verdict = verify(store)
    assert [(problem.ref, problem.problem) for problem in verdict.problems] == [
        ("m:1", "model.onnx is not what was registered: its SHA-256 differs")
    ]
    with pytest.raises(ModelError, match="m:1 does not prove itself"):
        promote(store, "m:1")
    assert store.aliases("m") == {}


def test_adding_again_heals_what_is_damaged_or_gone(store: S3Store, s3: Any, tmp_path: Path):
    for damage in (tamper, lambda s3, key: s3.delete_object(Bucket=BUCKET, Key=key)):
        damage(s3, model_key(s3, store, "m:1"))
        assert not verify(opened(tmp_path, "other")).sound
        again = add_model(store, linear(tmp_path, 0), name="m")
        assert (again.existed, again.version.ref) == (True, "m:1")
        assert verify(opened(tmp_path, "other")).sound


def test_a_missing_file_is_said(store: S3Store, s3: Any, tmp_path: Path):
    s3.delete_object(Bucket=BUCKET, Key=model_key(s3, store, "m:2"))
    with pytest.raises(StoreError, match=r"m:2 is damaged: model.onnx is missing \(s3://models/dev/m/files/"):
        _ = opened(tmp_path, "other").find("m:2").folder


@pytest.mark.parametrize(
    "change",
    [
        {"model": "../../evil"},
        {"files": {"/etc/evil": {"sha256": "0" * 64, "size": 1}}},
        {"version": 7},
        {"digest": "sha256:../.."},
    ],
)
def test_a_manifest_that_lies_is_refused(store: S3Store, s3: Any, change: dict[str, Any]):
    key = "dev/m/versions/2.json"
    content = json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(content | change))
    with pytest.raises(StoreError, match="m:2 is damaged"):
        store.find("m:2")
    assert store.find("m:1").ref == "m:1"


def test_names_that_are_none_are_not_listed(store: S3Store, s3: Any):
    for key in (
        "dev/../x",
        "dev/m/versions/zero.json",
        "dev/m/aliases/A B.json",
        "dev/empty/files/a",
        "dev/.x/versions/1.json",
    ):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"{}")
    assert (store.names(), store.versions("m"), store.aliases("m")) == (["m"], [1, 2], {})


def test_a_writer_who_dies_before_the_manifest_leaves_nothing_visible(tmp_path: Path, s3: Any):
    def die(key: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_model(opened(tmp_path, objects=Meddling(die)), linear(tmp_path, 0), name="m")
    store = opened(tmp_path)
    assert (store.names(), store.versions("m")) == ([], [])
    left = keys(s3)
    assert len(left) == 2
    assert add_model(store, linear(tmp_path, 0), name="m").version.ref == "m:1"
    assert set(left) < set(keys(s3))
    assert not list((tmp_path / "cache/drafts/.staging").iterdir())


def test_two_writers_of_one_number_both_get_one(tmp_path: Path):
    def other(key: str) -> None:
        assert add_model(opened(tmp_path, "other"), linear(tmp_path, 1), name="m").version.ref == "m:1"

    store = opened(tmp_path, objects=Meddling(other))
    assert add_model(store, linear(tmp_path, 0), name="m").version.ref == "m:2"
    assert verify(store).sound
    assert verify(store).checked == 2


def test_two_writers_of_one_content_get_one_version(tmp_path: Path):
    store = opened(
        tmp_path, objects=Meddling(lambda key: add_model(opened(tmp_path, "other"), linear(tmp_path, 0), name="m"))
    )
    added = add_model(store, linear(tmp_path, 0), name="m")
    assert (added.version.ref, added.existed) == ("m:1", True)
    assert store.versions("m") == [1]


@pytest.mark.parametrize("new", [True, False])
def test_of_two_who_move_an_alias_one_wins(store: S3Store, tmp_path: Path, new: bool):
    expected = None if new else 1
    if not new:
        store.move("m", "live", 1)
    rival = opened(tmp_path, "other", who="bob@host")
    slow = opened(tmp_path, objects=Meddling(lambda key: rival.move("m", "live", 2, expected=expected) and None))
    with pytest.raises(
        ConflictError, match=r"m@live points at 2 by now, not at (nothing|1); look at `sampan history m`"
    ):
        slow.move("m", "live", 1, expected=expected)
    assert store.aliases("m")["live"].moves[-1].who == "bob@host"


def test_a_move_that_expects_nothing_comes_after_the_other(store: S3Store, tmp_path: Path):
    rival = opened(tmp_path, "other", who="bob@host")
    slow = opened(tmp_path, objects=Meddling(lambda key: rival.move("m", "live", 2) and None))
    assert slow.move("m", "live", 1).from_version == 2
    assert [move.to for move in store.aliases("m")["live"].moves] == [2, 1]


def test_a_writer_who_is_always_late_is_told(store: S3Store, tmp_path: Path):
    class Late(Objects):
        def put(self, key: str, content: bytes, etag: str | None) -> bool:
            return False

    with pytest.raises(ConflictError, match="m@live in s3://models/dev is being changed by others"):
        opened(tmp_path, objects=Late(BUCKET, "dev")).move("m", "live", 1)


def test_an_own_write_whose_answer_was_lost_counts(s3: Any):
    objects = Objects(BUCKET)
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"mine")
    assert objects.put("a", b"mine", None)
    assert not objects.put("a", b"other", None)
    assert not objects.put("gone", b"x", '"of another state"')


def test_rollback_goes_back_in_s3(store: S3Store, tmp_path: Path):
    promote(store, "m:1")
    promote(store, "m:2")
    assert rollback(opened(tmp_path, "other"), "m").version.ref == "m:1"
    assert store.find("m@live").ref == "m:1"
    assert verify(store).sound


def test_what_is_missing_says_what_there_is(store: S3Store):
    with pytest.raises(NotFoundError, match="no model 'n' in the store s3://models/dev"):
        store.find("n")
    with pytest.raises(NotFoundError, match="has no version 9; it has 1, 2"):
        store.find("m:9")
    with pytest.raises(NotFoundError, match="no version 9"):
        store.move("m", "live", 9)


@pytest.mark.parametrize("location", ["s3://", "s3://B/x", "s3://models/a/../b", "s3://models//x", "s3://models/a b"])
def test_an_address_that_is_none_is_said(location: str):
    with pytest.raises(StoreError, match="write s3://bucket/prefix"):
        open_store(location)


def test_a_bucket_without_prefix_and_a_missing_bucket(tmp_path: Path):
    store = open_store("s3://models/")
    assert add_model(store, linear(tmp_path, 0), name="m").version.ref == "m:1"
    assert open_store("s3://models").names() == ["m"]
    with pytest.raises(CloudError, match=r"cannot list s3://nowhere/: it is not there \(NoSuchBucket"):
        open_store("s3://nowhere").names()


def test_verify_that_loses_the_connection_is_no_verdict(store: S3Store, tmp_path: Path):
    class Lost(Objects):
        def look(self, key: str) -> Stored | None:
            raise CloudError("gone", "Unreachable")

    with pytest.raises(CloudError, match="gone"):
        verify(opened(tmp_path, objects=Lost(BUCKET, "dev")))


class Cut:
    """A client whose connection is cut after some bytes of each answer."""

    def __init__(self, content: bytes, after: int) -> None:
        self.content, self.after = content, after
        self.asked: list[str] = []

    def client(self, service: str) -> "Cut":
        return self

    def get_object(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request["Range"])
        self._start = int(request["Range"].removeprefix("bytes=").removesuffix("-"))
        return {"Body": self}

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        if self.after:
            yield self.content[self._start : self._start + self.after]
        if self._start + self.after < len(self.content):
            raise ResponseStreamingError(error="cut")


def test_a_download_takes_up_a_connection_that_is_lost():
    cut, came = Cut(b"0123456789", after=4), BytesIO()
    Objects(BUCKET, session=cast(Session, cut)).fetch("k", Stored(10, "e", None), came)
    assert (came.getvalue(), cut.asked) == (b"0123456789", ["bytes=0-", "bytes=4-", "bytes=8-"])


def test_a_download_that_does_not_get_on_ends():
    with pytest.raises(CloudError, match="cannot download s3://models/k: the connection to AWS was lost"):
        Objects(BUCKET, session=cast(Session, Cut(b"0", after=0))).fetch("k", Stored(1, "e", None), BytesIO())


def test_who_watches_sees_the_bytes(tmp_path: Path):
    told: list[tuple[str, int, int]] = []
    version = add_model(LocalStore(tmp_path / "source"), linear(tmp_path, 0), name="m").version
    size = sum(entry.size for entry in version.manifest.files.values())
    remote = copy_between(version, opened(tmp_path), watch=lambda *words: told.append(words)).version
    assert told[0] == ("uploading golden.npz of m:1", 0, size)
    assert told[-1] == ("uploading model.onnx of m:1", size, size)
    copy_between(remote, LocalStore(tmp_path / "target"), watch=lambda *words: told.append(words))
    assert told[-1] == ("copied m:1", size, size)
    assert ("downloading model.onnx of m:1", 204, 204) in told


# Copies between stores


def test_a_copy_is_the_version(store: S3Store, tmp_path: Path):
    local = LocalStore(tmp_path / "local")
    version = store.find("m:2")
    copied = copy_between(version, local)
    assert (copied.version.manifest, copied.existed) == (version.manifest, False)
    assert verify(local).sound
    assert copy_between(version, local).existed
    back = opened(tmp_path, "other", Objects(BUCKET, "prod"))
    assert copy_between(local.find("m:2"), back).version.ref == "m:2"
    assert verify(back).sound
    assert back.versions("m") == [2]


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_number_that_is_taken(tmp_path: Path, kind: str):
    source = LocalStore(tmp_path / "source")
    version = add_model(source, linear(tmp_path, 0), name="m").version
    target = LocalStore(tmp_path / "target") if kind == "local" else opened(tmp_path)
    there = add_model(target, linear(tmp_path, 1), name="m").version
    with pytest.raises(
        ConflictError, match=f"{there.manifest.digest} there, {version.manifest.digest} here; .*renumber"
    ):
        copy_between(version, target)
    copied = copy_between(version, target, renumber=True)
    assert (copied.version.ref, copied.version.manifest.digest) == ("m:2", version.manifest.digest)
    again = copy_between(version, target)
    assert (again.version.ref, again.existed) == ("m:2", True)
    assert verify(target).sound


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_damaged_version_is_not_copied(tmp_path: Path, kind: str):
    version = add_model(LocalStore(tmp_path / "source"), linear(tmp_path, 0), name="m").version
    version.model_path.write_bytes(b"x" * version.model_path.stat().st_size)
    target = LocalStore(tmp_path / "target") if kind == "local" else opened(tmp_path)
    with pytest.raises(StoreError, match="m:1 is damaged, so it was not copied: model"):
        copy_between(version, target)
    assert target.names() == []


def test_a_version_under_anothers_digest_is_not_copied(store: S3Store, tmp_path: Path):
    source = LocalStore(tmp_path / "source")
    version = add_model(source, linear(tmp_path, 5), name="m").version
    file = version.folder / "manifest.json"
    file.write_text(file.read_text().replace(version.manifest.digest, store.find("m:1").manifest.digest))
    with pytest.raises(StoreError, match="its digest is not that of what it lists"):
        copy_between(source.find("m:1"), opened(tmp_path, objects=Objects(BUCKET, "prod")))
    assert verify(store).sound


def test_a_copy_to_s3_that_races_for_its_number_tells(tmp_path: Path):
    version = add_model(LocalStore(tmp_path / "source"), linear(tmp_path, 0), name="m").version
    target = opened(
        tmp_path, objects=Meddling(lambda key: add_model(opened(tmp_path, "other"), linear(tmp_path, 1), name="m"))
    )
    with pytest.raises(ConflictError, match="m:1 is another version in s3://models/dev"):
        copy_between(version, target)
    assert target.versions("m") == [1]


# Large files


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, FileEntry]:
    """A file of four parts of 5 MiB, the last one short."""
    file = tmp_path / "large"
    file.write_bytes(np.random.default_rng(0).bytes(17 * MIB))
    return file, hash_file(file)


class Wire:
    """What goes to S3: parts that were sent, by number; it may break after some."""

    def __init__(self, breaks_after: int = 1000) -> None:
        self.parts: list[int] = []
        self._left = breaks_after

    def __call__(self, params: dict[str, Any], **told: Any) -> None:
        if self._left == 0:
            raise ConnectionClosedError(endpoint_url="s3")
        self._left -= 1
        self.parts.append(params["PartNumber"])


def wired(wire: Wire) -> Objects:
    session = Session()
    session.client("s3").meta.events.register("provide-client-params.s3.UploadPart", wire)
    return Objects(BUCKET, "dev", session, part=5 * MIB)


def test_a_large_upload_goes_on_where_it_stopped(large: tuple[Path, FileEntry], s3: Any):
    file, entry = large
    broken, whole = Wire(breaks_after=2), Wire()
    with pytest.raises(CloudError, match="cannot upload s3://models/dev/k: the connection to AWS was lost"):
        wired(broken).send("k", file, entry.sha256)
    assert keys(s3) == []
    told: list[int] = []
    objects = wired(whole)
    assert objects.send("k", file, entry.sha256, told.append)
    assert sorted(broken.parts + whole.parts) == [1, 2, 3, 4]
    assert len(whole.parts) == 2
    assert sum(told) == entry.size
    assert s3.get_object(Bucket=BUCKET, Key="dev/k")["Body"].read() == file.read_bytes()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)
    assert objects.send("k", file, entry.sha256) is None
    assert len(whole.parts) == 2


def test_parts_of_another_content_are_sent_again(large: tuple[Path, FileEntry], s3: Any, tmp_path: Path):
    file, entry = large
    other = tmp_path / "other"
    other.write_bytes(bytes(entry.size))
    with pytest.raises(CloudError):
        wired(Wire(breaks_after=3)).send("k", other, "0" * 64)
    whole = Wire()
    wired(whole).send("k", file, entry.sha256)
    assert sorted(whole.parts) == [1, 2, 3, 4]
    assert s3.get_object(Bucket=BUCKET, Key="dev/k")["Body"].read() == file.read_bytes()


def test_an_upload_that_another_ended_begins_anew(large: tuple[Path, FileEntry], s3: Any):
    file, entry = large

    class Ended(Wire):
        def __call__(self, params: dict[str, Any], **told: Any) -> None:
            self.ended = getattr(self, "ended", params["UploadId"])
            if params["UploadId"] == self.ended:
                if "Uploads" in s3.list_multipart_uploads(Bucket=BUCKET):
                    s3.abort_multipart_upload(Bucket=BUCKET, Key="dev/k", UploadId=self.ended)
                raise ClientError({"Error": {"Code": "NoSuchUpload", "Message": "gone"}}, "UploadPart")
            super().__call__(params)

    assert wired(Ended()).send("k", file, entry.sha256)
    assert s3.head_object(Bucket=BUCKET, Key="dev/k")["ContentLength"] == entry.size


def test_a_version_with_a_large_file(tmp_path: Path, s3: Any):
    model = models.linear(features=1100, outputs=5000)
    store = opened(tmp_path)
    add_model(store, models.save(model, tmp_path / "big.onnx"))
    [key] = keys(s3, "model.onnx")
    found = s3.head_object(Bucket=BUCKET, Key=key)
    assert found["ContentLength"] > PART
    assert found["ETag"].endswith('-2"')
    assert verify(opened(tmp_path, "other")).sound
