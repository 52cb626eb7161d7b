"""Earlier results for the same bytes, on the real store and on moto: what is found, what is copied, what is left."""

import secrets
from collections.abc import Iterator

import httpx
import msgspec
import pytest

from actors import formats
from actors.reuse import EarlierResults
from storage.errors import ObjectMissing
from storage.job import Job, JobStatus, Options
from storage.job_store import JobStore
from storage.keys import result_key, warnings_key
from storage.notes import note_warnings
from storage.object_store import ObjectStore
from storage.removal import remove_job
from storage.settings import StorageSettings
from storage.transcript import Segment, Transcript
from tests.stack import Parts
from tests.storage.test_job_store import a_job

SAID = Transcript("Good day.", "en", 0.98, 12.5, 3.25, [Segment(0, 0.5, 12.0, " Good day.", 0.9)])


class House:
    """A bucket and the records, and what fills them as the API and a worker would."""

    def __init__(self, settings: StorageSettings) -> None:
        self.settings = msgspec.structs.replace(settings, reuse_results=True)
        self.objects = ObjectStore(self.settings)
        self.objects.prepare()
        self.jobs = JobStore.connect(self.settings)
        self.earlier = EarlierResults(self.jobs, self.objects, self.settings)

    def made(self, content: bytes, **fields: object) -> Job:
        """A job that waits for a worker."""
        job = a_job(**fields)  # type: ignore[arg-type]
        self.objects.put(job.source.key, content, "audio/wav")
        source = msgspec.structs.replace(job.source, type="upload", size=len(content))
        job = self.earlier.identified(msgspec.structs.replace(job, source=source))
        self.jobs.create(job)
        return job

    def transcribed(self, job: Job, *warnings: str) -> Job:
        """As the pipeline does it."""
        claim = self.jobs.claim(job.job_id, "w", lease_seconds=60, max_attempts=3)
        bodies = {name: formats.render(SAID, name) for name in formats.FORMATS}
        for name, body in bodies.items():
            self.objects.put(result_key(job.job_id, name), body, formats.FORMATS[name].media_type)
        if warnings:
            note_warnings(job.job_id, warnings, self.objects)
        files = {name: len(body) for name, body in bodies.items()}
        self.jobs.complete(job.job_id, claim.token, files, SAID.duration, warnings)
        self.earlier.remember(job)
        return self.jobs.get(job.job_id)

    def status(self, job: Job) -> JobStatus:
        return self.jobs.get(job.job_id).status


@pytest.fixture(scope="module", params=["seaweedfs", "moto"])
def house(request: pytest.FixtureRequest, parts: Parts, store_settings: StorageSettings) -> Iterator[House]:
    changes: dict[str, object] = {"s3_bucket": f"reuse-{secrets.token_hex(4)}"}
    if request.param == "moto":
        moto = parts.start_moto()
        changes |= {"s3_endpoint_url": moto.url, "s3_access_key": "moto", "s3_secret_key": "moto"}
    yield House(msgspec.structs.replace(store_settings, **changes))
    if request.param == "moto":
        moto.running.kill()


@pytest.fixture
def recording() -> bytes:
    """Bytes that no other test has."""
    return secrets.token_bytes(3000)


def test_the_same_bytes_are_completed_with_copies_that_outlive_the_first_job(house: House, recording: bytes) -> None:
    first = house.transcribed(house.made(recording), "the recording breaks off after 12.5 s")
    second = house.made(recording)

    completed = house.earlier.complete(second)
    remove_job(first, house.jobs, house.objects)

    job = house.jobs.get(second.job_id)
    assert completed
    assert (job.status, job.progress, job.duration, job.files) == (JobStatus.COMPLETED, 100, 12.5, first.files)
    assert job.warnings == ["the recording breaks off after 12.5 s"]
    for name, size in job.files.items():
        assert house.objects.get(result_key(job.job_id, name)) == formats.render(SAID, name)
        assert house.objects.head(result_key(job.job_id, name)).size == size
    assert house.objects.head(result_key(job.job_id, "srt")).content_type == formats.FORMATS["srt"].media_type
    assert msgspec.json.decode(house.objects.get(warnings_key(job.job_id))) == job.warnings


def test_copies_are_found_when_the_first_job_is_deleted(house: House, recording: bytes) -> None:
    first = house.transcribed(house.made(recording))
    second = house.made(recording)
    house.earlier.complete(second)
    remove_job(first, house.jobs, house.objects)
    third = house.made(recording)

    assert house.earlier.complete(third)
    assert house.status(third) is JobStatus.COMPLETED


def test_the_first_is_found_when_the_copies_are_deleted(house: House, recording: bytes) -> None:
    house.transcribed(house.made(recording))
    second = house.made(recording)
    house.earlier.complete(second)
    remove_job(second, house.jobs, house.objects)
    third = house.made(recording)

    assert house.earlier.complete(third)


@pytest.mark.parametrize(
    "other",
    [
        {"options": Options(model="base", language="de")},
        {"options": Options(model="base", task="translate")},
        {"options": Options(model="base", segment_details=True)},
        {"options": Options(model="base", max_line_width=20)},
        {"options": Options(model="base", task="detect_language")},
        {"owner": "bob"},
    ],
    ids=["language", "task", "details", "layout", "detection", "owner"],
)
def test_what_was_asked_for_otherwise_or_by_others_is_not_taken(
    house: House, recording: bytes, other: dict[str, object]
) -> None:
    house.transcribed(house.made(recording, owner="alice", options=Options(model="base")))
    second = house.made(recording, **{"owner": "alice", "options": Options(model="base"), **other})

    assert not house.earlier.complete(second)
    assert house.status(second) is JobStatus.PENDING


def test_what_does_not_shape_the_result_makes_no_difference(house: House, recording: bytes) -> None:
    house.transcribed(house.made(recording, options=Options(model="base")))
    options = Options(model="base", priority="high", response_format="srt", webhook_url="https://example.com/")
    second = house.made(recording, options=options)

    assert house.earlier.complete(second)


def test_other_bytes_are_other_audio(house: House, recording: bytes) -> None:
    house.transcribed(house.made(recording))
    second = house.made(recording[:-1] + bytes([recording[-1] ^ 1]))

    assert not house.earlier.complete(second)


def test_a_failed_job_has_nothing_to_give(house: House, recording: bytes) -> None:
    first = house.made(recording)
    house.jobs.fail(first.job_id, "audio_unreadable", "it is a letter")
    second = house.made(recording)

    assert not house.earlier.complete(second)


def test_an_upload_in_parts_is_known_by_the_stores_own_etag(house: House) -> None:
    content = secrets.token_bytes(6 * 2**20)
    jobs = []
    for _ in range(2):
        job = a_job()
        upload_id = house.objects.start_upload(job.source.key)
        for number, data in enumerate((content[: 5 * 2**20], content[5 * 2**20 :]), 1):
            url = house.objects.presign_part(job.source.key, upload_id, number, len(data), 60)
            httpx.put(url, content=data).raise_for_status()
        parts = house.objects.list_parts(job.source.key, upload_id)
        house.objects.complete_upload(job.source.key, upload_id, parts)
        source = msgspec.structs.replace(job.source, type="upload", size=len(content))
        job = house.earlier.identified(msgspec.structs.replace(job, source=source))
        house.jobs.create(job)
        jobs.append(job)
    first, second = jobs
    house.transcribed(first)

    assert first.source.digest
    assert first.source.digest.startswith("etag:")
    assert house.earlier.complete(second)


def test_a_recording_that_was_replaced_before_it_was_read_is_not_remembered(house: House, recording: bytes) -> None:
    first = house.made(recording)
    house.objects.put(first.source.key, recording[::-1], "audio/wav")
    house.transcribed(first)
    second = house.made(recording)

    assert not house.earlier.complete(second)


def test_results_that_vanish_while_they_are_copied_leave_the_job_to_a_worker(house: House, recording: bytes) -> None:
    first = house.transcribed(house.made(recording))
    house.objects.delete(result_key(first.job_id, "tsv"))
    second = house.made(recording)

    assert not house.earlier.complete(second)

    job = house.jobs.get(second.job_id)
    assert (job.status, job.attempts) == (JobStatus.PENDING, 0)
    assert house.transcribed(second).status is JobStatus.COMPLETED


def test_a_job_that_was_lost_while_its_copies_failed_is_not_the_callers_any_more(
    house: House, recording: bytes
) -> None:
    first = house.transcribed(house.made(recording))
    house.objects.delete(result_key(first.job_id, "tsv"))
    second = house.made(recording)
    objects = ObjectStore(house.settings)

    def cancel_meanwhile(**_: object) -> None:
        if house.status(second) is JobStatus.PROCESSING:
            house.jobs.cancel(second.job_id)

    objects._s3.meta.events.register("before-send.s3.CopyObject", cancel_meanwhile)

    done = EarlierResults(house.jobs, objects, house.settings).complete(second)

    assert done
    assert house.status(second) is JobStatus.CANCELLED
    assert not list(house.objects.list(f"transcripts/{second.job_id}/"))


def test_a_job_that_a_worker_holds_is_left_to_it(house: House, recording: bytes) -> None:
    house.transcribed(house.made(recording))
    second = house.made(recording)
    claim = house.jobs.claim(second.job_id, "w", lease_seconds=60, max_attempts=3)

    assert house.earlier.complete(second)

    assert house.status(second) is JobStatus.PROCESSING
    house.jobs.release(second.job_id, claim.token)


def test_a_cancelled_job_keeps_nothing(house: House, recording: bytes) -> None:
    house.transcribed(house.made(recording))
    second = house.made(recording)
    house.jobs.cancel(second.job_id)

    assert house.earlier.complete(second)

    assert house.status(second) is JobStatus.CANCELLED
    assert not list(house.objects.list(f"transcripts/{second.job_id}/"))


def test_where_it_is_off_nothing_is_asked_and_nothing_found(house: House, recording: bytes) -> None:
    house.transcribed(house.made(recording))
    second = house.made(recording)
    off = EarlierResults(house.jobs, house.objects, msgspec.structs.replace(house.settings, reuse_results=False))
    absent = a_job()

    assert not off.complete(second)
    # It does not even look for the recording.
    assert off.identified(absent) is absent
    with pytest.raises(ObjectMissing):
        house.earlier.identified(absent)
