"""One suite over two stores: the real SeaweedFS, and moto as a second opinion on what S3 is."""

import io
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import msgspec
import pytest
import requests
from minio import Minio

from storage.errors import (
    BucketMissing,
    ObjectExists,
    ObjectMissing,
    StorageError,
    StoreUnavailable,
    UploadMissing,
    UploadRefused,
)
from storage.keys import job_key, result_key, source_key
from storage.object_store import ObjectStore, Part
from storage.settings import SettingsError, StorageSettings
from tests.stack import Parts, StoreServer

pytestmark = pytest.mark.integration

PART = 5 * 2**20


@pytest.fixture(scope="module")
def moto(parts: Parts) -> Iterator[StoreServer]:
    server = parts.start_moto()
    yield server
    server.running.kill()


@pytest.fixture(scope="module", params=["seaweedfs", "moto"])
def settings(request: pytest.FixtureRequest, store_settings: StorageSettings) -> StorageSettings:
    """A bucket of this module's own, not made yet."""
    changes: dict[str, object] = {"s3_bucket": f"objects-{secrets.token_hex(4)}"}
    if request.param == "moto":
        server: StoreServer = request.getfixturevalue("moto")
        changes |= {"s3_endpoint_url": server.url, "s3_access_key": "moto", "s3_secret_key": "moto"}
    return msgspec.structs.replace(store_settings, **changes)


@pytest.fixture(scope="module")
def store(settings: StorageSettings) -> ObjectStore:
    store = ObjectStore(settings)
    store.prepare()
    return store


@pytest.fixture
def prefix() -> str:
    """A folder of the test's own."""
    return f"test/{secrets.token_hex(4)}/"


def test_keys_derive_from_the_job_id() -> None:
    assert source_key("1a") == "sources/1a/media"
    assert job_key("1a") == "sources/1a/job.json"
    assert result_key("1a", "text") == result_key("1a", "txt") == "transcripts/1a/transcript.txt"
    assert result_key("1a", "srt") == "transcripts/1a/transcript.srt"


def test_an_endpoint_that_is_no_url_is_a_wrong_setting(store_settings: StorageSettings) -> None:
    with pytest.raises(SettingsError, match="S3_ENDPOINT_URL"):
        ObjectStore(msgspec.structs.replace(store_settings, s3_endpoint_url="store:8333"))


def test_what_is_put_is_what_is_got(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}a", b"\x00\xff recording", "audio/mpeg")

    assert store.get(f"{prefix}a") == b"\x00\xff recording"
    info = store.head(f"{prefix}a")
    assert (info.key, info.size, info.content_type) == (f"{prefix}a", 12, "audio/mpeg")
    assert info.modified > 1_700_000_000


def test_metadata_come_back_with_their_names_in_small_letters(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}a", b"sound", "audio/mpeg", metadata={"Response-Format": "srt"})

    assert store.head(f"{prefix}a").metadata == {"response-format": "srt"}


def test_a_list_can_begin_behind_a_key(store: ObjectStore, prefix: str) -> None:
    for name in ("a", "b", "b+ü", "c"):
        store.put(prefix + name, b"", "text/plain")

    assert [item.key for item in store.list(prefix, after=f"{prefix}b")] == [f"{prefix}b+ü", f"{prefix}c"]


def test_only_the_version_that_is_known_is_opened(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}a", b"first", "audio/mpeg")
    known = store.head(f"{prefix}a").etag
    with store.open(f"{prefix}a", known) as reader:
        content = reader.readall()
    store.put(f"{prefix}a", b"second", "audio/mpeg")

    with pytest.raises(ObjectMissing, match="was replaced"):
        store.open(f"{prefix}a", known)

    assert content == b"first"


def test_an_empty_object_is_an_object(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}empty", b"", "audio/wav")

    assert store.get(f"{prefix}empty") == b""
    assert store.head(f"{prefix}empty").size == 0


@pytest.mark.parametrize(
    "name",
    [
        "Übung 1.mp3",
        "a b+c&d=e?f#g%20.wav",
        "会議/録音.m4a",
        "quote'\"<>.ogg",
        "..hidden",
        "a..b",
        "emoji 🎙️",
        "semi;colon",
    ],
)
def test_keys_of_any_characters_name_their_own_object(store: ObjectStore, prefix: str, name: str) -> None:
    store.put(prefix + name, name.encode(), "text/plain")

    assert store.get(prefix + name) == name.encode()
    assert [info.key for info in store.list(prefix)] == [prefix + name]
    link = store.presign_get(prefix + name, name, "text/plain", 60)
    assert requests.get(link, timeout=120).content == name.encode()

    store.delete(prefix + name)

    assert list(store.list(prefix)) == []


def test_a_key_with_dots_never_reaches_another_object(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}secret", b"original", "text/plain")

    try:
        store.put(f"{prefix}inner/../secret", b"intruder", "text/plain")
    except StorageError:
        pass  # A store may refuse such a key; what it may not do is to resolve it.

    assert store.get(f"{prefix}secret") == b"original"


def test_there_being_no_object_is_named(store: ObjectStore, prefix: str) -> None:
    for call in (store.get, store.head, store.open):
        with pytest.raises(ObjectMissing, match=prefix):
            call(f"{prefix}nothing")


def test_deleting_what_is_not_there_is_fine(store: ObjectStore, prefix: str) -> None:
    store.delete(f"{prefix}nothing")

    assert store.delete_prefix(prefix) == 0


def test_a_missing_bucket_is_named_by_every_call(settings: StorageSettings) -> None:
    store = ObjectStore(msgspec.structs.replace(settings, s3_bucket="nobody-made-this"))

    calls: list[Callable[[], object]] = [
        store.check,
        lambda: store.get("a"),
        lambda: store.head("a"),
        lambda: store.put("a", b"", "text/plain"),
        lambda: store.delete_prefix("a"),
        lambda: store.start_upload("a"),
        lambda: list(store.list("a")),
        lambda: list(store.uploads()),
    ]
    for call in calls:
        with pytest.raises(BucketMissing):
            call()


def test_preparing_again_changes_nothing_that_is_kept(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}a", b"kept", "text/plain")

    store.prepare()
    store.check()

    assert store.get(f"{prefix}a") == b"kept"


def test_of_eight_writers_at_once_one_wins(store: ObjectStore, prefix: str) -> None:
    def write(number: int) -> int | None:
        try:
            store.put(f"{prefix}race", str(number).encode(), "text/plain", if_absent=True)
        except ObjectExists:
            return None
        return number

    with ThreadPoolExecutor(8) as threads:
        winners = [number for number in threads.map(write, range(8)) if number is not None]

    assert len(winners) == 1
    assert store.get(f"{prefix}race") == str(winners[0]).encode()


def test_a_multipart_upload_is_nothing_until_it_is_complete(store: ObjectStore, prefix: str) -> None:
    key = f"{prefix}long"
    content = secrets.token_bytes(2 * PART + 12_345)
    upload_id = store.start_upload(key, "audio/flac")

    sent = [store.upload_part(key, upload_id, n + 1, content[n * PART : (n + 1) * PART]) for n in (2, 0, 1)]

    with pytest.raises(ObjectMissing):
        store.head(key)
    assert [pending.upload_id for pending in store.uploads(prefix)] == [upload_id]
    there = store.list_parts(key, upload_id)
    assert [(part.number, part.size) for part in there] == [(1, PART), (2, PART), (3, 12_345)]

    store.complete_upload(key, upload_id, sent)

    assert store.get(key) == content
    assert store.head(key).content_type == "audio/flac"
    assert list(store.uploads(prefix)) == []


def test_an_upload_can_be_completed_from_the_stores_own_list(store: ObjectStore, prefix: str) -> None:
    key = f"{prefix}resumed"
    upload_id = store.start_upload(key)
    store.upload_part(key, upload_id, 1, b"x" * PART)
    store.upload_part(key, upload_id, 2, b"wrong")
    store.upload_part(key, upload_id, 2, b"right")

    store.complete_upload(key, upload_id, store.list_parts(key, upload_id))

    assert store.get(key) == b"x" * PART + b"right"


def test_an_aborted_upload_leaves_nothing(store: ObjectStore, prefix: str) -> None:
    key = f"{prefix}aborted"
    upload_id = store.start_upload(key)
    store.upload_part(key, upload_id, 1, b"x" * PART)

    store.abort_upload(key, upload_id)
    store.abort_upload(key, upload_id)

    assert list(store.uploads(prefix)) == []
    with pytest.raises(ObjectMissing):
        store.head(key)
    with pytest.raises(UploadMissing):
        store.list_parts(key, upload_id)


def test_parts_that_are_not_there_are_refused(store: ObjectStore, prefix: str) -> None:
    key = f"{prefix}gap"
    upload_id = store.start_upload(key)
    first = store.upload_part(key, upload_id, 1, b"x" * PART)

    with pytest.raises(UploadRefused):
        store.complete_upload(key, upload_id, [first, Part(2, 5, '"d41d8cd98f00b204e9800998ecf8427e"')])
    with pytest.raises(UploadRefused):
        store.complete_upload(key, upload_id, [])

    with pytest.raises(ObjectMissing):
        store.head(key)
    store.abort_upload(key, upload_id)


def test_a_prefix_of_more_than_a_page_is_listed_and_deleted_whole(store: ObjectStore, prefix: str) -> None:
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: store.put(f"{prefix}many/{n:04d}", b"", "text/plain"), range(1003)))
    store.put(f"{prefix}many-others", b"stays", "text/plain")

    assert [info.key for info in store.list(f"{prefix}many/")] == [f"{prefix}many/{n:04d}" for n in range(1003)]
    assert store.delete_prefix(f"{prefix}many/") == 1003

    assert [info.key for info in store.list(prefix)] == [f"{prefix}many-others"]


def test_the_whole_bucket_is_never_deleted(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="whole bucket"):
        store.delete_prefix("")


def test_a_signed_put_stores_the_object(store: ObjectStore, prefix: str) -> None:
    link = store.presign_put(f"{prefix}put", 5, "audio/ogg", 60)

    answer = requests.put(link.url, data=b"12345", headers=link.headers, timeout=120)

    assert answer.status_code == 200
    assert store.get(f"{prefix}put") == b"12345"
    assert store.head(f"{prefix}put").content_type == "audio/ogg"


def test_signed_parts_make_an_object(store: ObjectStore, prefix: str) -> None:
    key = f"{prefix}parts"
    upload_id = store.start_upload(key)

    for number, data in ((1, b"a" * PART), (2, b"bc")):
        link = store.presign_part(key, upload_id, number, len(data), 60)
        assert requests.put(link, data=data, timeout=120).status_code == 200
    store.complete_upload(key, upload_id, store.list_parts(key, upload_id))

    assert store.get(key) == b"a" * PART + b"bc"


def test_a_signed_link_downloads_under_the_name_given(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}get", "1\n00:00:00,000 --> 00:00:01,000\nça\n".encode(), "application/octet-stream")

    link = store.presign_get(f"{prefix}get", 'résumé "1"\r\n.srt', "application/x-subrip; charset=utf-8", 60)
    answer = requests.get(link, timeout=120)

    assert answer.content.decode() == "1\n00:00:00,000 --> 00:00:01,000\nça\n"
    assert answer.headers["Content-Type"] == "application/x-subrip; charset=utf-8"
    disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith('attachment; filename="r_sum_ _1___.srt"; ')
    assert disposition.endswith("filename*=UTF-8''r%C3%A9sum%C3%A9%20%221%22%0D%0A.srt")


def test_links_are_signed_for_the_public_endpoint(settings: StorageSettings) -> None:
    store = ObjectStore(msgspec.structs.replace(settings, s3_public_endpoint_url="https://media.example.org/s3"))

    links = [
        store.presign_put("a", 1, None, 60).url,
        store.presign_part("a", "u", 1, 1, 60),
        store.presign_get("a", "a", "text/plain", 60),
    ]

    for link in links:
        assert link.startswith(f"https://media.example.org/s3/{settings.s3_bucket}/a?")
        assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link


def test_another_client_reads_the_same_object(store: ObjectStore, settings: StorageSettings, prefix: str) -> None:
    content = secrets.token_bytes(100_000)
    store.put(f"{prefix}Ünabhängig", content, "audio/wav")

    client = Minio(
        endpoint=settings.s3_endpoint_url.removeprefix("http://"),
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        secure=False,
    )

    with closing(client.get_object(bucket_name=settings.s3_bucket, object_name=f"{prefix}Ünabhängig")) as answer:
        assert answer.read() == content
        assert answer.headers["Content-Type"] == "audio/wav"


def test_a_reader_seeks_and_reads_as_a_file_does(store: ObjectStore, prefix: str) -> None:
    content = secrets.token_bytes(700_000)
    store.put(f"{prefix}file", content, "audio/wav")
    file = io.BytesIO(content)

    with store.open(f"{prefix}file") as reader:
        for offset, whence, length in (
            (-100, 2, 200),
            (0, 0, 44),
            (500_000, 0, 70_000),
            (10, 1, 5),
            (0, 2, 1),
            (9, 0, -1),
        ):
            assert reader.seek(offset, whence) == file.seek(offset, whence)
            assert reader.read(length) == file.read(length)
            assert reader.tell() == file.tell()


def test_an_object_replaced_while_it_is_read_is_not_mixed(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}changing", b"a" * 1_000_000, "audio/wav")
    reader = store.open(f"{prefix}changing")
    assert reader.read(10) == b"a" * 10

    store.put(f"{prefix}changing", b"b" * 1_000_000, "audio/wav")

    with pytest.raises(ObjectMissing, match="replaced"):
        reader.readall()


def test_a_store_that_is_not_there_is_unavailable(settings: StorageSettings, parts: Parts) -> None:
    store = ObjectStore(msgspec.structs.replace(settings, s3_endpoint_url="http://127.0.0.1:9"))

    for call in (store.check, lambda: store.get("a"), lambda: store.put("a", b"", "text/plain"), store.prepare):
        with pytest.raises(StoreUnavailable):
            call()
