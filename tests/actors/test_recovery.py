"""Records made again from a real bucket after a real FLUSHALL, in every state that a job can be in."""

import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from actors import formats
from actors.broker import queued
from actors.layout import layout_of
from actors.recovery import Outcome, Recovery
from actors.reuse import EarlierResults
from storage.errors import JobMissing
from storage.job import Job, JobStatus, Options, Source, Upload, new_job_id
from storage.keys import job_key, result_key, source_key
from storage.notes import note_end, note_job, note_warnings
from storage.outbox import Outbox
from storage.settings import StorageSettings
from storage.transcript import Segment, Transcript
from tests.actors.test_janitor import House
from tests.storage.test_job_store import a_job

SAID = Transcript("Good day.", "en", 0.98, 12.5, 3.25, [Segment(0, 0.5, 12.0, " Good day.", 0.9)])


@pytest.fixture
def house(fresh_settings: StorageSettings) -> House:
    return House(fresh_settings)


def accepted(house: House, job: Job, *, recording: bool = True) -> Job:
    """As the service does it; the recording's bytes are as many as the job says."""
    if recording:
        house.objects.put(job.source.key, b"x" * job.source.size, "audio/wav")
    note_job(job, house.objects)
    house.jobs.create(job)
    return job


def awaiting(**fields: object) -> Job:
    job = a_job(status=JobStatus.AWAITING_UPLOAD, expires_at=time.time() + 3600, **fields)  # type: ignore[arg-type]
    return msgspec.structs.replace(job, source=msgspec.structs.replace(job.source, type="upload"))


def completed(house: House, job: Job, warnings: list[str]) -> Job:
    """As the pipeline does it."""
    claim = house.jobs.claim(accepted(house, job).job_id, "w", lease_seconds=60, max_attempts=3)
    bodies = {name: formats.render(SAID, name, layout_of(job.options)) for name in formats.FORMATS}
    for name, body in bodies.items():
        house.objects.put(result_key(job.job_id, name), body, formats.FORMATS[name].media_type)
    if warnings:
        note_warnings(job.job_id, warnings, house.objects)
    files = {name: len(body) for name, body in bodies.items()}
    house.jobs.complete(job.job_id, claim.token, files, SAID.duration, warnings)
    return house.jobs.get(job.job_id)


def lose_redis(house: House) -> None:
    house.jobs._redis.flushall()


def recover(house: House, *, dry_run: bool = False) -> list[Outcome]:
    return list(Recovery(house.jobs, house.objects, house.broker, house.settings, dry_run=dry_run).run())


def test_a_completed_job_is_what_it_was(house: House) -> None:
    options = Options(model="base", max_line_width=20)
    jobs = [
        completed(house, a_job(owner="alice", options=options), []),
        completed(house, a_job(owner="bob"), ["the recording breaks off after 12.5 s"]),
    ]
    lose_redis(house)

    outcomes = recover(house)

    assert [(outcome.job_id, outcome.what, outcome.status) for outcome in outcomes] == [
        (job.job_id, "recovered", "completed") for job in jobs
    ]
    for job in jobs:
        again = house.jobs.get(job.job_id, job.owner)
        assert again.completed_at == pytest.approx(job.completed_at, abs=60)
        assert again.expires_at == pytest.approx(job.expires_at, abs=60)
        # The record knew these; the bucket knows them from the transcript.
        known = {"started_at": job.started_at, "attempts": 1, "language": None, "language_probability": None}
        times = {"completed_at": job.completed_at, "expires_at": job.expires_at}
        assert msgspec.structs.replace(again, **known, **times) == job
        assert again.language == "en"
        assert [found.job_id for found in house.jobs.list_jobs(job.owner, JobStatus.COMPLETED).jobs] == [job.job_id]
    assert queued(house.broker) == set()


def test_its_results_are_at_hand_for_the_same_audio_again(house: House) -> None:
    settings = msgspec.structs.replace(house.settings, reuse_results=True)
    source = Source(type="form", key="", filename="talk.wav", size=3, digest="sha256:abc")
    first, second = (
        msgspec.structs.replace(job, source=msgspec.structs.replace(source, key=source_key(job.job_id)))
        for job in (a_job(), a_job())
    )
    first = completed(house, first, [])
    lose_redis(house)

    list(Recovery(house.jobs, house.objects, house.broker, settings).run())

    accepted(house, second)
    assert EarlierResults(house.jobs, house.objects, settings).complete(second)
    assert house.jobs.get(second.job_id).files == first.files


def test_formats_that_no_worker_came_to_are_made_of_the_transcript(house: House) -> None:
    job = completed(house, a_job(), [])
    for name in ("srt", "tsv"):
        house.objects.delete(result_key(job.job_id, name))
    lose_redis(house)

    tried = recover(house, dry_run=True)
    kept = house.keys(job.job_id)
    recover(house)

    assert tried[0].status == "completed"
    assert kept == {"media", "job.json", "transcript.json", "transcript.txt", "transcript.vtt"}
    assert house.jobs.get(job.job_id).files == job.files
    assert house.objects.get(result_key(job.job_id, "srt")) == formats.render(SAID, "srt")


def test_whatever_has_its_recording_and_no_transcript_waits_again_with_its_message(house: House) -> None:
    form = accepted(house, a_job(options=Options(model="base", priority="high")))
    processing = accepted(house, a_job())
    house.jobs.claim(processing.job_id, "w", lease_seconds=60, max_attempts=3)
    elsewhere = a_job()
    source = Source(type="object", key="inbox/talk.mp3", filename="talk.mp3", size=3)
    from_bucket = accepted(house, msgspec.structs.replace(elsewhere, source=source))
    uploaded = accepted(house, awaiting())
    lose_redis(house)

    outcomes = recover(house)

    waiting = [form, processing, from_bucket, uploaded]
    assert {outcome.status for outcome in outcomes} == {JobStatus.PENDING}
    assert queued(house.broker) == {(job.job_id,) for job in waiting}
    for job in waiting:
        source = job.source
        if source.type == "upload":
            # What lies there now and nothing else, though the links of the upload may work on.
            source = msgspec.structs.replace(source, digest=f"etag:{house.objects.head(source.key).etag}")
        expected = msgspec.structs.replace(job, status=JobStatus.PENDING, expires_at=None, source=source)
        assert house.jobs.get(job.job_id) == expected


def test_what_failed_or_was_cancelled_does_not_come_back_to_life(house: House) -> None:
    failed = house.jobs.fail(accepted(house, a_job()).job_id, "audio_unreadable", "no audio in it")
    cancelled = house.jobs.cancel(accepted(house, a_job()).job_id)
    for job in (failed, cancelled):
        note_end(job, house.objects)
    lose_redis(house)

    recover(house)

    assert [house.jobs.get(job.job_id) for job in (failed, cancelled)] == [failed, cancelled]
    assert sorted(house.jobs.expired(limit=10)) == []
    assert queued(house.broker) == set()


def test_what_ended_within_a_day_is_posted_to_whoever_may_not_have_been_told(house: House) -> None:
    told = Options(model="base", webhook_url="https://example.org/")
    done = completed(house, a_job(options=told), [])
    failed = house.jobs.fail(accepted(house, a_job(options=told)).job_id, "audio_unreadable", "no audio in it")
    note_end(failed, house.objects)
    old = house.jobs.fail(accepted(house, a_job(options=told)).job_id, "audio_unreadable", "no audio in it")
    note_end(msgspec.structs.replace(old, completed_at=time.time() - 25 * 3600), house.objects)
    waiting = accepted(house, a_job(options=told))
    lose_redis(house)

    outcomes = recover(house)

    assert {outcome.job_id for outcome in outcomes} == {job.job_id for job in (done, failed, old, waiting)}
    assert set(Outbox.connect(house.settings).due("ticket")) == {done.job_id, failed.job_id}


def test_an_upload_under_way_goes_on(house: House) -> None:
    single = accepted(house, awaiting(), recording=False)
    parts = awaiting()
    upload_id = house.objects.start_upload(parts.source.key)
    in_parts = msgspec.structs.replace(parts, upload=Upload(upload_id=upload_id, part_size=5))
    accepted(house, in_parts, recording=False)
    lose_redis(house)

    recover(house)

    assert [house.jobs.get(job.job_id) for job in (single, in_parts)] == [single, in_parts]
    assert house.jobs.start(in_parts.job_id).status == "pending"


def test_what_cannot_be_made_again_is_skipped_with_the_reason(house: House) -> None:
    dropped = msgspec.structs.replace(awaiting(), upload=Upload(upload_id="gone", part_size=5))
    accepted(house, dropped, recording=False)
    without = accepted(house, a_job(), recording=False)
    garbled = accepted(house, a_job())
    house.put(job_key(garbled.job_id))
    never_accepted = new_job_id()
    house.put(source_key(never_accepted), "sources/not-an-id/job.json")
    lose_redis(house)

    outcomes = {outcome.job_id: outcome for outcome in recover(house)}

    assert {outcome.what for outcome in outcomes.values()} == {"skipped"}
    assert outcomes.keys() == {dropped.job_id, without.job_id, garbled.job_id}
    assert outcomes[dropped.job_id].reason == "its upload was dropped before it was whole"
    assert outcomes[without.job_id].reason == "its recording is not in the bucket"
    assert "cannot be read" in (outcomes[garbled.job_id].reason or "")
    assert queued(house.broker) == set()


def test_a_dry_run_changes_nothing(house: House) -> None:
    job = accepted(house, a_job())
    lose_redis(house)

    outcomes = recover(house, dry_run=True)

    assert outcomes == [Outcome(job.job_id, "recovered", JobStatus.PENDING)]
    assert house.jobs._redis.keys("*") == []
    assert queued(house.broker) == set()


def test_records_that_are_there_stay_as_they_are_and_two_at_once_make_each_once(house: House) -> None:
    lost = [accepted(house, a_job()) for _ in range(20)]
    lose_redis(house)
    there = accepted(house, a_job())
    claim = house.jobs.claim(there.job_id, "w", lease_seconds=60, max_attempts=3)

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: recover(house), range(2)))
    again = recover(house)

    made = [outcome.job_id for run in runs for outcome in run if outcome.what == "recovered"]
    assert sorted(made) == sorted(job.job_id for job in lost)
    assert {outcome.what for outcome in again} == {"there"}
    assert house.jobs.get(there.job_id) == claim.job
    assert house.jobs.list_jobs("alice").total == 21
    messages_of = [house.broker.client.llen(f"dramatiq:transcribe-{name}") for name in ("high", "normal", "low")]
    assert messages_of == [0, 20, 0]


def test_a_job_that_is_deleted_while_it_is_looked_at_stays_deleted(house: House) -> None:
    job = accepted(house, a_job())
    house.jobs.delete(job.job_id)

    made = house.jobs.create(job)

    assert not made
    with pytest.raises(JobMissing):
        house.jobs.get(job.job_id)
