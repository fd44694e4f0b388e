"""A large file goes up in parts, several at a time; an upload that was interrupted goes on with the parts it lacks.

    find the upload, else begin one → which parts are there, with which checksum → send the others → complete

S3 keeps the parts of an upload until it is completed, aborted, or a rule of the bucket ends it.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

PART = 16 << 20  # bytes
MAX_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
LANES = 4  # parts on their way at a time, each in memory


class Upload:
    """One file on its way to one key.

    Args:
        client: boto3's client of S3.
        metadata: of the object.
        part: bytes of a part, 5 MiB at least; more where the file has over 10,000 of them.
    """

    def __init__(
        self, client: Any, bucket: str, key: str, file: Path, metadata: Mapping[str, str], part: int = PART
    ) -> None:
        self._client = client
        self._at = {"Bucket": bucket, "Key": key}
        self._file = file
        self._metadata = dict(metadata)
        self._size = file.stat().st_size
        self._part = max(part, -(-self._size // MAX_PARTS))

    def run(self, moved: Callable[[int], None]) -> str:
        """Send what is not there yet, and complete.

        Args:
            moved: is told the bytes of each part that is there.

        Returns:
            ETag of the object.

        Raises:
            ClientError, BotoCoreError: of botocore; the parts that arrived stay for the next run.
        """
        upload = self._interrupted()
        there = self._parts(upload) if upload else {}
        upload = upload or self._begin()
        numbers = range(1, -(-self._size // self._part) + 1)
        parts: dict[int, dict[str, Any]] = {}
        with ThreadPoolExecutor(LANES) as lanes:
            futures = {lanes.submit(self._send, upload, number, there.get(number)): number for number in numbers}
            try:
                for future in as_completed(futures):
                    number = futures[future]
                    parts[number] = future.result()
                    moved(min(self._part, self._size - (number - 1) * self._part))
            except BaseException:
                lanes.shutdown(wait=False, cancel_futures=True)
                raise
        whole = {"Parts": [parts[number] for number in numbers]}
        answer = self._client.complete_multipart_upload(**self._at, UploadId=upload, MultipartUpload=whole)
        return str(answer["ETag"])

    def _begin(self) -> str:
        answer = self._client.create_multipart_upload(**self._at, ChecksumAlgorithm="SHA256", Metadata=self._metadata)
        return str(answer["UploadId"])

    def _interrupted(self) -> str | None:
        """The newest upload of this key that is not completed."""
        pages = self._client.get_paginator("list_multipart_uploads")
        listed = pages.paginate(Bucket=self._at["Bucket"], Prefix=self._at["Key"])
        found = [entry for page in listed for entry in page.get("Uploads", ()) if entry["Key"] == self._at["Key"]]
        newest = max(found, key=lambda entry: entry["Initiated"], default=None)
        return str(newest["UploadId"]) if newest else None

    def _parts(self, upload: str) -> dict[int, dict[str, Any]]:
        pages = self._client.get_paginator("list_parts").paginate(**self._at, UploadId=upload)
        return {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}

    def _send(self, upload: str, number: int, there: Mapping[str, Any] | None) -> dict[str, Any]:
        """The entry of a part for the completion; it is sent unless the same bytes are there."""
        with self._file.open("rb") as file:
            file.seek((number - 1) * self._part)
            content = file.read(self._part)
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        entry = {"PartNumber": number, "ChecksumSHA256": checksum}
        if there is not None and _is(there, content, checksum):
            return {**entry, "ETag": there["ETag"]}
        answer = self._client.upload_part(
            **self._at,
            UploadId=upload,
            PartNumber=number,
            Body=content,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=checksum,
        )
        return {**entry, "ETag": answer["ETag"]}


def _is(part: Mapping[str, Any], content: bytes, checksum: str) -> bool:
    """Whether a part that S3 lists has these bytes; where no SHA-256 is listed, its ETag may be an MD5."""
    if part["Size"] != len(content):
        return False
    if "ChecksumSHA256" in part:
        return bool(part["ChecksumSHA256"] == checksum)
    return bool(part["ETag"].strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest())
