"""What only a real store does: check signatures and sizes, break, and come back with everything it had."""

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import msgspec
import pytest
import requests

from storage.errors import ObjectMissing, StoreRefused, StoreUnavailable, UploadMissing
from storage.object_store import ObjectStore, Part
from storage.settings import StorageSettings
from tests.stack import Parts, StoreServer

pytestmark = pytest.mark.integration

PART = 5 * 2**20


@pytest.fixture(scope="module")
def settings(store_settings: StorageSettings) -> StorageSettings:
    return msgspec.structs.replace(
        store_settings,
        s3_bucket=f"weed-{secrets.token_hex(4)}",
        s3_cors_origins="https://app.example, https://b.example",
    )


@pytest.fixture(scope="module")
def store(settings: StorageSettings) -> ObjectStore:
    store = ObjectStore(settings)
    store.prepare()
    return store


@pytest.fixture
def own_server(parts: Parts) -> Iterator[StoreServer]:
    """A store that the test may break."""
    server = parts.start_store()
    yield server
    server.running.kill()


@pytest.fixture
def own_store(own_server: StoreServer, settings: StorageSettings) -> ObjectStore:
    store = ObjectStore(at(settings, own_server))
    store.prepare()
    return store


def at(settings: StorageSettings, server: StoreServer) -> StorageSettings:
    return msgspec.structs.replace(
        settings, s3_endpoint_url=server.url, s3_access_key=server.access_key, s3_secret_key=server.secret_key
    )


@pytest.mark.parametrize("size", [4, 6, 0])
def test_a_signed_put_of_another_size_is_refused(store: ObjectStore, size: int) -> None:
    link = store.presign_put(f"size/{size}", 5, None, 60)

    answer = requests.put(link.url, data=b"x" * size, headers=link.headers, timeout=120)

    assert answer.status_code == 403
    with pytest.raises(ObjectMissing):
        store.head(f"size/{size}")


def test_a_signed_part_of_another_size_is_refused(store: ObjectStore) -> None:
    upload_id = store.start_upload("size/part")
    link = store.presign_part("size/part", upload_id, 1, 5, 60)

    assert requests.put(link, data=b"123456", timeout=120).status_code == 403
    assert store.list_parts("size/part", upload_id) == []
    store.abort_upload("size/part", upload_id)


def test_a_signed_put_of_another_type_is_refused(store: ObjectStore) -> None:
    link = store.presign_put("type", 5, "audio/ogg", 60)

    assert requests.put(link.url, data=b"12345", headers={"Content-Type": "text/html"}, timeout=120).status_code == 403


def test_a_link_is_good_for_its_own_key_alone(store: ObjectStore) -> None:
    store.put("mine", b"mine", "text/plain")
    store.put("yours", b"yours", "text/plain")

    link = store.presign_get("mine", "mine", "text/plain", 60)

    assert requests.get(link, timeout=120).status_code == 200
    assert requests.get(link.replace("/mine?", "/yours?"), timeout=120).status_code == 403
    assert requests.put(link, data=b"x", timeout=120).status_code == 403


def test_a_link_ends(store: ObjectStore) -> None:
    store.put("ends", b"here", "text/plain")
    link = store.presign_get("ends", "ends", "text/plain", 1)
    deadline = time.monotonic() + 120

    while (answer := requests.get(link, timeout=120)).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.2)

    assert answer.status_code == 403


def test_nothing_is_to_be_had_without_a_signature(store: ObjectStore, settings: StorageSettings) -> None:
    store.put("secret", b"secret", "text/plain")
    url = f"{settings.s3_endpoint_url}/{settings.s3_bucket}/secret"

    assert requests.get(url, timeout=120).status_code == 403
    assert requests.put(url, data=b"x", timeout=120).status_code == 403
    assert requests.delete(url, timeout=120).status_code == 403
    assert store.get("secret") == b"secret"


@pytest.mark.parametrize("wrong", [{"s3_secret_key": "wrong"}, {"s3_access_key": "nobody"}])
def test_a_wrong_key_is_refused_by_name(settings: StorageSettings, wrong: dict[str, str]) -> None:
    store = ObjectStore(msgspec.structs.replace(settings, **wrong))

    for call in (store.check, store.prepare, lambda: store.get("a"), lambda: store.put("a", b"", "text/plain")):
        with pytest.raises(StoreRefused):
            call()


def test_a_bucket_that_nobody_made_is_not_made_by_a_put(settings: StorageSettings) -> None:
    name = f"unmade-{secrets.token_hex(4)}"
    store = ObjectStore(msgspec.structs.replace(settings, s3_bucket=name))

    upload = requests.put(store.presign_put("a", 1, None, 60).url, data=b"x", timeout=120)

    assert upload.status_code == 404


@pytest.mark.parametrize("origin", ["https://app.example", "https://b.example"])
def test_pages_of_the_origins_that_were_set_may_upload(store: ObjectStore, origin: str) -> None:
    link = store.presign_put("page", 5, None, 60)
    asked = {"Origin": origin, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}

    answer = requests.options(link.url, headers=asked, timeout=120)

    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]


def test_pages_of_other_origins_may_not(store: ObjectStore) -> None:
    link = store.presign_put("page", 5, None, 60)
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}

    answer = requests.options(link.url, headers=asked, timeout=120)

    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_pages_see_the_name_and_the_range_of_a_result(store: ObjectStore) -> None:
    store.put("transcripts/1/transcript.srt", b"0123456789", "application/x-subrip")
    link = store.presign_get("transcripts/1/transcript.srt", "talk.srt", "application/x-subrip", 60)

    answer = requests.get(link, headers={"Origin": "https://app.example", "Range": "bytes=2-4"}, timeout=10)

    exposed = {name.strip().lower() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
    assert (answer.content, answer.headers["Content-Range"]) == (b"234", "bytes 2-4/10")
    assert {"content-disposition", "content-range", "etag"} <= exposed


def test_preparing_keeps_the_rules_of_others(store: ObjectStore, settings: StorageSettings) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key,
        region_name="us-east-1",
    )
    bucket = settings.s3_bucket
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [*rules, theirs]})  # type: ignore[list-item]

    store.prepare()
    store.prepare()

    kept = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]}
    broken = [f"bucketscribe-broken-uploads-{prefix}" for prefix in ("models", "sources")]
    assert sorted(kept) == [*broken, "bucketscribe-chunks", "theirs"]
    for name in broken:
        assert kept[name]["Filter"]["Prefix"] == f"{name.rpartition('-')[2]}/"
        # A day more than an upload may take.
        assert kept[name]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 2}
    assert kept["bucketscribe-chunks"]["Expiration"]["Days"] == 7
    assert len(s3.get_bucket_cors(Bucket=bucket)["CORSRules"]) == 1


def test_many_processes_may_prepare_a_new_bucket_at_once(settings: StorageSettings) -> None:
    new = msgspec.structs.replace(settings, s3_bucket=f"weed-{secrets.token_hex(4)}")
    stores = [ObjectStore(new) for _ in range(4)]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ObjectStore.prepare, stores))

    stores[0].check()


def test_an_upload_that_is_gone_cannot_be_completed(store: ObjectStore) -> None:
    upload_id = store.start_upload("gone")
    part = store.upload_part("gone", upload_id, 1, b"x")
    store.abort_upload("gone", upload_id)

    with pytest.raises(UploadMissing):
        store.complete_upload("gone", upload_id, [part])
    with pytest.raises(UploadMissing):
        store.upload_part("gone", upload_id, 1, b"x")


def test_checksums_on_every_request_work_too(settings: StorageSettings) -> None:
    store = ObjectStore(msgspec.structs.replace(settings, s3_checksums="when_supported"))
    content = secrets.token_bytes(PART + 3)

    upload_id = store.start_upload("summed")
    parts: list[Part] = [
        store.upload_part("summed", upload_id, 1, content[:PART]),
        store.upload_part("summed", upload_id, 2, content[PART:]),
    ]
    store.complete_upload("summed", upload_id, parts)
    link = store.presign_put("linked", 3, None, 60)

    assert store.get("summed") == content
    assert requests.put(link.url, data=b"abc", headers=link.headers, timeout=120).status_code == 200


def test_a_killed_store_is_unavailable_and_comes_back_with_everything(
    own_server: StoreServer, own_store: ObjectStore
) -> None:
    objects = {f"kept/{n:02d}": secrets.token_bytes(1000 * n + 1) for n in range(20)}
    for key, content in objects.items():
        own_store.put(key, content, "audio/wav")
    upload_id = own_store.start_upload("long")
    first = own_store.upload_part("long", upload_id, 1, b"a" * PART)

    own_server.running.kill()

    for call in (own_store.check, lambda: own_store.get("kept/01"), lambda: own_store.put("b", b"", "text/plain")):
        with pytest.raises(StoreUnavailable):
            call()

    own_server.running.start()

    own_store.check()
    assert {info.key: own_store.get(info.key) for info in own_store.list("kept/")} == objects
    own_store.complete_upload("long", upload_id, [first, own_store.upload_part("long", upload_id, 2, b"b")])
    assert own_store.get("long") == b"a" * PART + b"b"


def test_a_frozen_store_fails_its_health_check_in_seconds(own_server: StoreServer, own_store: ObjectStore) -> None:
    own_server.running.pause()
    started = time.monotonic()

    with pytest.raises(StoreUnavailable):
        own_store.check()

    assert time.monotonic() - started < 20
    own_server.running.resume()
    own_store.check()


class Cutter:
    """A proxy that breaks every connection after so many bytes of answers, as a bad network does."""

    def __init__(self, url: str, limit: int) -> None:
        self._target = url.removeprefix("http://").partition(":")
        self._limit = limit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.cuts = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed: the test is over
            server = socket.create_connection((self._target[0], int(self._target[2])))
            threading.Thread(target=self._copy, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, self._limit), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        copied = 0
        try:
            while (limit is None or copied < limit) and (block := source.recv(16384)):
                target.sendall(block)
                copied += len(block)
            if limit is not None and copied >= limit:
                self.cuts += 1
                source.shutdown(socket.SHUT_RDWR)
                target.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the other direction was faster to close


@pytest.fixture
def cutter(settings: StorageSettings) -> Iterator[Cutter]:
    cutter = Cutter(settings.s3_endpoint_url, 300_000)
    yield cutter
    cutter.close()


def test_a_body_that_breaks_is_read_on_where_it_broke(
    store: ObjectStore, settings: StorageSettings, cutter: Cutter
) -> None:
    content = secrets.token_bytes(5_000_000)
    store.put("broken", content, "audio/wav")

    through = ObjectStore(msgspec.structs.replace(settings, s3_endpoint_url=cutter.url))

    assert through.get("broken") == content
    assert cutter.cuts > 10


def test_a_reader_outlives_a_restart_of_the_store(own_server: StoreServer, own_store: ObjectStore) -> None:
    content = secrets.token_bytes(6_000_000)
    own_store.put("long", content, "audio/wav")
    reader = own_store.open("long")
    begun = reader.read(1_000_000)

    own_server.running.kill()
    with ThreadPoolExecutor(1) as thread:
        rest = thread.submit(reader.readall)
        own_server.running.start()

        assert begun + rest.result() == content


def test_a_reader_gives_up_on_a_store_that_stays_away(own_server: StoreServer, own_store: ObjectStore) -> None:
    own_store.put("long", bytes(1_000_000), "audio/wav")
    reader = own_store.open("long")
    reader.read(10)

    own_server.running.kill()

    with pytest.raises(StoreUnavailable):
        reader.readall()
    assert reader.tell() > 0


def test_an_object_removed_while_it_is_read_is_named(store: ObjectStore) -> None:
    store.put("removed", bytes(1_000_000), "audio/wav")
    reader = store.open("removed")
    reader.read(10)

    store.delete("removed")

    with pytest.raises(ObjectMissing):
        reader.readall()
