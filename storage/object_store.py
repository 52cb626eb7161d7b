"""Bytes in an S3-compatible store: whole-or-nothing puts, multipart uploads, range reads and signed links.

SeaweedFS, MinIO, AWS S3, Garage, RustFS and Ceph speak the same S3 with different gaps. Used here is what they share:
Signature V4, path-style addresses, conditional puts. What a store may lack (CORS and lifecycle rules) is asked for and
only warned about. Two endpoints: data goes to the one that this process reaches, links are signed for the one that
clients reach, because the host is part of a signature.
"""

import builtins
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import boto3
import msgspec

from storage.bucket import prepare_bucket
from storage.errors import (
    BucketMissing,
    ObjectExists,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
    UploadMissing,
    UploadRefused,
)
from storage.keys import CANARY_KEY
from storage.range_reader import RangeReader
from storage.s3_client import s3_client
from storage.s3_errors import s3_errors
from storage.settings import StorageSettings

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import HeadObjectOutputTypeDef

#: Bytes read from a body at once: what a broken connection costs at most.
_BLOCK = 256 * 1024
#: How long a reader bears a store that gives nothing: longer than a restart takes; and its wait between two tries.
_PATIENCE_SECONDS, _WAIT_SECONDS = 10, 0.25


class ObjectInfo(msgspec.Struct, frozen=True):
    key: str
    #: Bytes.
    size: int
    #: Empty in lists: they do not say.
    content_type: str
    #: Seconds since the epoch.
    modified: float
    #: What the store knows its bytes by, without quotes; of a multipart upload, it depends on the parts, too.
    etag: str
    #: What whoever put it said of it, names in small letters. Empty in lists.
    metadata: dict[str, str] = {}


class Part(msgspec.Struct, frozen=True):
    """A part of a multipart upload that the store has."""

    #: Counts from 1.
    number: int
    #: Bytes.
    size: int
    etag: str


class PendingUpload(msgspec.Struct, frozen=True):
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    #: Seconds since the epoch.
    started: float


class PresignedPut(msgspec.Struct, frozen=True):
    url: str
    #: Headers that the client must send as they are: they are signed.
    headers: dict[str, str]


class ObjectStore:
    """One bucket. Safe to share between threads.

    Every method may raise StoreUnavailable, StoreRefused and BucketMissing; others are named where they can occur.
    """

    def __init__(self, settings: StorageSettings) -> None:
        """No I/O.

        Raises:
            SettingsError: an endpoint is no URL.
        """
        self._bucket = settings.s3_bucket
        self._region = settings.s3_region
        self._cors_origins = [origin for origin in map(str.strip, settings.s3_cors_origins.split(",")) if origin]
        # A day more than the janitor waits, which comes first where it runs.
        self._broken_upload_days = -(-settings.upload_expires_seconds // 86400) + 1
        # One session: the second client then takes milliseconds, not a third of a second.
        session = boto3.Session()
        self._s3 = s3_client(session, settings, settings.s3_endpoint_url)
        # Hashing costs a fifth of an upload's speed. So the signature covers everything but a part's bytes: their
        # number is checked, and S3_CHECKSUMS=when_supported adds a CRC of them where the network is not trusted.
        self._parts = s3_client(session, settings, settings.s3_endpoint_url, s3={"payload_signing_enabled": False})
        # Health checks want an answer now, not after a minute of patience.
        self._probe = s3_client(
            session,
            settings,
            settings.s3_endpoint_url,
            read_timeout=3,
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        self._signer = s3_client(
            session,
            settings,
            settings.s3_public_endpoint_url or settings.s3_endpoint_url,
            # A checksum would become a header that the client must send.
            request_checksum_calculation="when_required",
        )

    def prepare(self) -> None:
        """Make the bucket and its CORS and lifecycle rules; may be called again, and by many at once.

        Rules that are not ours are kept. A store without such rules, or a key that may not set them, is a warning.
        """
        with s3_errors(f"preparing bucket {self._bucket}"):
            prepare_bucket(self._s3, self._bucket, self._region, self._cors_origins, self._broken_upload_days)

    def check(self) -> None:
        """Read a small object, stored where it is missing: a bucket can be there without its content. Takes seconds."""
        try:
            with (
                s3_errors(f"read {CANARY_KEY}"),
                closing(self._probe.get_object(Bucket=self._bucket, Key=CANARY_KEY)["Body"]) as body,
            ):
                body.read()
        except ObjectMissing:
            with s3_errors(f"put {CANARY_KEY}"):
                self._probe.put_object(Bucket=self._bucket, Key=CANARY_KEY, Body=b"Read by health checks.\n")

    # Objects

    def put(
        self,
        key: str,
        data: bytes,
        content_type: str,
        *,
        if_absent: bool = False,
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Store an object, whole or not at all; an object with this key is replaced.

        Raises:
            ObjectExists: `if_absent`, and there is one. It may be our own: a first try whose answer was lost.
        """
        more: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        if metadata:
            more["Metadata"] = metadata
        with s3_errors(f"put {key}"):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=data, ContentType=content_type, **more)

    def get(self, key: str) -> bytes:
        """The whole object, in memory: for small ones.

        Raises:
            ObjectMissing: there is none.
        """
        with self.open(key) as reader:
            return reader.readall()

    def open(self, key: str, known_etag: str | None = None) -> RangeReader:
        """A seekable file over range requests; a connection that breaks in the middle is taken up where it broke.

        Raises:
            ObjectMissing: there is none, or not the one that is known; from reads also: it was removed or replaced.
        """
        answer = self._head(key)
        etag = answer["ETag"]
        if known_etag not in (None, etag.strip('"')):
            raise ObjectMissing(f"{key} was replaced by another recording")
        return RangeReader(lambda begin, end: self._read(key, etag, begin, end), answer["ContentLength"])

    def head(self, key: str) -> ObjectInfo:
        """
        Raises:
            ObjectMissing: there is none.
        """
        answer = self._head(key)
        modified = answer["LastModified"].timestamp()
        etag = answer["ETag"].strip('"')
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return ObjectInfo(key, answer["ContentLength"], answer.get("ContentType", ""), modified, etag, metadata)

    def copy(self, key: str, target: str) -> None:
        """Store an object at `target`, too; its bytes do not leave the store. For objects of up to 5 GiB: S3's limit.

        Raises:
            ObjectMissing: there is none.
        """
        with s3_errors(f"copy {key}"):
            self._s3.copy_object(Bucket=self._bucket, Key=target, CopySource={"Bucket": self._bucket, "Key": key})

    def delete(self, key: str) -> None:
        """Remove an object; there being none is fine."""
        with s3_errors(f"delete {key}"):
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    def delete_prefix(self, prefix: str) -> int:
        """Remove every object whose key begins with the prefix; returns how many.

        Raises:
            ValueError: the prefix is empty: that would be the whole bucket.
        """
        if not prefix:
            raise ValueError("an empty prefix is the whole bucket")
        removed = 0
        with s3_errors(f"delete {prefix}*"):
            # Each page is listed anew: what it holds is gone when the next one is asked for.
            while keys := self._first_keys(prefix):
                answer = self._s3.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
                )
                if errors := answer.get("Errors"):
                    raise StoreUnavailable(f"delete {prefix}*: {len(errors)} objects stay: {errors[0].get('Message')}")
                removed += len(keys)
        return removed

    # Multipart uploads

    def start_upload(self, key: str, content_type: str | None = None) -> str:
        """Begin a multipart upload; returns its id. Nothing is at the key until it is completed."""
        given: dict[str, Any] = {"ContentType": content_type} if content_type else {}
        with s3_errors(f"start the upload of {key}"):
            return self._s3.create_multipart_upload(Bucket=self._bucket, Key=key, **given)["UploadId"]

    def upload_part(self, key: str, upload_id: str, number: int, data: bytes) -> Part:
        """Store part `number` (from 1; at least 5 MiB but for the last one); the same number again replaces it.

        Raises:
            UploadMissing: the upload was completed, aborted or never begun.
        """
        with s3_errors(f"part {number} of {key}"):
            answer = self._parts.upload_part(
                Bucket=self._bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=data
            )
        return Part(number, len(data), answer["ETag"])

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Make the object of its parts, in the order of their numbers.

        Raises:
            UploadMissing: the upload was completed, aborted or never begun.
            UploadRefused: a part is missing, changed or too small, or there are none.
        """
        if not parts:
            raise UploadRefused(f"complete {key}: no parts")
        ordered = sorted(parts, key=lambda part: part.number)
        with s3_errors(f"complete {key}"):
            self._s3.complete_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": [{"PartNumber": part.number, "ETag": part.etag} for part in ordered]},
            )

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts; one that is not there is fine."""
        try:
            with s3_errors(f"abort the upload of {key}"):
                self._s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
        except UploadMissing:
            return

    def list_parts(self, key: str, upload_id: str) -> builtins.list[Part]:
        """The parts that the store has, by number.

        Raises:
            UploadMissing: the upload was completed, aborted or never begun.
        """
        pages = self._s3.get_paginator("list_parts").paginate(Bucket=self._bucket, Key=key, UploadId=upload_id)
        with s3_errors(f"list the parts of {key}"):
            return [
                Part(part["PartNumber"], part["Size"], part["ETag"]) for page in pages for part in page.get("Parts", [])
            ]

    def uploads(self, prefix: str = "") -> Iterator[PendingUpload]:
        """The uploads that were begun and neither completed nor aborted."""
        pages = self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
        with s3_errors(f"list uploads {prefix}*"):
            for page in pages:
                for upload in page.get("Uploads", []):
                    yield PendingUpload(upload["Key"], upload["UploadId"], upload["Initiated"].timestamp())

    # Signed links: no I/O

    def presign_put(self, key: str, size: int, content_type: str | None, seconds: int) -> PresignedPut:
        """A link with which anyone may put exactly `size` bytes at the key, once or more often, for `seconds`."""
        headers = {"Content-Type": content_type} if content_type else {}
        typed: dict[str, Any] = {"ContentType": content_type} if content_type else {}
        return PresignedPut(self._sign("put_object", seconds, Key=key, ContentLength=size, **typed), headers)

    def presign_part(self, key: str, upload_id: str, number: int, size: int, seconds: int) -> str:
        """A link for part `number` of an upload, of exactly `size` bytes."""
        return self._sign("upload_part", seconds, Key=key, UploadId=upload_id, PartNumber=number, ContentLength=size)

    def presign_get(self, key: str, filename: str, content_type: str, seconds: int) -> str:
        """A link that downloads the object under a name of any characters, as the media type given."""
        return self._sign(
            "get_object",
            seconds,
            Key=key,
            ResponseContentDisposition=_attachment(filename),
            ResponseContentType=content_type,
            ResponseCacheControl="private, no-store",
        )

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """The objects whose key begins with the prefix, by key, those behind `after`; asked for by page, as taken."""
        begin: dict[str, Any] = {"StartAfter": after} if after else {}
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix, **begin)
        with s3_errors(f"list {prefix}*"):
            for page in pages:
                for item in page.get("Contents", []):
                    modified, etag = item["LastModified"].timestamp(), item["ETag"].strip('"')
                    yield ObjectInfo(item["Key"], item["Size"], "", modified, etag)

    def _first_keys(self, prefix: str) -> builtins.list[str]:
        page = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=1000)
        return [item["Key"] for item in page.get("Contents", [])]

    def _check_bucket(self) -> None:
        try:
            with s3_errors(f"bucket {self._bucket}"):
                self._s3.head_bucket(Bucket=self._bucket)
        except ObjectMissing as error:
            # A HEAD has no body, so its 404 does not say what is missing.
            raise BucketMissing(f"bucket {self._bucket} does not exist") from error

    def _head(self, key: str) -> "HeadObjectOutputTypeDef":
        try:
            with s3_errors(f"head {key}"):
                return self._s3.head_object(Bucket=self._bucket, Key=key)
        except ObjectMissing as error:
            self._check_bucket()
            raise ObjectMissing(f"no object has the key {key}") from error

    def _read(self, key: str, etag: str, begin: int, end: int) -> bytes:
        """The bytes begin to end - 1 of the object as it was when `etag` was read."""
        content = bytearray()
        gave_at = time.monotonic()
        while len(content) < end - begin:
            had = len(content)
            try:
                self._read_on(key, etag, begin, end, content)
                if len(content) == had:
                    raise StoreUnavailable(f"read {key}: the store gives an empty body")
            except StoreUnavailable:
                # A body that broke half-way is not a failing store: it is read on at once.
                if len(content) > had:
                    gave_at = time.monotonic()
                elif time.monotonic() - gave_at > _PATIENCE_SECONDS:
                    raise
                else:
                    time.sleep(_WAIT_SECONDS)
        return bytes(content)

    def _read_on(self, key: str, etag: str, begin: int, end: int, content: bytearray) -> None:
        """Append what is still missing; what came before a connection broke stays."""
        start = begin + len(content)
        try:
            with s3_errors(f"read {key}"):
                answer = self._s3.get_object(
                    Bucket=self._bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=etag
                )
                # Some stores ignore Range and send the object from its beginning.
                if start > 0 and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
                    raise StoreRefused(f"read {key}: the store does not serve ranges")
                with closing(answer["Body"]) as body:
                    while block := body.read(min(_BLOCK, end - begin - len(content))):
                        content += block
        except ObjectExists as error:
            # S3's word for a condition that does not hold, here If-Match.
            raise ObjectMissing(f"{key} was replaced while it was read") from error

    def _sign(self, operation: str, seconds: int, **parameters: Any) -> str:
        with s3_errors(f"sign {operation}"):
            return self._signer.generate_presigned_url(
                operation, Params={"Bucket": self._bucket, **parameters}, ExpiresIn=seconds
            )


def _attachment(filename: str) -> str:
    """Content-Disposition as RFC 6266: the exact name for those who read filename*, an ASCII one for the others."""
    ascii_name = "".join(c if " " <= c <= "~" and c not in '"\\%;' else "_" for c in filename)
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"
