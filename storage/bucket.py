"""Makes the bucket ready: there, open to the pages that may upload, and rid of leftovers by the store itself."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import ClientError

from storage.s3_errors import status_of

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

log = structlog.get_logger()

#: Days after which the store drops the chunks of a recording: no job takes as long.
CHUNK_DAYS = 7

#: Rules whose id begins so are ours; all others are kept as they are.
_OURS = "bucketscribe-"


def prepare_bucket(
    s3: "S3Client", bucket: str, region: str, cors_origins: Sequence[str], broken_upload_days: int
) -> None:
    """Make the bucket, its CORS and its lifecycle rules, where they are missing. Raises botocore's errors.

    `broken_upload_days`: after so many the store drops the parts of an upload that was never completed.
    """
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if status_of(error) != 404:
            raise
        _create(s3, bucket, region)
    _or_warn("CORS", lambda: _set_cors(s3, bucket, cors_origins))
    _or_warn("lifecycle", lambda: _set_lifecycle(s3, bucket, broken_upload_days))


def _create(s3: "S3Client", bucket: str, region: str) -> None:
    # AWS refuses its oldest region as a constraint; it is the default.
    place: dict[str, Any] = (
        {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    )
    try:
        s3.create_bucket(Bucket=bucket, **place)
    except ClientError as error:
        # Another process was faster. A bucket of somebody else's says the same, and the next request is refused.
        if status_of(error) != 409:
            raise
    log.info("bucket created", bucket=bucket)


def _or_warn(what: str, set_rules: Callable[[], None]) -> None:
    """Such rules are a convenience: stores that lack them and keys that may not set them are common."""
    try:
        set_rules()
    except ClientError as error:
        if status_of(error) in (429, 500, 502, 503, 504):
            raise
        log.warning("bucket rules not set", rules=what, code=error.response.get("Error", {}).get("Code"))


def _set_cors(s3: "S3Client", bucket: str, origins: Sequence[str]) -> None:
    theirs = _other_rules(lambda: s3.get_bucket_cors(Bucket=bucket)["CORSRules"])
    ours: Any = {
        "ID": f"{_OURS}pages",
        "AllowedOrigins": list(origins),
        "AllowedMethods": ["GET", "HEAD", "PUT"],
        "AllowedHeaders": ["*"],
        # Of parts, and of results: their names, and how long they are where a range was asked for.
        "ExposeHeaders": ["ETag", "Content-Disposition", "Content-Range"],
        "MaxAgeSeconds": 3600,
    }
    rules = [*theirs, ours] if origins else theirs
    if rules:
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    else:
        s3.delete_bucket_cors(Bucket=bucket)


def _set_lifecycle(s3: "S3Client", bucket: str, broken_upload_days: int) -> None:
    theirs = _other_rules(lambda: s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"])
    # Under our own prefixes: the bucket may be somebody's who uploads other things for longer.
    parts: list[Any] = [
        {
            "ID": f"{_OURS}broken-uploads-{prefix}",
            "Status": "Enabled",
            "Filter": {"Prefix": f"{prefix}/"},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": broken_upload_days},
        }
        for prefix in ("sources", "models")
    ]
    chunks: Any = {
        "ID": f"{_OURS}chunks",
        "Status": "Enabled",
        "Filter": {"Prefix": "chunks/"},
        "Expiration": {"Days": CHUNK_DAYS},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [*theirs, *parts, chunks]})


def _other_rules(read: Callable[[], list[Any]]) -> list[Any]:
    """The rules in force that are not ours."""
    try:
        return [rule for rule in read() if not rule.get("ID", "").startswith(_OURS)]
    except ClientError as error:
        # NoSuchCORSConfiguration, NoSuchLifecycleConfiguration: there are none.
        if status_of(error) != 404:
            raise
        return []
