"""What is kept in memory of jobs that are listened to: bounded, and nothing when nobody listens."""

import asyncio

from service.stories import STORY_BYTES, Stories
from storage.chunk_store import ChunkStore
from storage.job import Job
from storage.job_store import JobStore
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.storage.test_job_store import stored


def new_stories(settings: StorageSettings, max_bytes: int, kept_seconds: float) -> tuple[Stories, JobStore]:
    jobs = JobStore.connect(settings)
    chunks = ChunkStore.connect(settings, jobs)
    return Stories(jobs, chunks, ObjectStore(settings), 3600, max_bytes, kept_seconds), jobs


def cancelled(jobs: JobStore) -> Job:
    return jobs.cancel(stored(jobs).job_id)


def test_jobs_that_ended_without_text_do_not_add_up(quiet_settings: StorageSettings) -> None:
    stories, jobs = new_stories(quiet_settings, max_bytes=5 * STORY_BYTES, kept_seconds=60)

    async def run() -> list[str]:
        return [(await stories.end(cancelled(jobs))).status for _ in range(12)]

    assert asyncio.run(run()) == ["cancelled"] * 12
    assert len(stories) == 5


def test_a_story_is_forgotten_when_its_last_listener_has_left(quiet_settings: StorageSettings) -> None:
    stories, jobs = new_stories(quiet_settings, max_bytes=2**20, kept_seconds=0)
    job = cancelled(jobs)

    async def run() -> tuple[int, int]:
        async with stories.listening(job.job_id):
            async with stories.listening(job.job_id):
                await stories.end(job)
            await asyncio.sleep(0.01)
            before = len(stories)
        await asyncio.sleep(0.01)
        return before, len(stories)

    assert asyncio.run(run()) == (1, 0)
