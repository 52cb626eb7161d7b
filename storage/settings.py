"""Where things are kept, read from the environment."""

import os
from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


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
            given[field.name] = value
        elif field.required:
            raise SettingsError(f"{field.name.upper()} is not set")
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_named(error)) from error


def _named(error: msgspec.ValidationError) -> str:
    """msgspec's message with the variable's name in place of its JSON path: `$.api_port` becomes API_PORT."""
    what, _, path = str(error).partition(" - at `$.")
    return f"{path.rstrip('`').upper()}: {what}" if path else what


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
    #: Origins whose pages may upload to the bucket, comma-separated.
    s3_cors_origins: str = "*"
    #: Without a database number: 0 is the queue, 1 the jobs.
    redis_url: str
    #: How long finished jobs and their objects are kept; 0: until they are deleted.
    retention_seconds: int = 7 * 86400
    #: How long a presigned upload may take, and how old a broken one gets before it is removed.
    upload_expires_seconds: int = 86400
    #: How long a link to a result works.
    link_seconds: int = 3600
    #: Whisper model when the client names none; workers load it at start.
    default_model: str = "base"
    #: Folder of weights, one folder a model.
    model_dir: str = "data/models"
    #: Never ask the model hub or the package index for weights.
    model_offline: bool = False
