"""Buckets as a whole: how much is in them, and their end. `S3Buckets` asks AWS.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/delete-bucket.html
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from sampan.aws.session import CloudError, Session, asked

_FORGOTTEN = ("KMSInvalidStateException", "NotFoundException")  # of a key that is to be deleted, or is


@dataclass(frozen=True, slots=True)
class Content:
    """Objects and bytes of a bucket, every version counted."""

    objects: int
    size: int


class Buckets(Protocol):
    """What the end of a stage needs of S3 and KMS. Every method may raise CloudError."""

    def content(self, bucket: str) -> Content | None:
        """What is in a bucket; None where there is none."""
        ...

    def delete(self, bucket: str, deleted: Callable[[int], None]) -> None:
        """Delete every version of every object, then the bucket; `deleted` is told how many went."""
        ...

    def forget_key(self, key: str, days: int) -> None:
        """Have a KMS key deleted after some days, until when it can be kept; it costs nothing meanwhile.

        Nothing happens to one that is to be deleted already.
        """
        ...


class S3Buckets:
    """S3 and KMS themselves."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def content(self, bucket: str) -> Content | None:
        objects = size = 0
        try:
            with asked(f"listing the bucket {bucket}"):
                for page in self._pages(bucket):
                    objects += len(_keys(page))
                    size += sum(version.get("Size", 0) for version in page.get("Versions", ()))
        except CloudError as error:
            if error.kind == "missing":
                return None
            raise
        return Content(objects, size)

    def delete(self, bucket: str, deleted: Callable[[int], None]) -> None:
        with asked(f"emptying the bucket {bucket}"):
            for page in self._pages(bucket):
                keys = _keys(page)
                if not keys:
                    continue
                answer = self._client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
                for error in answer.get("Errors", ()):
                    raise CloudError(
                        f"s3://{bucket}/{error['Key']} cannot be deleted ({error.get('Code')}: {error.get('Message')})"
                        "; check the bucket's policy and locks, and try again",
                        str(error.get("Code", "")),
                    )
                deleted(len(keys))
        with asked(f"deleting the bucket {bucket}"):
            self._client.delete_bucket(Bucket=bucket)

    def forget_key(self, key: str, days: int) -> None:
        try:
            with asked(f"scheduling the deletion of the key {key}"):
                self._session.client("kms").schedule_key_deletion(KeyId=key, PendingWindowInDays=days)
        except CloudError as error:
            if error.code not in _FORGOTTEN:
                raise

    def _pages(self, bucket: str) -> Iterator[dict[str, Any]]:
        yield from self._client.get_paginator("list_object_versions").paginate(Bucket=bucket)

    @property
    def _client(self) -> Any:
        return self._session.client("s3")


def _keys(page: dict[str, Any]) -> list[dict[str, str]]:
    entries = (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
    return [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
