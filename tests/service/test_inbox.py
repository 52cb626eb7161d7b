"""The inbox: each object that is put there becomes one job, whatever dies, repeats itself or comes at once.

Objects are put with the minio client, as people's own tools would do it.
"""

import io
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest
import redis
from minio import Minio

from actors.broker import make_broker, queue_depths
from actors.recovery import Recovery
from service.auth import owner_of
from service.backend import Backend
from service.inbox import Inbox, is_recording, read_prefix
from service.settings import ServiceSettings
from storage.errors import StoreRefused
from storage.inbox import InboxIndex, Version, sweep_marks
from storage.job import Job
from storage.keys import ingested_key, job_key
from storage.object_store import ObjectInfo, ObjectStore
from storage.redis_client import JOBS_DATABASE
from storage.removal import remove_job
from storage.settings import SettingsError, StorageSettings
from tests.conftest import Sample
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.stack import Parts, RedisServer
from tests.storage.test_job_store import wait_until


class Dropped:
    """A bucket and a Redis of a test's own, a minio client, and an inbox in this process whose looks the test makes."""

    def __init__(self, settings: StorageSettings, **service: Any) -> None:
        self.settings = settings
        self.bucket = settings.s3_bucket
        self.client = minio(settings)
        self.index = InboxIndex.connect(settings)
        self.backend = Backend.connect(ServiceSettings(inbox_seconds=1, **service), settings)
        self.inbox = Inbox(self.backend, self.index)
        self.redis = redis.Redis.from_url(settings.redis_url, db=JOBS_DATABASE)

    def put(self, key: str, content: bytes = b"sound", metadata: dict[str, str] | None = None) -> None:
        self.client.put_object(self.bucket, key, io.BytesIO(content), len(content), metadata=dict(metadata or {}))

    def jobs(self) -> dict[str, Job]:
        """By key; of an object that was replaced, the newest."""
        page = self.backend.jobs.list_jobs("", limit=200)
        return {job.source.key: job for job in reversed(page.jobs)}

    def look_until(self, condition: Callable[[], bool]) -> None:
        def looked() -> bool:
            self.redis.delete("bs:due:inbox")
            self.inbox.look(threading.Event())
            return condition()

        wait_until(looked, 20)

    def settle(self) -> None:
        """Look until an object that is put now has become a job: whatever lay there before had its chance."""
        last = f"inbox/zzz-{secrets.token_hex(4)}.wav"
        self.put(last, b"last")
        self.look_until(lambda: last in self.jobs())
        self.backend.objects.delete(last)
        self.backend.jobs.delete(self.jobs()[last].job_id)

    def messages(self) -> int:
        return sum(queue_depths(make_broker(self.settings)).values())

    def forget(self) -> None:
        """The index is lost, as with Redis; the jobs are not."""
        self.redis.delete("bs:inbox:known", "bs:inbox:new", "bs:inbox:cursor", "bs:due:inbox marks")


def minio(settings: StorageSettings) -> Minio:
    return Minio(
        settings.s3_endpoint_url.removeprefix("http://"),
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        secure=False,
    )


@pytest.fixture(scope="module")
def own_redis(parts: Parts) -> Iterator[RedisServer]:
    server = parts.start_redis()
    yield server
    server.running.kill()


@pytest.fixture
def own_settings(store_settings: StorageSettings, own_redis: RedisServer) -> StorageSettings:
    """A bucket of the test's own, and a Redis that is empty."""
    redis.Redis.from_url(own_redis.url).flushall()
    settings = msgspec.structs.replace(
        store_settings, s3_bucket=f"test-{secrets.token_hex(4)}", redis_url=own_redis.url
    )
    ObjectStore(settings).prepare()
    return settings


@pytest.fixture
def dropped(own_settings: StorageSettings) -> Dropped:
    return Dropped(own_settings)


@pytest.fixture(scope="module")
def quick_api(start_api: StartApi, api: Api) -> Api:
    """Another server beside `api`, on the same bucket, whose worker it shares; it looks every second."""
    return start_api(api.settings, INBOX_SECONDS="1")


def job_of(api: Api, filename: str) -> dict[str, Any] | None:
    jobs = api.client.get("/api/v1/jobs?limit=200").json()["jobs"]
    return next((job for job in jobs if job["source"]["filename"] == filename), None)


def test_a_recording_that_is_dropped_is_transcribed_and_its_results_lie_beside_it(
    quick_api: Api, speech: dict[str, list[Sample]]
) -> None:
    client, bucket = minio(quick_api.settings), quick_api.settings.s3_bucket
    name = 'Käse + 100 % "Brot".wav'
    client.fput_object(bucket, f"inbox/{name}", str(speech["en"][0].path), metadata={"language": "en"})
    keys = {f'inbox/Käse + 100 % "Brot".en.{kind}' for kind in ("json", "srt", "vtt", "txt")}

    wait_until(lambda: keys <= {item.object_name for item in client.list_objects(bucket, "inbox/")}, 60)
    wait_until(lambda: (job_of(quick_api, name) or {}).get("status") == "completed")

    job = job_of(quick_api, name)
    assert job is not None
    assert job["options"]["language"] == "en"
    files = quick_api.client.get(f"/api/v1/status/{job['job_id']}").json()["files"]
    for kind in ("srt", "vtt", "txt"):
        beside = client.get_object(bucket, f'inbox/Käse + 100 % "Brot".en.{kind}').read()
        assert beside == httpx.get(files[kind]["url"]).content != b""


def test_several_servers_and_notifications_make_one_job_of_each_object(start_api: StartApi, dropped: Dropped) -> None:
    apis = [start_api(dropped.settings, INBOX_SECONDS="1") for _ in range(2)]
    keys = [f"inbox/{number}.wav" for number in range(12)]

    def put_and_tell(key: str) -> set[int]:
        dropped.put(key)
        return {
            api.client.post("/api/v1/events/s3", json=record(dropped.bucket, key)).status_code
            for api in (*apis, *apis)
        }  # fmt: skip

    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(put_and_tell, keys))
    dropped.put("inbox/last.wav")
    wait_until(lambda: "inbox/last.wav" in dropped.jobs(), 20)
    marks = {item.key for item in dropped.backend.objects.list("ingested/")}

    jobs = dropped.backend.jobs.list_jobs("", limit=200)
    for api in apis:
        api.running.kill()
    assert set.union(*told) == {200}
    assert sorted(job.source.key for job in jobs.jobs) == sorted([*keys, "inbox/last.wav"])
    assert dropped.messages() == len(keys) + 1
    assert marks >= {ingested_key(job.job_id) for job in jobs.jobs if job.source.key != "inbox/last.wav"}


def test_a_server_that_dies_before_the_mark_is_followed_by_one_that_makes_no_second_job(dropped: Dropped) -> None:
    dropped.put("inbox/talk.wav")
    dropped.look_until(lambda: "inbox/talk.wav" in dropped.jobs())
    job = dropped.jobs()["inbox/talk.wav"]
    # What a kill -9 between the message and the mark leaves.
    dropped.backend.objects.delete(ingested_key(job.job_id))
    dropped.forget()

    dropped.settle()

    assert dropped.jobs() == {"inbox/talk.wav": job}
    assert dropped.backend.objects.head(ingested_key(job.job_id)).size > 0


def test_a_server_that_dies_before_the_record_is_followed_by_one_that_makes_it(dropped: Dropped) -> None:
    dropped.put("inbox/talk.wav")
    job_id = dropped.inbox.take("inbox/talk.wav")
    assert job_id is not None
    # What a kill -9 between the note and the record leaves.
    dropped.backend.objects.delete(ingested_key(job_id))
    dropped.redis.flushdb()
    assert dropped.backend.objects.head(job_key(job_id)).size > 0

    dropped.look_until(lambda: "inbox/talk.wav" in dropped.jobs())

    assert dropped.jobs()["inbox/talk.wav"].job_id == job_id


def test_after_a_lost_redis_the_job_is_recovered_and_not_made_again(dropped: Dropped) -> None:
    dropped.put("inbox/talk.wav", metadata={"language": "de"})
    dropped.look_until(lambda: "inbox/talk.wav" in dropped.jobs())
    job = dropped.jobs()["inbox/talk.wav"]
    dropped.redis.flushall()

    dropped.settle()
    before = dropped.jobs()
    settings, objects = dropped.settings, dropped.backend.objects
    outcomes = list(Recovery(dropped.backend.jobs, objects, make_broker(settings), settings).run())
    dropped.settle()

    assert before == {}
    assert [outcome.what for outcome in outcomes if outcome.job_id == job.job_id] == ["recovered"]
    assert dropped.jobs() == {"inbox/talk.wav": job}


@pytest.mark.parametrize("marked", [True, False])
def test_a_job_that_is_removed_leaves_its_source_and_does_not_come_again(dropped: Dropped, marked: bool) -> None:
    dropped.put("inbox/talk.wav")
    dropped.look_until(lambda: "inbox/talk.wav" in dropped.jobs())
    job = dropped.jobs()["inbox/talk.wav"]
    if not marked:
        dropped.backend.objects.delete(ingested_key(job.job_id))

    # What a client's DELETE does, and the janitor's when the job has been kept long enough.
    remove_job(job, dropped.backend.jobs, dropped.backend.objects)
    dropped.forget()
    dropped.settle()

    assert dropped.jobs() == {}
    assert dropped.backend.objects.get("inbox/talk.wav") == b"sound"


def test_another_recording_under_the_same_key_is_another_job(dropped: Dropped) -> None:
    dropped.put("inbox/talk.wav")
    dropped.look_until(lambda: "inbox/talk.wav" in dropped.jobs())
    first = dropped.jobs()["inbox/talk.wav"]

    dropped.put("inbox/talk.wav", b"another sound")
    dropped.look_until(lambda: dropped.backend.jobs.list_jobs("").total == 2)

    second = dropped.inbox.take("inbox/talk.wav")
    assert second not in (None, first.job_id)
    assert dropped.backend.jobs.get(second or "").source.size == len(b"another sound")


def test_a_multipart_upload_is_not_taken_before_it_is_whole(dropped: Dropped) -> None:
    objects = dropped.backend.objects
    upload_id = objects.start_upload("inbox/long.wav")
    part = objects.upload_part("inbox/long.wav", upload_id, 1, b"sound")

    dropped.settle()
    before = dropped.jobs()
    objects.complete_upload("inbox/long.wav", upload_id, [part])
    dropped.look_until(lambda: "inbox/long.wav" in dropped.jobs())

    assert before == {}


def test_an_object_is_taken_at_the_second_look_and_only_as_it_is_then(dropped: Dropped) -> None:
    dropped.put("inbox/talk.wav", b"half")

    dropped.look_until(lambda: dropped.index.waiting() == 1)
    at_first = dropped.jobs()
    dropped.put("inbox/talk.wav", b"the whole of it")
    dropped.look_until(lambda: "inbox/talk.wav" in dropped.jobs())

    assert at_first == {}
    assert dropped.backend.jobs.list_jobs("").total == 1
    assert dropped.jobs()["inbox/talk.wav"].source.size == len(b"the whole of it")


def test_an_object_that_the_store_refuses_does_not_keep_others_from_their_turn(dropped: Dropped) -> None:
    # What no list tells: S3 knows no empty key.
    dropped.index.remember([Version("0" * 22, "")])
    dropped.put("inbox/talk.wav")

    dropped.look_until(lambda: "inbox/talk.wav" in dropped.jobs())

    assert dropped.index.waiting() == 0


def test_what_is_no_recording_is_left_alone(dropped: Dropped) -> None:
    names = ["talk.en.srt", "talk.mp3.json", "a.VTT", "notes.txt", "t.tsv", ".hidden.wav", ".trash/a.wav", "b.wav.part"]
    for name in names:
        dropped.put(f"inbox/{name}")
    dropped.put("inbox/empty.wav", b"")
    dropped.put("inbox/folder/", b"")
    dropped.put("elsewhere/talk.wav")

    dropped.settle()

    assert dropped.jobs() == {}
    for key in ("inbox/empty.wav", "inbox/none.wav", "elsewhere/talk.wav"):
        assert dropped.inbox.take(key) is None


def test_options_come_from_metadata_and_a_sidecar_goes_over_them(dropped: Dropped) -> None:
    dropped.put("inbox/talk.mp3.json", b'\xef\xbb\xbf{"language": "fr", "temperature": 0.4}')
    # A client's own metadata are none of our business.
    metadata = {"language": "DE", "timestamp-granularity": "word", "vad_filter": "false", "mtime": "1"}
    dropped.put("inbox/talk.mp3", metadata={**metadata, "prompt": "=?UTF-8?Q?K=C3=A4se?="})

    job_id = dropped.inbox.take("inbox/talk.mp3")

    options = dropped.backend.jobs.get(job_id or "").options
    assert (options.language, options.temperature, options.timestamp_granularity) == ("fr", 0.4, "word")
    assert (options.vad_filter, options.prompt, options.model) == (False, "Käse", "base")


@pytest.mark.parametrize(
    ("sidecar", "metadata", "sentence"),
    [
        (b"{", {}, "talk.mp3.json: it is not JSON"),
        (b"[]", {}, "talk.mp3.json: "),
        (b'{"a":' + b"[" * 60_000, {}, "talk.mp3.json: it is not JSON"),
        (b'{"langauge": "de"}', {}, "talk.mp3.json: langauge: "),
        (b'{"language": "xx"}', {"language": "de"}, "talk.mp3.json: language: 'xx' is not a known language code"),
        (b'{"prompt": "' + b"x" * 65536 + b'"}', {}, "talk.mp3.json: it has 65550 bytes, the limit is 65536"),
        (None, {"response-format": "docx"}, "x-amz-meta-*: response_format: "),
    ],
)
def test_options_that_cannot_be_read_fail_the_job_with_a_sentence_that_says_where(
    dropped: Dropped, sidecar: bytes | None, metadata: dict[str, str], sentence: str
) -> None:
    if sidecar is not None:
        dropped.put("inbox/talk.mp3.json", sidecar)
    dropped.put("inbox/talk.mp3", metadata=metadata)

    job_id = dropped.inbox.take("inbox/talk.mp3")
    again = dropped.inbox.take("inbox/talk.mp3")

    job = dropped.backend.jobs.get(job_id or "")
    assert again == job_id
    assert (job.status, job.error_code, dropped.messages()) == ("failed", "invalid_parameter", 0)
    assert (job.error or "").startswith(sentence)
    assert job.expires_at is not None
    assert dropped.backend.objects.get("inbox/talk.mp3.error.txt").decode() == f"{job.error}\n"


@pytest.mark.parametrize(
    "prompt", ["=?undefined?q?x?=", "=?unicode_escape?q?=5Cud800?=", "=?utf-8?b?x?=", "=?none?q?x?="]
)
def test_metadata_whose_coding_cannot_be_read_are_taken_as_they_are(dropped: Dropped, prompt: str) -> None:
    dropped.put("inbox/talk.mp3", metadata={"prompt": prompt})

    job_id = dropped.inbox.take("inbox/talk.mp3")

    assert dropped.backend.jobs.get(job_id or "").options.prompt == prompt


@pytest.mark.parametrize("sidecar", [False, True])
def test_a_webhook_that_leads_to_a_private_address_fails_the_job(dropped: Dropped, sidecar: bool) -> None:
    url = "http://127.0.0.1/hook"
    if sidecar:
        dropped.put("inbox/talk.mp3.json", f'{{"webhook_url": "{url}"}}'.encode())
    dropped.put("inbox/talk.mp3", metadata={} if sidecar else {"webhook-url": url})

    job_id = dropped.inbox.take("inbox/talk.mp3")

    job = dropped.backend.jobs.get(job_id or "")
    assert (job.status, job.error_code, job.options.webhook_url) == ("failed", "url_not_allowed", None)
    assert (job.error or "").startswith(("x-amz-meta-*", "talk.mp3.json")[sidecar] + ": webhook_url: ")


class Withholding(ObjectStore):
    """A store that refuses names that it cannot have, and whose rules keep an object from the service."""

    def head(self, key: str) -> ObjectInfo:
        if key == "inbox/secret.wav" or len(key.rpartition("/")[2].encode()) > 255:
            raise StoreRefused(f"head {key}: the store answered 403")
        return super().head(key)


def withheld(dropped: Dropped) -> Inbox:
    return Inbox(msgspec.structs.replace(dropped.backend, objects=Withholding(dropped.settings)), dropped.index)


@pytest.mark.parametrize("length", [250, 251, 255])
def test_a_name_that_leaves_no_room_for_a_sidecars_is_taken(dropped: Dropped, length: int) -> None:
    key = f"inbox/{'x' * (length - 4)}.mp3"
    dropped.put(key)

    job_id = withheld(dropped).take(key)

    assert dropped.backend.jobs.get(job_id or "").status == "pending"


def test_an_object_that_is_refused_again_and_again_is_a_failed_job(dropped: Dropped) -> None:
    dropped.inbox = withheld(dropped)
    dropped.put("inbox/secret.wav")

    dropped.look_until(lambda: "inbox/secret.wav" in dropped.jobs())
    job = dropped.jobs()["inbox/secret.wav"]
    dropped.settle()

    assert (job.status, job.error_code, dropped.messages()) == ("failed", "storage_refused", 1)
    assert dropped.jobs() == {"inbox/secret.wav": job}
    assert (dropped.index.known([job.job_id]), dropped.index.waiting()) == ({job.job_id}, 0)


def test_a_problem_that_comes_up_after_the_job_was_made_does_not_fail_it(dropped: Dropped) -> None:
    dropped.put("inbox/talk.wav")
    job_id = dropped.inbox.take("inbox/talk.wav") or ""
    # What a kill -9 before the mark leaves; then somebody puts a sidecar.
    dropped.backend.objects.delete(ingested_key(job_id))
    dropped.forget()
    dropped.put("inbox/talk.wav.json", b"{")

    again = dropped.inbox.take("inbox/talk.wav")

    assert (again, dropped.backend.jobs.get(job_id).status) == (job_id, "pending")


def test_the_result_of_another_recording_is_no_sidecar(dropped: Dropped) -> None:
    dropped.put("inbox/talk.en.json", b'{"text": "..."}', {"bucketscribe-source": "0"})
    dropped.put("inbox/talk.en")

    job_id = dropped.inbox.take("inbox/talk.en")

    assert dropped.backend.jobs.get(job_id or "").status == "pending"


def test_a_recording_above_the_limit_fails_with_both_numbers(own_settings: StorageSettings) -> None:
    dropped = Dropped(msgspec.structs.replace(own_settings, max_file_size=4))
    dropped.put("inbox/talk.mp3", b"sound")

    job_id = dropped.inbox.take("inbox/talk.mp3")

    job = dropped.backend.jobs.get(job_id or "")
    assert (job.error_code, job.error) == ("file_too_large", "the recording has 5 bytes, the limit is 4")


def test_jobs_of_the_inbox_are_the_first_keys(own_settings: StorageSettings) -> None:
    dropped = Dropped(own_settings, api_keys="alice,bob")
    dropped.put("inbox/talk.mp3")

    job_id = dropped.inbox.take("inbox/talk.mp3")

    assert dropped.backend.jobs.get(job_id or "").owner == owner_of(b"alice")


def test_a_large_inbox_is_gone_through_in_several_looks(dropped: Dropped) -> None:
    dropped.inbox = Inbox(dropped.backend, dropped.index, listed=3)
    keys = {f"inbox/{number}.wav" for number in range(10)}
    for key in keys:
        dropped.put(key)

    dropped.look_until(lambda: dropped.jobs().keys() == keys)
    dropped.put("inbox/0-new.wav")
    dropped.look_until(lambda: "inbox/0-new.wav" in dropped.jobs())

    assert dropped.backend.jobs.list_jobs("").total == len(keys) + 1


def test_marks_of_objects_that_are_gone_are_swept_and_others_stay(
    dropped: Dropped,
) -> None:
    dropped.put("inbox/stays.wav")
    dropped.put("inbox/goes.wav")
    stays, goes = (dropped.inbox.take(f"inbox/{name}.wav") for name in ("stays", "goes"))
    dropped.client.remove_object(dropped.bucket, "inbox/goes.wav")
    dropped.forget()

    stopping, stopped = threading.Event(), threading.Event()
    stopped.set()
    young = sweep_marks(dropped.index, dropped.backend.objects, stopping)
    at_the_end = sweep_marks(dropped.index, dropped.backend.objects, stopped, older_than_seconds=0)
    removed = sweep_marks(dropped.index, dropped.backend.objects, stopping, older_than_seconds=0)

    assert (young, at_the_end, removed) == (0, 0, 1)
    assert [item.key for item in dropped.backend.objects.list("ingested/")] == [ingested_key(stays or "")]
    assert stays != goes


@pytest.mark.parametrize("prefix", ["/", "sources", "transcripts/x/"])
def test_a_prefix_of_the_services_own_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="INBOX_PREFIX="):
        read_prefix(prefix)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("in/talk.mp3", True),
        ("in/a/b/ÄÖ ü.M4A", True),
        ("in/talk", True),
        ("in/../x.mp3", False),
        ("in//x.mp3", False),
        ("in/line\nend.mp3", False),
        ("in/", False),
        ("in/" + "ä" * 600, False),
        ("other/talk.mp3", False),
    ],
)
def test_a_key_that_stores_read_in_different_ways_is_no_recording(key: str, expected: bool) -> None:
    assert is_recording(key, 1, "in/") is expected


def record(bucket: str, key: str) -> dict[str, Any]:
    return {
        "Records": [
            {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": key}}},
        ]
    }
