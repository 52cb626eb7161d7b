"""JobStore on a real Valkey: atomic changes, leases, fencing, listing, and what happens when Redis goes away."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from storage.errors import JobConflict, JobFenced, JobMissing, QueueUnavailable
from storage.job import FOLLOWS, Job, JobStatus, Options, Source, Upload, created_at, new_job_id
from storage.job_store import JobStore, WorkerState
from storage.settings import StorageSettings
from tests.stack import Parts


@pytest.fixture(scope="module")
def settings(parts: Parts, store_settings: StorageSettings) -> Iterator[StorageSettings]:
    redis = parts.start_redis()
    yield msgspec.structs.replace(store_settings, redis_url=redis.url)
    redis.running.kill()


@pytest.fixture
def jobs(settings: StorageSettings) -> JobStore:
    return JobStore.connect(settings)


def a_job(owner: str = "alice", status: JobStatus = JobStatus.PENDING, **fields: object) -> Job:
    job_id = new_job_id()
    source = Source(type="form", key=f"sources/{job_id}/media", filename="talk é.mp3", size=1000)
    job = Job(
        job_id=job_id, owner=owner, status=status, source=source, options=Options(model="base"), created_at=time.time()
    )
    return msgspec.structs.replace(job, **fields)


def stored(jobs: JobStore, **fields: object) -> Job:
    job = a_job(**fields)  # type: ignore[arg-type]
    jobs.create(job)
    return job


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "the condition did not come true in time"
        time.sleep(0.01)


def test_a_job_comes_back_as_it_was_stored(jobs: JobStore) -> None:
    job = a_job(
        options=Options(model="base", language="de", prompt="Zeile 1\nZeile 2", temperature=0.4, max_line_width=42),
        upload=Upload(upload_id="u-1", part_size=5),
        status=JobStatus.AWAITING_UPLOAD,
        expires_at=time.time() + 60,
    )

    jobs.create(job)

    assert jobs.get(job.job_id) == job


def test_another_owners_job_is_missing(jobs: JobStore) -> None:
    job = stored(jobs, owner="alice")

    with pytest.raises(JobMissing):
        jobs.get(job.job_id, owner="bob")


def test_a_claimed_job_completes_and_its_record_says_so(jobs: JobStore) -> None:
    job = stored(jobs)
    claim = jobs.claim(job.job_id, "w1", lease_seconds=30, max_attempts=3)
    jobs.beat(job.job_id, claim.token, 40, lease_seconds=30)

    jobs.complete(job.job_id, claim.token, {"json": 10, "srt": 5}, 12.5)

    done = jobs.get(job.job_id)
    assert (done.status, done.progress, done.files, done.duration) == ("completed", 100, {"json": 10, "srt": 5}, 12.5)
    assert done.started_at is not None
    assert done.completed_at is not None
    assert done.expires_at == pytest.approx(done.completed_at + 7 * 86400, abs=1)


def test_progress_never_goes_back(jobs: JobStore) -> None:
    job = stored(jobs)
    claim = jobs.claim(job.job_id, "w1", lease_seconds=30, max_attempts=3)

    jobs.beat(job.job_id, claim.token, 40, lease_seconds=30)
    jobs.beat(job.job_id, claim.token, 20, lease_seconds=30)

    assert jobs.get(job.job_id).progress == 40


@pytest.mark.parametrize("final", ["completed", "failed", "cancelled"])
def test_a_final_job_changes_no_more(jobs: JobStore, final: str) -> None:
    job = stored(jobs)
    claim = jobs.claim(job.job_id, "w1", lease_seconds=30, max_attempts=3)
    finish: dict[str, Callable[[], object]] = {
        "completed": lambda: jobs.complete(job.job_id, claim.token, {}, 1.0),
        "failed": lambda: jobs.fail(job.job_id, "audio_unreadable", "no audio", claim.token),
        "cancelled": lambda: jobs.cancel(job.job_id),
    }
    finish[final]()

    for change in finish.values():
        with pytest.raises((JobConflict, JobFenced)):
            change()
    with pytest.raises(JobConflict):
        jobs.claim(job.job_id, "w2", lease_seconds=30, max_attempts=3)

    assert jobs.get(job.job_id).status == final


def test_no_status_follows_a_final_one() -> None:
    before = {status for allowed in FOLLOWS.values() for status in allowed}

    assert before == {JobStatus.AWAITING_UPLOAD, JobStatus.PENDING, JobStatus.PROCESSING}


def test_of_a_cancel_and_a_finish_at_once_exactly_one_wins(jobs: JobStore) -> None:
    claims = [jobs.claim(stored(jobs).job_id, "w1", lease_seconds=30, max_attempts=3) for _ in range(100)]
    barrier = threading.Barrier(2)
    won: dict[str, set[str]] = {"completed": set(), "cancelled": set()}

    def race(name: str, change: Callable[[str, str], object]) -> None:
        for claim in claims:
            barrier.wait()
            try:
                change(claim.job.job_id, claim.token)
                won[name].add(claim.job.job_id)
            except (JobConflict, JobFenced):
                pass

    threads = [
        threading.Thread(target=race, args=("completed", lambda i, token: jobs.complete(i, token, {"json": 1}, 1.0))),
        threading.Thread(target=race, args=("cancelled", lambda i, token: jobs.cancel(i))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won["completed"]) + len(won["cancelled"]) == 100
    assert not won["completed"] & won["cancelled"]
    for claim in claims:
        job = jobs.get(claim.job.job_id)
        assert claim.job.job_id in won[str(job.status)]
        assert bool(job.files) == (job.status == "completed")


def test_of_four_claims_at_once_exactly_one_wins(jobs: JobStore) -> None:
    ids = [stored(jobs).job_id for _ in range(50)]

    def claim(job_id: str) -> bool:
        try:
            jobs.claim(job_id, "w", lease_seconds=30, max_attempts=3)
        except JobConflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        winners = [sum(pool.map(claim, [job_id] * 4)) for job_id in ids]

    assert winners == [1] * 50


def test_a_frozen_worker_that_wakes_up_changes_nothing(jobs: JobStore) -> None:
    job = stored(jobs)
    frozen = jobs.claim(job.job_id, "w1", lease_seconds=0.05, max_attempts=3)
    wait_until(lambda: job.job_id in jobs.expired_leases())
    other = jobs.claim(job.job_id, "w2", lease_seconds=30, max_attempts=3)

    for write in (
        lambda: jobs.beat(job.job_id, frozen.token, 99, lease_seconds=30),
        lambda: jobs.complete(job.job_id, frozen.token, {"json": 666}, 1.0),
        lambda: jobs.fail(job.job_id, "internal_error", "late", frozen.token),
        lambda: jobs.release(job.job_id, frozen.token),
    ):
        with pytest.raises(JobFenced):
            write()
    jobs.complete(job.job_id, other.token, {"json": 1}, 1.0)

    assert jobs.get(job.job_id).files == {"json": 1}
    assert jobs.get(job.job_id).attempts == 2


def test_a_beat_keeps_a_lease_from_running_out(jobs: JobStore) -> None:
    job = stored(jobs)
    claim = jobs.claim(job.job_id, "w1", lease_seconds=0.3, max_attempts=3)

    jobs.beat(job.job_id, claim.token, 1, lease_seconds=30)

    with pytest.raises(JobConflict):
        jobs.claim(job.job_id, "w2", lease_seconds=30, max_attempts=3)
    assert not jobs.expire_lease(job.job_id)


def test_a_job_that_kills_its_workers_fails_after_its_attempts(jobs: JobStore) -> None:
    job = stored(jobs)
    for _ in range(3):
        jobs.claim(job.job_id, "w", lease_seconds=0.01, max_attempts=3)
        wait_until(lambda: jobs.expire_lease(job.job_id))

    with pytest.raises(JobConflict):
        jobs.claim(job.job_id, "w", lease_seconds=30, max_attempts=3)

    failed = jobs.get(job.job_id)
    assert (failed.status, failed.error_code, failed.attempts) == ("failed", "worker_lost", 3)
    assert failed.error == "the worker died 3 times on this recording, the limit is 3"


def test_handing_back_does_not_count_as_an_attempt(jobs: JobStore) -> None:
    job = stored(jobs)

    for _ in range(3):
        claim = jobs.claim(job.job_id, "w", lease_seconds=30, max_attempts=1)
        jobs.release(job.job_id, claim.token)

    assert (jobs.get(job.job_id).attempts, jobs.get(job.job_id).status) == (0, "pending")


def test_an_upload_is_started_once_and_expires_no_more(jobs: JobStore) -> None:
    job = stored(jobs, status=JobStatus.AWAITING_UPLOAD, expires_at=time.time() - 1)
    assert job.job_id in jobs.expired()

    jobs.start(job.job_id)

    started = jobs.get(job.job_id)
    assert (started.status, started.expires_at) == ("pending", None)
    assert job.job_id not in jobs.expired()
    with pytest.raises(JobConflict):
        jobs.start(job.job_id)


def test_pages_show_every_job_once_newest_first_while_others_arrive(jobs: JobStore) -> None:
    made = [stored(jobs, owner="pages", job_id=new_job_id(now)).job_id for now in range(1000, 1025)]

    seen: list[str] = []
    cursor = None
    while True:
        page = jobs.list_jobs("pages", limit=7, cursor=cursor)
        seen += [job.job_id for job in page.jobs]
        stored(jobs, owner="pages")
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == made[::-1]


def test_a_status_filter_lists_and_counts_only_that_status(jobs: JobStore) -> None:
    waiting = stored(jobs, owner="filter")
    cancelled = jobs.cancel(stored(jobs, owner="filter").job_id)

    page = jobs.list_jobs("filter", JobStatus.CANCELLED)

    assert ([job.job_id for job in page.jobs], page.total) == ([cancelled.job_id], 1)
    assert [job.job_id for job in jobs.list_jobs("filter", JobStatus.PENDING).jobs] == [waiting.job_id]
    assert jobs.list_jobs("filter").total == 2


def test_a_deleted_job_is_gone_from_every_index_and_remembered_as_deleted(jobs: JobStore) -> None:
    job = stored(jobs, owner="gone")
    jobs.claim(job.job_id, "w", lease_seconds=0.01, max_attempts=3)

    jobs.delete(job.job_id)

    with pytest.raises(JobMissing):
        jobs.get(job.job_id)
    assert jobs.list_jobs("gone").total == 0
    assert job.job_id not in jobs.expired_leases()
    assert job.job_id in jobs.deleted(seconds=-1)
    assert job.job_id not in jobs.deleted(seconds=60)
    jobs.forget_deleted(job.job_id)
    assert job.job_id not in jobs.deleted(seconds=-1)


def test_pending_jobs_are_found_by_their_age(jobs: JobStore) -> None:
    old = stored(jobs, created_at=time.time() - 100)
    new = stored(jobs)

    waiting = jobs.pending_longer_than(60)

    assert old.job_id in waiting
    assert new.job_id not in waiting


def test_a_step_is_due_for_one_of_all_that_ask_and_again_after_its_time(jobs: JobStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: jobs.due("test", 0.5), range(8)))
    wait_until(lambda: jobs.due("test", 60))

    assert sum(answers) == 1
    assert not jobs.due("test", 60)


def test_silent_workers_do_not_count(jobs: JobStore) -> None:
    jobs.announce_worker(WorkerState("host:1", "cpu", "int8", ["base"], 2))

    alive = jobs.workers()
    long_ago = jobs.workers(max_age_seconds=-1)
    jobs.withdraw_worker("host:1")

    assert [(worker.worker_id, worker.models) for worker in alive] == [("host:1", ["base"])]
    assert long_ago == []
    assert jobs.workers() == []


def test_an_estimate_follows_what_was_measured_and_the_queue(settings: StorageSettings, parts: Parts) -> None:
    redis = parts.start_redis()
    jobs = JobStore.connect(msgspec.structs.replace(settings, redis_url=redis.url))
    for _ in range(20):
        jobs.record_work(size=1_000_000, seconds=10.0)

    alone = jobs.estimate_seconds(2_000_000)
    stored(jobs)
    stored(jobs)
    behind_two = jobs.estimate_seconds(2_000_000)
    redis.running.kill()

    assert alone == pytest.approx(20.0, rel=0.01)
    assert behind_two == pytest.approx(40.0, rel=0.01)


def test_an_id_tells_when_it_was_made() -> None:
    assert created_at(new_job_id(1234567.891)) == 1234567.891


@pytest.mark.parametrize(
    "name", ["", "not-an-id", "019203040506", "019203040506-interviews", "0192030405060708090a0b\n"]
)
def test_what_only_begins_like_an_id_has_no_time(name: str) -> None:
    with pytest.raises(ValueError, match="not a job's id"):
        created_at(name)


def test_a_lost_connection_is_queue_unavailable_and_jobs_survive_a_killed_redis(
    settings: StorageSettings, parts: Parts
) -> None:
    redis = parts.start_redis()
    jobs = JobStore.connect(msgspec.structs.replace(settings, redis_url=redis.url))
    job = stored(jobs)

    redis.running.kill()
    with pytest.raises(QueueUnavailable):
        jobs.get(job.job_id)
    redis.running.start()

    assert jobs.get(job.job_id) == job
    redis.running.kill()


def test_a_wrong_password_is_queue_unavailable(settings: StorageSettings) -> None:
    host = settings.redis_url.rpartition("@")[2]
    jobs = JobStore.connect(msgspec.structs.replace(settings, redis_url=f"redis://:wrong@{host}"))

    with pytest.raises(QueueUnavailable, match=r"(?i)password|auth"):
        jobs.check()
