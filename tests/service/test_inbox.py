"""The inbox: each object that is put there becomes one job, whatever dies, repeats itself or comes at once.

Objects are put with the minio client, as people's own tools would do it.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from actors.broker import make_broker
from actors.recovery import Recovery
from service.inbox import Inbox, is_recording, read_prefix
from storage.inbox import Version, sweep_marks
from storage.keys import ingested_key, job_key
from storage.removal import remove_job
from storage.settings import SettingsError
from tests.conftest import Sample
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.dropped import Dropped, minio
from tests.storage.test_job_store import wait_until


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

    wait_until(lambda: keys <= {item.object_name for item in client.list_objects(bucket, "inbox/")})
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
    wait_until(lambda: "inbox/last.wav" in dropped.jobs())
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
        ("in/Screen Recording 3.15\u202fPM.mov", True),
        ("in/../x.mp3", False),
        ("in/.DS_Store", False),
        ("in/talk.mp3.part", False),
        ("in/talk.en.SRT", False),
        ("in/folder/", False),
        ("in/", False),
        ("other/talk.mp3", False),
    ],
)
def test_hidden_files_results_and_folders_are_no_recordings(key: str, expected: bool) -> None:
    assert is_recording(key, 1, "in/") is expected


def record(bucket: str, key: str) -> dict[str, Any]:
    return {
        "Records": [
            {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": key}}},
        ]
    }
