"""Taking away what is kept of a job: all of it, or what nobody wants any more."""

from storage import inbox
from storage.errors import JobConflict, JobMissing, ObjectMissing
from storage.fetches import drop_fetch
from storage.job import FINAL, Job, JobStatus
from storage.job_store import JobStore
from storage.keys import job_key
from storage.notes import note_end
from storage.object_store import ObjectStore

#: Where a job's objects lie: each prefix is followed by its id and a slash.
JOB_PREFIXES = ("sources/", "chunks/", "transcripts/")

#: Prefixes that the service writes: no client may name a recording there.
OWN_PREFIXES = (*JOB_PREFIXES, "models/", "ingested/", "webhooks/")


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
    if job.source.type == "url":
        drop_fetch(job.job_id, objects)
    if job.source.type == "inbox":
        # Its record was a sign that the object had its job; the process that made it may have died before the mark.
        inbox.mark(job, objects)
    remove_objects(job.job_id, objects)
    jobs.delete(job.job_id)


def remove_objects(job_id: str, objects: ObjectStore) -> int:
    """Everything that the service stored for a job; returns how many objects there were."""
    return sum(objects.delete_prefix(f"{prefix}{job_id}/") for prefix in JOB_PREFIXES)


def sweep_if_unwanted(job_id: str, jobs: JobStore, objects: ObjectStore) -> None:
    """What a worker does on losing a job: take back what it stored if the job has failed, was cancelled or deleted."""
    try:
        job = jobs.get(job_id)
    except JobMissing:
        try:
            objects.head(job_key(job_id))
        except ObjectMissing:
            drop_fetch(job_id, objects)
            remove_objects(job_id, objects)
        # A deleted job's note goes before its record. Where it lies, Redis was lost, and the job can be made again.
        return
    if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        sweep_ended(job, objects)


def sweep_ended(job: Job, objects: ObjectStore) -> None:
    """Of a job that ended without a transcript: note how, and remove what there is of its results."""
    note_end(job, objects)
    if job.source.type == "url":
        drop_fetch(job.job_id, objects)
    objects.delete_prefix(f"transcripts/{job.job_id}/")
    objects.delete_prefix(f"chunks/{job.job_id}/")
