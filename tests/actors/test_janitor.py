"""The janitor over a real store and Redis: it mends what dying processes leave and touches nothing else."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from actors import messages
from actors.broker import CHUNK_QUEUES, QUEUES, make_broker, queue_depths, queued
from actors.janitor import Janitor
from storage.chunk_store import Chunk, ChunkStore
from storage.errors import JobMissing
from storage.job import JobStatus, Options, Upload, new_job_id
from storage.job_store import JobStore
from storage.keys import chunk_key, job_key, result_key, source_key
from storage.notes import note_job
from storage.object_store import ObjectStore
from storage.outbox import Outbox
from storage.settings import StorageSettings
from tests.stack import Parts, RedisServer
from tests.storage.test_job_store import a_job, wait_until

DAY = 86400


class House:
    def __init__(self, settings: StorageSettings) -> None:
        self.settings = settings
        self.jobs = JobStore.connect(settings)
        self.objects = ObjectStore(settings)
        self.objects.prepare()
        self.broker = make_broker(settings)
        self.chunks = ChunkStore.connect(settings, self.jobs)
        self.janitor = Janitor(self.jobs, self.chunks, self.objects, self.broker, settings, 2)

    def put(self, *keys: str) -> None:
        for key in keys:
            self.objects.put(key, b"x", "application/octet-stream")

    def keys(self, job_id: str) -> set[str]:
        return {
            item.key.rpartition("/")[2]
            for prefix in ("sources/", "chunks/", "transcripts/")
            for item in self.objects.list(f"{prefix}{job_id}/")
        }


@pytest.fixture
def house(fresh_settings: StorageSettings) -> House:
    return House(fresh_settings)


def test_a_job_whose_lease_ran_out_waits_again_with_a_message(house: House) -> None:
    job, alive = a_job(), a_job()
    for each in (job, alive):
        house.jobs.create(each)
    house.jobs.claim(job.job_id, "dead", lease_seconds=0.05, max_attempts=3)
    house.jobs.claim(alive.job_id, "alive", lease_seconds=60, max_attempts=3)
    wait_until(lambda: house.jobs.expired_leases() == [job.job_id])

    house.janitor.hand_on_expired_leases()

    assert house.jobs.get(job.job_id).status == "pending"
    assert house.jobs.get(alive.job_id).status == "processing"
    assert queued(house.broker) == {(job.job_id,)}


def test_what_a_dead_worker_had_goes_before_all_that_waits(house: House) -> None:
    job = a_job(options=Options(model="base", priority="low"))
    house.jobs.create(job)
    house.jobs.claim(job.job_id, "dead", lease_seconds=0.05, max_attempts=3)
    wait_until(lambda: house.jobs.expired_leases() == [job.job_id])

    house.janitor.hand_on_expired_leases()

    assert {name: depth for name, depth in queue_depths(house.broker).items() if depth} == {QUEUES["high"]: 1}


def test_only_an_old_pending_job_without_a_message_gets_one(house: House) -> None:
    lost, has_message, new = a_job(created_at=time.time() - 100), a_job(created_at=time.time() - 100), a_job()
    for job in (lost, has_message, new):
        house.jobs.create(job)
    messages.send(house.broker, has_message.job_id, "normal")

    house.janitor.send_lost_messages()
    house.janitor.send_lost_messages()

    assert queued(house.broker) == {(lost.job_id,), (has_message.job_id,)}
    assert queue_depths(house.broker)[QUEUES["normal"]] == 2


def test_an_upload_never_started_and_a_job_kept_long_enough_are_removed_whole(house: House) -> None:
    waiting = a_job(status=JobStatus.AWAITING_UPLOAD, expires_at=time.time() - 1)
    upload_id = house.objects.start_upload(waiting.source.key, "audio/wav")
    waiting = msgspec.structs.replace(waiting, upload=Upload(upload_id=upload_id, part_size=5))
    old = a_job(status=JobStatus.COMPLETED, expires_at=time.time() - 1)
    kept = a_job(status=JobStatus.COMPLETED, expires_at=time.time() + 60)
    for job in (waiting, old, kept):
        house.jobs.create(job)
        house.put(source_key(job.job_id), job_key(job.job_id), result_key(job.job_id, "srt"))

    house.janitor.remove_expired_jobs()

    for job in (waiting, old):
        with pytest.raises(JobMissing):
            house.jobs.get(job.job_id)
        assert house.keys(job.job_id) == set()
    assert house.keys(kept.job_id) == {"media", "job.json", "transcript.srt"}
    assert list(house.objects.uploads()) == []


def test_an_upload_never_started_fails_where_somebody_waits_for_its_end(house: House) -> None:
    waiting = a_job(
        status=JobStatus.AWAITING_UPLOAD,
        expires_at=time.time() - 1,
        options=Options(model="base", webhook_url="https://example.com/"),
    )
    upload_id = house.objects.start_upload(waiting.source.key, "audio/wav")
    waiting = msgspec.structs.replace(waiting, upload=Upload(upload_id=upload_id, part_size=5))
    house.jobs.create(waiting)
    house.put(job_key(waiting.job_id))

    house.janitor.remove_expired_jobs()

    failed = house.jobs.get(waiting.job_id)
    assert (failed.status, failed.error_code) == ("failed", "upload_expired")
    assert failed.expires_at == pytest.approx(time.time() + 7 * DAY, abs=60)
    assert Outbox.connect(house.settings).due("t") == [waiting.job_id]
    assert house.keys(waiting.job_id) == {"job.json", "end.json"}
    assert list(house.objects.uploads()) == []


def test_a_recording_in_the_inbox_outlives_a_job_that_was_never_started(house: House) -> None:
    job = a_job(
        status=JobStatus.AWAITING_UPLOAD,
        expires_at=time.time() - 1,
        options=Options(model="base", webhook_url="https://example.com/"),
    )
    job = msgspec.structs.replace(
        job, source=msgspec.structs.replace(job.source, type="inbox", key=f"inbox/{job.job_id}.mp3")
    )
    house.jobs.create(job)
    house.put(job.source.key)

    house.janitor.remove_expired_jobs()

    assert house.jobs.get(job.job_id).status == "failed"
    assert house.objects.head(job.source.key).size > 0


class Overtaken(JobStore):
    """Clients that start one expired upload and delete another while the janitor has both on its list."""

    def expired(self, limit: int = 100) -> list[str]:
        listed = super().expired(limit)
        started, deleted = sorted(listed)
        self.start(started)
        self.delete(deleted)
        return listed


def test_an_upload_that_is_started_while_expired_ones_are_removed_stays(house: House) -> None:
    started, deleted = (
        a_job(job_id=new_job_id(made), status=JobStatus.AWAITING_UPLOAD, expires_at=time.time() - 1) for made in (1, 2)
    )
    for job in (started, deleted):
        house.jobs.create(job)
    house.put(source_key(started.job_id))

    overtaken = Overtaken.connect(house.settings)
    Janitor(overtaken, house.chunks, house.objects, house.broker, house.settings, 2).remove_expired_jobs()

    assert house.jobs.get(started.job_id).status == "pending"
    assert house.keys(started.job_id) == {"media"}


def test_what_a_frozen_worker_writes_for_a_deleted_job_is_swept(house: House) -> None:
    job = a_job()
    house.jobs.create(job)
    house.jobs.delete(job.job_id)
    house.put(result_key(job.job_id, "json"))

    house.janitor.sweep_deleted()
    soon = house.keys(job.job_id)
    house.jobs._redis.zadd("bs:deleted", {job.job_id: time.time() - 700})
    house.janitor.sweep_deleted()

    assert soon == {"transcript.json"}
    assert house.keys(job.job_id) == set()
    assert house.jobs.deleted(0) == []


def test_only_stale_multipart_uploads_under_our_prefixes_are_aborted(house: House) -> None:
    house.objects.start_upload("sources/aaa/media", "audio/wav")
    house.objects.start_upload("somebody/elses", "audio/wav")
    patient = Janitor(house.jobs, house.chunks, house.objects, house.broker, house.settings, 2)
    impatient_settings = msgspec.structs.replace(house.settings, upload_expires_seconds=-5)
    impatient = Janitor(house.jobs, house.chunks, house.objects, house.broker, impatient_settings, 2)

    patient.abort_stale_uploads()
    before = {upload.key for upload in house.objects.uploads()}
    impatient.abort_stale_uploads()

    assert before == {"sources/aaa/media", "somebody/elses"}
    assert {upload.key for upload in house.objects.uploads()} == {"somebody/elses"}


def test_orphans_go_and_whatever_could_be_recovered_stays(house: House) -> None:
    now = time.time()
    never_accepted, recoverable, ancient = (
        new_job_id(now - 2 * DAY),
        new_job_id(now - 2 * DAY),
        new_job_id(now - 30 * DAY),
    )
    arriving = new_job_id(now)
    cancelled = a_job(status=JobStatus.CANCELLED)
    completed = a_job(status=JobStatus.COMPLETED)
    for job in (cancelled, completed):
        house.jobs.create(job)
        house.put(source_key(job.job_id), job_key(job.job_id), result_key(job.job_id, "json"))
        house.put(chunk_key(job.job_id, 0))
    # The second would be an id of last year by its first half.
    others = ("not-an-id", "019203040506-interviews")
    house.put(source_key(never_accepted), source_key(arriving), *(f"sources/{other}/media" for other in others))
    for job_id in (recoverable, ancient):
        house.put(source_key(job_id), job_key(job_id), result_key(job_id, "json"))

    house.janitor.sweep_orphans()

    assert house.keys(never_accepted) == set()
    assert house.keys(ancient) == set()
    assert house.keys(arriving) == {"media"}
    assert [house.keys(other) for other in others] == [{"media"}, {"media"}]
    assert house.keys(recoverable) == {"media", "job.json", "transcript.json"}
    assert house.keys(cancelled.job_id) == {"media", "job.json", "end.json"}
    assert house.keys(completed.job_id) == {"media", "job.json", "transcript.json"}


def test_a_job_of_the_inbox_that_can_be_recovered_stays_however_old_its_object_is(house: House) -> None:
    old = new_job_id(time.time() - 30 * DAY)
    job = a_job(job_id=old, created_at=time.time())
    note_job(job, house.objects)

    house.janitor.sweep_orphans()

    assert house.keys(old) == {"job.json"}


def test_one_janitor_mends_at_a_time_and_the_next_when_it_is_due(house: House) -> None:
    job = a_job()
    house.jobs.create(job)
    house.jobs.claim(job.job_id, "dead", lease_seconds=0.01, max_attempts=3)
    wait_until(lambda: house.jobs.expired_leases() == [job.job_id])

    house.jobs.due("leases", 0.3)
    house.janitor.mend()
    while_another_works = house.jobs.get(job.job_id).status

    def mended() -> bool:
        house.janitor.mend()
        return house.jobs.get(job.job_id).status == "pending"

    assert while_another_works == "processing"
    wait_until(mended)


@pytest.fixture
def redis_server(parts: Parts) -> Iterator[RedisServer]:
    server = parts.start_redis()
    yield server
    server.running.kill()


def test_an_outage_of_redis_is_no_sign_of_a_dead_worker(house: House, redis_server: RedisServer) -> None:
    jobs, janitor = another_house(house, redis_server, lease_seconds=30)
    job = a_job()
    jobs.create(job)
    jobs.claim(job.job_id, "alive", lease_seconds=0.01, max_attempts=3)
    # What waits for a slow disk is lost with the process.
    wait_until(lambda: jobs._redis.info("persistence")["aof_buffer_length"] == 0)

    redis_server.running.kill()
    janitor.mend()
    redis_server.running.start()
    janitor.mend()
    # One that has just been started and knows of no outage.
    another_house(house, redis_server, lease_seconds=30)[1].mend()

    assert jobs.get(job.job_id).status == "processing"


def test_a_redis_that_hung_is_no_sign_of_a_dead_worker(house: House, redis_server: RedisServer) -> None:
    jobs, janitor = another_house(house, redis_server, lease_seconds=1)
    job = a_job()
    jobs.create(job)
    wait_until(lambda: jobs.redis_up_seconds() > 1)
    jobs.claim(job.job_id, "alive", lease_seconds=0.01, max_attempts=3)
    redis_server.running.pause()

    with ThreadPoolExecutor() as pool:
        mending = pool.submit(janitor.mend)
        time.sleep(1.5)  # Longer than the lease; nothing else marks that.
        redis_server.running.resume()
        mending.result(120)
    right_after = jobs.get(job.job_id).status

    def handed_on() -> bool:
        janitor.mend()
        return jobs.get(job.job_id).status == "pending"

    assert right_after == "processing"
    wait_until(handed_on)


def another_house(house: House, redis_server: RedisServer, lease_seconds: float) -> tuple[JobStore, Janitor]:
    settings = msgspec.structs.replace(house.settings, redis_url=redis_server.url)
    jobs = JobStore.connect(settings)
    chunks = ChunkStore.connect(settings, jobs)
    return jobs, Janitor(jobs, chunks, house.objects, make_broker(settings), settings, lease_seconds)


def test_a_chunk_whose_worker_went_silent_and_a_job_nobody_advances_get_messages(house: House) -> None:
    job = a_job(created_at=time.time() - 100)
    house.jobs.create(job)
    cutting = house.jobs.claim(job.job_id, "w", lease_seconds=60, max_attempts=3)
    for number in range(3):
        house.chunks.announce(job.job_id, cutting.token, Chunk(number, number, number + 1.0, 1.0), parallel=2)
    dead = house.chunks.claim(job.job_id, 0, lease_seconds=0.05, max_attempts=3)
    house.chunks.claim(job.job_id, 1, lease_seconds=60, max_attempts=3)
    wait_until(lambda: house.jobs.expired_leases() == [f"{job.job_id}/{dead.chunk.number}"])

    house.janitor.hand_on_expired_leases()

    assert queued(house.broker) == {(job.job_id, 0)}
    assert house.jobs.get(job.job_id).status == "processing"


def test_a_long_job_that_lost_all_its_messages_goes_on(house: House) -> None:
    job = a_job()
    house.jobs.create(job)
    cutting = house.jobs.claim(job.job_id, "w", lease_seconds=60, max_attempts=3)
    for number in range(2):
        house.chunks.announce(job.job_id, cutting.token, Chunk(number, number, number + 1.0, 1.0), parallel=9)
    house.chunks.finish_cut(job.job_id, cutting.token, duration="2.0")
    house.chunks.finish(house.chunks.claim(job.job_id, 0, 60, 3), parallel=9)
    house.jobs._redis.zadd("bs:status:processing", {job.job_id: time.time() - 100})

    house.janitor.send_lost_messages()
    chunk_sent = queued(house.broker)
    make_broker(house.settings, queues=list(CHUNK_QUEUES.values())).flush_all()
    house.chunks.finish(house.chunks.claim(job.job_id, 1, 60, 3), parallel=9)
    house.janitor.send_lost_messages()

    assert chunk_sent == {(job.job_id, 1)}
    assert queued(house.broker) == {(job.job_id,)}
