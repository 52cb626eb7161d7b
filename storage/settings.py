"""Where things are kept, read from the environment."""

import os
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta
from msgspec.inspect import BoolType, FloatType, IntType, LiteralType, Metadata, Type, type_info

from storage.structs import convert

T = TypeVar("T", bound=msgspec.Struct)

#: A whole number of something, at least one.
Count = Annotated[int, Meta(ge=1, le=10_000)]
#: At most ten years.
Seconds = Annotated[int, Meta(ge=1, le=10 * 365 * 86400)]
#: S3's limits: 5 TiB an object, 5 GiB a request.
ObjectBytes = Annotated[int, Meta(ge=1, le=5 * 2**40, extra={"write": "bytes, as 1073741824"})]
RequestBytes = Annotated[int, Meta(ge=1, le=5 * 2**30, extra={"write": "bytes, as 1073741824"})]
Port = Annotated[int, Meta(ge=1, le=65535)]


class SettingsError(Exception):
    """An environment variable is missing or has a value that cannot be used."""


def read_settings(kind: type[T], environ: Mapping[str, str] = os.environ) -> T:
    """Fill a settings Struct from the environment: field `s3_bucket` is read from `S3_BUCKET`; empty counts as not set.

    Raises:
        SettingsError: a variable without a default is not set, or a value does not fit; the message names the variable.
    """
    given: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        value = environ.get(field.name.upper(), "")
        if value != "":
            given[field.name] = _read(field, value)
        elif field.required:
            raise SettingsError(f"{field.name.upper()} is not set")
    return kind(**given)


def _read(field: msgspec.structs.FieldInfo, value: str) -> object:
    try:
        return convert(value, field.type, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{field.name.upper()}={_reason(type_info(field.type), value)}") from error


def _reason(kind: Type, value: str) -> str:
    """Why the value is refused. A number and a choice are no secrets: they are repeated."""
    match kind:
        case Metadata(type=inner, extra=extra):
            return f"{value!r}: write {extra['write']}" if extra and not _is_whole(value) else _reason(inner, value)
        case IntType(ge=low) if low is not None and _is_whole(value) and int(value) < low:
            return f"{value}: {low:.0f} at least"
        case IntType(le=high) if high is not None and _is_whole(value) and int(value) > high:
            return f"{value}: {high:.0f} at most"
        case IntType():
            return f"{value!r} is not a whole number"
        case FloatType(ge=low, le=high) if low is not None and high is not None and _is_number(value):
            return f"{value}: {low:g} to {high:g}"
        case FloatType():
            return f"{value!r} is not a number"
        case BoolType():
            return f"{value!r}: true or false"
        case LiteralType(values=choices):
            return f"{value!r}: one of {', '.join(map(str, choices))}"
        case _:
            return f"{value!r} cannot be used"


def _is_whole(value: str) -> bool:
    return value.removeprefix("-").isdecimal()


def _is_number(value: str) -> bool:
    return value.removeprefix("-").replace(".", "", 1).isdecimal()


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Shared by the API and the workers."""

    #: The object store as this process reaches it.
    s3_endpoint_url: str
    #: The object store as clients reach it: links are signed for this host. Empty: the same.
    s3_public_endpoint_url: str = ""
    s3_access_key: str
    s3_secret_key: str
    s3_bucket: str = "bucketscribe"
    s3_region: str = "us-east-1"
    #: Which requests carry a checksum beyond the signature; some stores refuse those that need none.
    s3_checksums: Literal["when_required", "when_supported"] = "when_required"
    #: The proxy of requests to the object store; empty: none, also where HTTP_PROXY or a similar variable is set.
    s3_proxy_url: str = ""
    #: Origins whose pages may upload to the bucket, comma-separated.
    s3_cors_origins: str = "*"
    #: Without a database number: 0 is the queue, 1 the jobs.
    redis_url: str
    #: How long a silent worker's messages wait before another gets them; whoever uses the queue looks for such.
    heartbeat_seconds: Annotated[int, Meta(ge=1, le=86400)] = 15
    #: Bytes of one recording.
    max_file_size: ObjectBytes = 4 * 2**30
    #: Private networks that urls and webhooks may reach, as 10.0.0.0/8, comma-separated; empty: public ones only.
    allowed_networks: str = ""
    #: A recording whose bytes and options were transcribed before, by the same key, gets copies of those results.
    reuse_results: bool = False
    #: How long finished jobs and their objects are kept; 0: until they are deleted.
    retention_seconds: Annotated[int, Meta(ge=0, le=100 * 365 * 86400)] = 7 * 86400
    #: How long a presigned upload may take, and how old a broken one gets before it is removed.
    upload_expires_seconds: Seconds = 86400
    #: How long a link to a result works; S3 allows a week at most.
    link_seconds: Annotated[int, Meta(ge=1, le=7 * 86400)] = 3600
    #: Whisper model when the client names none; workers load it at start.
    default_model: str = "base"
    #: Folder of weights, one folder a model.
    model_dir: str = "data/models"
    #: Never ask the model hub or the package index for weights.
    model_offline: bool = False
