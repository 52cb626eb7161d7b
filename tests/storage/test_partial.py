"""The text so far, from results in a real store and chunks in a real Redis: in order, and never taken back."""

import pytest

from storage.chunk_result import ChunkResult, store_result
from storage.chunk_store import Chunk, ChunkStore
from storage.job import Options
from storage.job_store import JobStore
from storage.object_store import ObjectStore
from storage.partial import Growing, partial_segments
from storage.settings import StorageSettings
from storage.transcript import Segment
from tests.storage.test_job_store import stored

LEFT, LATER, RIGHT = Chunk(0, 0.0, 60.0, 30.0, 0), Chunk(1, 60.0, 120.0, 30.0, 0), Chunk(2, 0.0, 90.0, 45.0, 1)


@pytest.fixture
def chunks(store_settings: StorageSettings, job_store: JobStore) -> ChunkStore:
    return ChunkStore.connect(store_settings, job_store)


def test_with_separate_channels_the_text_goes_as_far_as_every_channel_is_done(
    chunks: ChunkStore, job_store: JobStore, object_store: ObjectStore
) -> None:
    job = stored(job_store)
    claim = job_store.claim(job.job_id, "cutter", lease_seconds=60, max_attempts=3)
    for chunk in (LEFT, LATER, RIGHT):
        chunks.announce(job.job_id, claim.token, chunk, parallel=3)
    seen = []

    for chunk in (LEFT, LATER, RIGHT):
        said = [Segment(n, at, at + 5, f" {chunk.channel} at {at}", 0.9) for n, at in enumerate(moments(chunk))]
        store_result(job.job_id, ChunkResult(chunk, Options(model="base"), said), object_store)
        chunks.finish(chunks.claim(job.job_id, chunk.number, 60, 3), parallel=3)
        seen.append([segment.text for segment in partial_segments(job.job_id, job_store, chunks, object_store)])

    assert seen[:2] == [[], []]
    assert seen[2] == [" 0 at 0.0", " 1 at 0.0", " 0 at 50.0", " 0 at 60.0", " 1 at 80.0"]


def test_a_channel_that_nobody_has_heard_of_yet_holds_the_text_up_until_the_recording_is_cut(
    chunks: ChunkStore, job_store: JobStore, object_store: ObjectStore
) -> None:
    job = stored(job_store)
    claim = job_store.claim(job.job_id, "cutter", lease_seconds=60, max_attempts=3)
    growing = Growing(job.job_id, job_store, chunks, object_store)
    seen = []

    chunks.announce(job.job_id, claim.token, LEFT, parallel=3, channels="2")
    for step in (LEFT, "the recording is cut"):
        if isinstance(step, Chunk):
            said = [Segment(n, at, at + 5, f" at {at}", 0.9) for n, at in enumerate(moments(step))]
            store_result(job.job_id, ChunkResult(step, Options(model="base"), said), object_store)
            chunks.finish(chunks.claim(job.job_id, step.number, 60, 3), parallel=3)
        else:
            chunks.finish_cut(job.job_id, claim.token)
        growing.read()
        seen.append([(segment.id, segment.text) for segment in growing.segments])

    assert seen == [[], [(0, " at 0.0"), (1, " at 50.0")]]


def moments(chunk: Chunk) -> tuple[float, float]:
    """When something is said in it: at its beginning, and ten seconds before its end."""
    return chunk.start, chunk.end - 10
