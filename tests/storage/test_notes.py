"""The notes of a job and the other objects that lie beside its recording."""

from storage.job_store import JobStore
from storage.keys import end_key, job_key
from storage.notes import note_end, note_job
from storage.object_store import ObjectStore
from storage.removal import remove_job
from tests.storage.test_job_store import stored


def test_a_worker_that_notes_the_end_of_a_job_deleted_meanwhile_leaves_nothing(
    job_store: JobStore, object_store: ObjectStore
) -> None:
    job = stored(job_store)
    note_job(job, object_store)
    cancelled = job_store.cancel(job.job_id)
    note_end(cancelled, object_store)
    noted = [info.key for info in object_store.list(f"sources/{job.job_id}/")]
    remove_job(cancelled, job_store, object_store)

    note_end(cancelled, object_store)

    assert sorted(noted) == sorted([end_key(job.job_id), job_key(job.job_id)])
    assert list(object_store.list(f"sources/{job.job_id}/")) == []
