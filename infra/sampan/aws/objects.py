"""Objects under a prefix of an S3 bucket: listed, read, put on a condition, sent and fetched with their SHA-256.

Small objects change by one conditional PUT, so that of several writers exactly one wins
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html). Files go up with checksums that S3
checks (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html), encrypted as the bucket
says by default.
"""

import base64
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sampan.aws.multipart import PART, Upload
from sampan.aws.session import CloudError, Session, asked

CHUNK = 1 << 20
MAX_SMALL = 64_000_000  # bytes of an object that is read as a whole
SHA256 = "sha256"  # key of the metadata
Moved = Callable[[int], None]  # is told bytes as they come or go


@dataclass(frozen=True, slots=True)
class Stored:
    """What S3 says of an object: bytes, the tag of its state, and SHA-256 (hex), None where nobody said."""

    size: int
    etag: str
    sha256: str | None


class Objects:
    """The objects of a bucket whose keys begin with a prefix; keys here are relative to it.

    Args:
        session: None: one is made when it is first needed.
        part: bytes from which a file goes up in parts, and of a part.
    """

    def __init__(self, bucket: str, prefix: str = "", session: Session | None = None, part: int = PART) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self._session = session
        self._part = part

    @property
    def location(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def where(self, key: str) -> str:
        """The object's address."""
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def listed(self, folder: str) -> list[str]:
        """What stands directly under a folder ("" or with a slash at its end), sorted; folders end in a slash."""
        start = self.prefix + folder
        with self._asked("list", folder):
            pages = self._client.get_paginator("list_objects_v2")
            found = [*_entries(pages.paginate(Bucket=self.bucket, Prefix=start, Delimiter="/"))]
        return sorted(key.removeprefix(start) for key in found if key != start)

    def look(self, key: str) -> Stored | None:
        """Facts of an object; None: there is none."""
        try:
            with self._asked("look at", key):
                answer = self._client.head_object(**self._at(key), ChecksumMode="ENABLED")
        except CloudError as error:
            if error.kind == "missing":
                return None
            raise
        return Stored(answer["ContentLength"], answer["ETag"], _sha256(answer))

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Content and ETag of a small object; None: there is none.

        Raises:
            CloudError: it is larger than 64 MB, or cannot be read.
        """
        try:
            with self._asked("read", key):
                answer = self._client.get_object(**self._at(key))
                if answer["ContentLength"] > MAX_SMALL:
                    raise CloudError(f"{self.where(key)} is larger than {MAX_SMALL:,} bytes, so it is not of a store")
                return answer["Body"].read(), answer["ETag"]
        except CloudError as error:
            if error.code == "NoSuchKey":
                return None
            raise

    def put(self, key: str, content: bytes, etag: str | None) -> bool:
        """Write a small object if it still is in the state that the ETag names; None: if there is none.

        Returns:
            False: it is not, and nothing was written.
        """
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            with self._asked("write", key):
                self._client.put_object(**self._at(key), Body=content, ChecksumAlgorithm="SHA256", **condition)
        except CloudError as error:
            if error.kind not in ("conflict", "missing") or error.code == "NoSuchBucket":
                raise
            # an answer that was lost is asked again by the client, and then it finds its own writing
            found = self.read(key)
            return found is not None and found[0] == content
        return True

    def holds(self, key: str, sha256: str, size: int) -> bool:
        """Whether the object is there with these bytes, as far as S3 says."""
        found = self.look(key)
        return found is not None and (found.sha256, found.size) == (sha256, size)

    def send(self, key: str, file: Path, sha256: str, moved: Moved = lambda count: None) -> str | None:
        """Upload a file, unless it is there; what an interrupted upload left is taken up.

        Returns:
            ETag of the new object; None where it was there.
        """
        size = file.stat().st_size
        if self.holds(key, sha256, size):
            moved(size)
            return None
        if size <= self._part:
            return self._send_whole(key, file, sha256, moved)
        upload = Upload(self._client, self.bucket, self.prefix + key, file, {SHA256: sha256}, self._part)
        try:
            with self._asked("upload", key):
                return upload.run(moved)
        except CloudError as error:
            if error.code != "NoSuchUpload":  # another writer ended it, or a rule of the bucket
                raise
        if self.holds(key, sha256, size):
            return None
        with self._asked("upload", key):
            return upload.run(moved)

    def fetch(self, key: str, found: Stored, into: IO[bytes], moved: Moved = lambda count: None) -> None:
        """Append to a file what it lacks of an object; a connection that is lost on the way is taken up again.

        Args:
            found: what `look` said; another state of the object is not read.
            into: an open file at its end.
        """
        while (start := into.tell()) < found.size:
            try:
                with self._asked("download", key):
                    self._append(key, found, into, moved)
            except CloudError as error:
                if error.kind != "unreachable" or into.tell() == start:
                    raise

    def _append(self, key: str, found: Stored, into: IO[bytes], moved: Moved) -> None:
        answer = self._client.get_object(**self._at(key), Range=f"bytes={into.tell()}-", IfMatch=found.etag)
        for chunk in answer["Body"].iter_chunks(CHUNK):
            into.write(chunk)
            moved(len(chunk))

    def _send_whole(self, key: str, file: Path, sha256: str, moved: Moved) -> str:
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        with file.open("rb") as content, self._asked("upload", key):
            answer = self._client.put_object(
                **self._at(key),
                Body=content,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
                Metadata={SHA256: sha256},
            )
        moved(file.stat().st_size)
        return str(answer["ETag"])

    @property
    def _client(self) -> Any:
        if self._session is None:
            self._session = Session()
        return self._session.client("s3")

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    def _asked(self, doing: str, key: str) -> AbstractContextManager[None]:
        return asked(f"cannot {doing} {self.where(key)}")


def _entries(pages: Iterable[dict[str, Any]]) -> Iterator[str]:
    for page in pages:
        yield from (entry["Prefix"] for entry in page.get("CommonPrefixes", ()))
        yield from (entry["Key"] for entry in page.get("Contents", ()))


def _sha256(answer: dict[str, Any]) -> str | None:
    """SHA-256 of the whole object in hex: S3's own; where it came in parts, S3 has none, and its writer's counts."""
    if "-" in answer["ETag"]:
        said = answer["Metadata"].get(SHA256)
        return str(said) if said else None
    checksum = answer.get("ChecksumSHA256")
    return base64.b64decode(checksum).hex() if checksum else None
