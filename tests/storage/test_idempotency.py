"""One key, one job: in races, for other requests, and when the job is gone."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.errors import IdempotencyConflict
from storage.idempotency import Once, Requests, once
from storage.job import Job
from storage.job_store import JobStore
from storage.redis_client import JOBS_DATABASE, connect
from storage.settings import StorageSettings
from tests.storage.test_job_store import a_job
from tests.storage.test_lost_answers import forgetful


@pytest.fixture(scope="module")
def requests(store_settings: StorageSettings) -> Requests:
    return Requests.connect(store_settings)


@pytest.fixture
def asked() -> Once:
    return once("alice", secrets.token_hex(8), b"a recording")


def test_of_many_at_once_one_makes_its_job(job_store: JobStore, requests: Requests, asked: Once) -> None:
    jobs = [a_job() for _ in range(16)]

    with ThreadPoolExecutor(16) as threads:
        made = list(threads.map(lambda job: job_store.create(job, asked), jobs))

    (winner,) = [job for job, is_made in zip(jobs, made, strict=True) if is_made]
    assert requests.made(asked) == winner.job_id
    assert [job for job in jobs if is_there(job_store, job)] == [winner]


def test_a_request_whose_answer_was_lost_has_made_its_own_job(
    store_settings: StorageSettings, requests: Requests, asked: Once
) -> None:
    jobs, job = JobStore(forgetful(store_settings), 60), a_job()

    jobs.create(job, asked)

    assert requests.made(asked) == job.job_id
    assert is_there(jobs, job)


def test_another_request_with_the_key_is_told_so(job_store: JobStore, requests: Requests) -> None:
    key = secrets.token_hex(8)
    job_store.create(a_job(), once("alice", key, b"a recording"))
    other = once("alice", key, b"another recording")

    assert not job_store.create(a_job(), other)
    with pytest.raises(IdempotencyConflict):
        requests.made(other)


def test_a_key_is_free_when_its_job_is_deleted(job_store: JobStore, requests: Requests, asked: Once) -> None:
    first, second = a_job(), a_job()
    job_store.create(first, asked)
    job_store.delete(first.job_id)

    assert requests.made(asked) is None
    assert job_store.create(second, asked)
    assert requests.made(asked) == second.job_id


def test_the_same_key_of_two_owners_is_two_keys(job_store: JobStore) -> None:
    key = secrets.token_hex(8)

    made = [job_store.create(a_job(owner), once(owner, key, b"a recording")) for owner in ("alice", "bob")]

    assert made == [True, True]


def test_a_key_is_remembered_for_a_day(store_settings: StorageSettings, job_store: JobStore, asked: Once) -> None:
    job_store.create(a_job(), asked)

    left = connect(store_settings, JOBS_DATABASE).ttl(asked.key)

    assert 86_300 < left <= 86_400


def is_there(jobs: JobStore, job: Job) -> bool:
    return job.job_id in {one.job_id for one in jobs.list_jobs(job.owner, limit=200).jobs}
