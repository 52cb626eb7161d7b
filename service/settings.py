"""What the API allows and where it listens, read from its environment."""

from typing import Annotated

import msgspec
from msgspec import Meta

from storage.settings import Port, RequestBytes, Seconds


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    #: Comma-separated; empty: no key is asked for. A job belongs to the key that made it.
    api_keys: str = ""
    #: Requests allowed to one key or address, as `600/minute`; empty: no limit.
    rate_limit: str = ""
    #: Addresses of proxies whose X-Forwarded-For is believed, comma-separated.
    trusted_proxies: str = ""
    #: Other names under which clients ask for models, as `my-model=base,other=small`.
    model_aliases: str = ""
    #: Names under which the API is reached without API_KEYS, beside loopback names, addresses and the name in
    #: S3_PUBLIC_ENDPOINT_URL, comma-separated; *: any.
    allowed_hosts: str = ""
    #: Origins whose pages may call the API, comma-separated; empty: none but the API's own.
    cors_origins: str = ""
    #: Presigned uploads above this many bytes are cut into parts.
    single_upload_max_bytes: RequestBytes = 64 * 2**20
    #: Bytes of a part when the API streams an upload to the store; memory is about three parts an upload.
    upload_part_bytes: RequestBytes = 8 * 2**20
    #: Uploads streamed at once; one more is answered 503 with Retry-After.
    max_concurrent_uploads: Annotated[int, Meta(ge=1, le=1000)] = 8
    #: Of these, how many one key or address may take; 0: half.
    max_uploads_per_client: Annotated[int, Meta(ge=0, le=1000)] = 0
    #: How long a client may send nothing while it uploads, or less than the least rate; then its slot is free again.
    upload_idle_seconds: Seconds = 60
    #: The least rate of an upload, over upload_idle_seconds of waiting for the client; 0: any rate above none.
    min_upload_bytes_per_second: Annotated[int, Meta(ge=0, le=2**30)] = 1024
    #: How long a client may take to send a request's headers, and how many bytes they may have.
    header_seconds: Annotated[int, Meta(ge=1, le=3600)] = 10
    max_header_bytes: Annotated[int, Meta(ge=1024, le=2**24)] = 64 * 1024
    #: Jobs that wait for their upload or for a worker; one more is answered 503 with Retry-After.
    max_waiting_jobs: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    #: Of these, how many one key or address may have; one more is answered 429. The inbox counts as one client and
    #: waits; 0: half.
    max_waiting_jobs_per_client: Annotated[int, Meta(ge=0, le=10_000_000)] = 2000
    #: How long the synchronous call waits before it answers 202 with the job.
    sync_timeout_seconds: Seconds = 600
    #: Event streams open at once; one more is answered 503 with Retry-After.
    max_listeners: Annotated[int, Meta(ge=1, le=100_000)] = 2000
    #: Of these, how many one key or address may open; 0: half.
    max_listeners_per_client: Annotated[int, Meta(ge=0, le=100_000)] = 0
    #: How often a silent event stream says that it lives, so that no proxy closes it.
    keep_alive_seconds: Seconds = 15
    #: Bytes of transcripts kept in memory for event streams; what does not fit is read again when it is needed.
    events_memory_bytes: RequestBytes = 64 * 2**20
    #: An object put under this prefix becomes a job, and its results are put beside it.
    inbox_prefix: str = "inbox/"
    #: How often the inbox is looked through, in seconds; 0: never, only notifications with the token or a key count.
    inbox_seconds: Annotated[int, Meta(ge=0, le=86400)] = 5
    #: What the store sends as Authorization: Bearer with its notifications; empty: one of API_KEYS, if there are any.
    s3_events_token: str = ""
    #: Columns in a subtitle line, a wide character (Chinese, Japanese, Korean) takes two; 0: one line a segment.
    subtitle_line_width: Annotated[int, Meta(ge=0, le=1000)] = 42
    #: Lines in a subtitle, counted only with a width; 0: any number.
    subtitle_line_count: Annotated[int, Meta(ge=0, le=1000)] = 2
    #: Reading speed: a subtitle that would be faster stays longer where there is time; 0: any.
    subtitle_characters_per_second: Annotated[float, Meta(ge=0, le=1000)] = 20.0
    #: How long a subtitle is shown at least, and at most; 0: any time.
    subtitle_min_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.833
    subtitle_max_seconds: Annotated[float, Meta(ge=0, le=3600)] = 7.0
    #: Seconds between two subtitles, at least.
    subtitle_gap_seconds: Annotated[float, Meta(ge=0, le=10)] = 0.083
