"""Taking a job away, with all that is kept of it."""

from storage.errors import JobConflict
from storage.job import FINAL, Job
from storage.job_store import JobStore
from storage.object_store import ObjectStore

#: Where a job's objects lie: each prefix is followed by its id and a slash.
JOB_PREFIXES = ("sources/", "chunks/", "transcripts/")


def remove_job(job: Job, jobs: JobStore, objects: ObjectStore) -> None:
    """Cancel the job if it is not final, then remove its objects, then its record, which is what names them.

    A recording that lay in the bucket before the job came is its owner's and stays.
    """
    if job.status not in FINAL:
        try:
            jobs.cancel(job.job_id)
        except JobConflict:
            pass  # It became final just now.
    if job.upload is not None:
        objects.abort_upload(job.source.key, job.upload.upload_id)
    remove_objects(job.job_id, objects)
    jobs.delete(job.job_id)


def remove_objects(job_id: str, objects: ObjectStore) -> int:
    """Everything that the service stored for a job; returns how many objects there were."""
    return sum(objects.delete_prefix(f"{prefix}{job_id}/") for prefix in JOB_PREFIXES)
