"""How a job comes to be while Redis dies, loses answers, and serves others in between."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import redis

from service.backend import Backend
from service.settings import ServiceSettings
from storage.errors import QueueUnavailable
from storage.idempotency import Once, once
from storage.job import Job, JobStatus, Source, new_job_id
from storage.keys import source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.stack import Parts, RedisServer
from tests.storage.test_job_store import a_job, wait_until

CONTENT = b"a recording"


class House:
    """The API's backend, as often as asked for, with a Redis of its own."""

    def __init__(self, settings: StorageSettings) -> None:
        self.settings = settings
        self.objects = ObjectStore(settings)
        self.objects.prepare()

    def backend(self) -> Backend:
        return Backend.connect(ServiceSettings(), self.settings)

    def uploaded(self) -> Job:
        """A job whose recording is in the store and that nobody has accepted yet."""
        job_id = new_job_id()
        self.objects.put(source_key(job_id), CONTENT, "audio/wav")
        source = Source(type="form", key=source_key(job_id), filename="talk.wav", size=len(CONTENT))
        return msgspec.structs.replace(a_job(), job_id=job_id, source=source)

    def kept(self, job: Job) -> bool:
        return any(self.objects.list(f"sources/{job.job_id}/"))


@pytest.fixture
def redis_server(parts: Parts) -> Iterator[RedisServer]:
    server = parts.start_redis()
    yield server
    server.running.kill()


@pytest.fixture
def house(fresh_settings: StorageSettings, redis_server: RedisServer) -> House:
    return House(msgspec.structs.replace(fresh_settings, redis_url=redis_server.url))


@pytest.fixture
def asked() -> Once:
    return once("alice", secrets.token_hex(8), CONTENT)


def meddle(
    client: redis.Redis,
    before: Callable[[str], object] = lambda command: None,
    after: Callable[[str], object] = lambda command: None,
) -> None:
    """Something happens before a command is sent, or when its answer has come; what it raises is the connection's."""

    class Meddled(redis.Connection):
        asked = ""

        def send_command(self, *args: Any, **options: Any) -> None:
            self.asked = str(args[0])
            before(self.asked)
            super().send_command(*args, **options)  # type: ignore[no-untyped-call]

        def read_response(self, *args: Any, **options: Any) -> Any:
            answer = super().read_response(*args, **options)
            after(self.asked)
            return answer

    client.connection_pool.connection_class = Meddled


def dies_after_its_first_script(server: RedisServer) -> Callable[[str], None]:
    def die(command: str) -> None:
        if command == "EVALSHA":
            server.running.kill()
            raise redis.ConnectionError("the answer is lost")

    return die


def test_a_record_made_by_a_redis_that_then_died_keeps_its_recording_for_the_retry(
    house: House, redis_server: RedisServer, asked: Once
) -> None:
    backend, first, second = house.backend(), house.uploaded(), house.uploaded()
    meddle(backend.jobs._redis, after=dies_after_its_first_script(redis_server))
    with pytest.raises(QueueUnavailable):
        backend.accept(first, asked)
    redis_server.running.start()

    again = house.backend().accept(second, asked)

    assert again.job_id == first.job_id
    assert house.objects.get(first.source.key) == CONTENT
    assert not house.kept(second)


def test_a_record_without_a_key_that_cannot_be_taken_back_keeps_its_recording(
    house: House, redis_server: RedisServer
) -> None:
    backend, job = house.backend(), house.uploaded()
    meddle(backend.jobs._redis, after=dies_after_its_first_script(redis_server))

    with pytest.raises(QueueUnavailable):
        backend.accept(job)
    redis_server.running.start()

    assert house.backend().jobs.get(job.job_id).status is JobStatus.PENDING
    assert house.objects.get(job.source.key) == CONTENT


def test_a_job_that_another_request_was_answered_with_outlives_a_send_that_failed(house: House, asked: Once) -> None:
    backend, first, second = house.backend(), house.uploaded(), house.uploaded()
    answered: list[Job] = []

    def meanwhile(command: str) -> None:
        if command == "EVALSHA":
            if not answered:
                answered.append(house.backend().accept(second, asked))
            raise redis.ConnectionError("the queue is away")

    meddle(backend.broker.client, before=meanwhile)
    accepted = backend.accept(first, asked)

    assert [job.job_id for job in answered] == [accepted.job_id] == [first.job_id]
    assert backend.jobs.get(first.job_id).status is JobStatus.PENDING
    assert house.objects.get(first.source.key) == CONTENT


def test_a_send_that_failed_without_a_key_is_undone(house: House) -> None:
    backend, job = house.backend(), house.uploaded()

    def refuse(command: str) -> None:
        if command == "EVALSHA":
            raise redis.ConnectionError("the queue is away")

    meddle(backend.broker.client, before=refuse)
    with pytest.raises(QueueUnavailable):
        backend.accept(job)

    assert backend.jobs.list_jobs(job.owner).total == 0
    assert not house.kept(job)


def test_a_request_that_took_the_key_in_between_has_made_the_job(house: House, asked: Once) -> None:
    """The first's job is deleted while the second asks for it, and then a third one comes."""
    backend, others = house.backend(), house.backend()
    first, second, third = (house.uploaded() for _ in range(3))
    looks: list[str] = []

    def before(command: str) -> None:
        if command == "EXISTS" and len(looks) == 2:
            others.jobs.delete(first.job_id)

    def after(command: str) -> None:
        looks.extend([command] if command == "HGETALL" else [])
        if command == "HGETALL" and len(looks) == 1:
            others.accept(first, asked)
        elif command == "EXISTS" and len(looks) == 2:
            others.accept(third, asked)

    meddle(backend.requests._redis, before=before, after=after)
    made = backend.accept(second, asked)

    assert made.job_id == third.job_id
    assert backend.jobs.get(third.job_id).status is JobStatus.PENDING
    assert not house.kept(second)


def test_with_redis_away_from_the_beginning_nothing_is_left(house: House, redis_server: RedisServer) -> None:
    backend, job = house.backend(), house.uploaded()
    redis_server.running.kill()

    with pytest.raises(QueueUnavailable):
        backend.accept(job)

    assert not house.kept(job)
    redis_server.running.start()
    wait_until(lambda: backend.jobs.list_jobs(job.owner).total == 0)
