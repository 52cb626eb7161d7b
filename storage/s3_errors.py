"""What botocore raises, by our names."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from storage.errors import (
    BucketMissing,
    ObjectExists,
    ObjectMissing,
    StorageError,
    StoreRefused,
    StoreUnavailable,
    UploadMissing,
    UploadRefused,
)

#: Error codes of S3: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html. HEAD has no body, so no code:
#: botocore puts the status in its place.
_BY_CODE: dict[str, type[StorageError]] = {
    "NoSuchBucket": BucketMissing,
    "NoSuchKey": ObjectMissing,
    "404": ObjectMissing,
    "PreconditionFailed": ObjectExists,
    "412": ObjectExists,
    "NoSuchUpload": UploadMissing,
    "InvalidPart": UploadRefused,
    "InvalidPartOrder": UploadRefused,
    "EntityTooSmall": UploadRefused,
    "EntityTooLarge": UploadRefused,
    "MalformedXML": UploadRefused,
    "RequestTimeout": StoreUnavailable,
    # Two writers at once: S3 asks the loser to try again.
    "ConditionalRequestConflict": StoreUnavailable,
    "OperationAborted": StoreUnavailable,
    "SlowDown": StoreUnavailable,
}


@contextmanager
def s3_errors(what: str) -> Iterator[None]:
    """Errors of botocore leave as a StorageError whose message begins with `what`: an operation and a key."""
    try:
        yield
    except ClientError as error:
        raise _named(error)(f"{what}: {_answer(error)}") from error
    except (ParamValidationError, NoCredentialsError, PartialCredentialsError, ResponseParserError) as error:
        raise StoreRefused(f"{what}: {_one_line(error)}") from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"{what}: {_one_line(error)}") from error


def status_of(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _named(error: ClientError) -> type[StorageError]:
    known = _BY_CODE.get(error.response.get("Error", {}).get("Code", ""))
    if known is not None:
        return known
    status = status_of(error)
    # 429 is how some gateways in front of a store say SlowDown. Any other 4xx is the same the next time.
    return StoreUnavailable if status >= 500 or status == 429 else StoreRefused


def _answer(error: ClientError) -> str:
    answer = error.response.get("Error", {})
    return f"the store answered {status_of(error)} {answer.get('Code', '')} {answer.get('Message', '')}".rstrip()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
