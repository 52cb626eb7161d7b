"""boto3's client for an S3-compatible store, with every default that would bind it to AWS set otherwise."""

from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from storage.settings import SettingsError, StorageSettings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

#: More than the parts that are sent at once, so that no thread waits for a connection.
_CONNECTIONS = 40


def s3_client(session: boto3.Session, settings: StorageSettings, endpoint_url: str, **overrides: Any) -> "S3Client":
    """No I/O. `overrides`: settings of botocore's Config.

    Raises:
        SettingsError: the endpoint is no URL.
    """
    options: dict[str, Any] = {
        # Without it boto3 signs links for unknown hosts with the outdated V2.
        "signature_version": "s3v4",
        "connect_timeout": 3,
        "read_timeout": 60,
        "retries": {"total_max_attempts": 3, "mode": "standard"},
        "max_pool_connections": _CONNECTIONS,
        "request_checksum_calculation": settings.s3_checksums,
        "response_checksum_validation": settings.s3_checksums,
        # Without it the proxy of the environment, which is meant for the internet, would see every recording.
        "proxies": dict.fromkeys(("http", "https"), settings.s3_proxy_url) if settings.s3_proxy_url else {},
        **overrides,
    }
    options["s3"] = {"addressing_style": "path", **overrides.get("s3", {})}
    try:
        return session.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=settings.s3_region,
            aws_access_key_id=settings.s3_access_key,
            aws_secret_access_key=settings.s3_secret_key,
            config=Config(**options),
        )
    except ValueError as error:
        # botocore says "Invalid endpoint: ..."; which variable is told by the value.
        raise SettingsError(f"S3_ENDPOINT_URL or S3_PUBLIC_ENDPOINT_URL: {error}") from error
