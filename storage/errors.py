"""What can go wrong in storage.

    StorageError
    ├── StoreUnavailable      no connection, a time-out, a 5xx or a 503: worth another try
    ├── StoreRefused          wrong key or signature, or the key may not do this: a setting is wrong
    ├── BucketMissing         the bucket is not there and could not be made
    ├── ObjectMissing         no object has this key
    ├── ObjectExists          a conditional put found an object already there
    ├── UploadMissing         the multipart upload is not known: completed, aborted or never begun
    ├── UploadRefused         the store does not accept the parts: one is missing or of another size
    ├── QueueUnavailable      Redis does not answer: worth another try
    │   └── QueueReadOnly     Redis answers and refuses to write: its memory is full, or it cannot save
    ├── TooManyJobs           so many jobs wait already that no more are taken
    │   └── ClientJobsExceeded  of this client
    ├── JobMissing            no job has this id (or it is another owner's)
    ├── JobConflict           the job's status does not allow this change
    ├── JobSuspect            it was lost with its workers before: it is to be done with nothing beside it
    ├── IdempotencyConflict   the key was used for another request
    ├── JobFenced             the worker does not own the job any more: what it does from here counts for nothing
    └── ModelUnavailable      no source has the weights

`code` is what clients see; service/errors.py has the table of codes and HTTP statuses.
"""


class StorageError(Exception):
    """Base of everything that storage raises on purpose. The message states the fact and the limit, if any."""

    code = "internal_error"


class StoreUnavailable(StorageError):
    code = "storage_unavailable"


class StoreRefused(StorageError):
    code = "storage_refused"


class BucketMissing(StorageError):
    code = "bucket_missing"


class ObjectMissing(StorageError):
    code = "object_not_found"


class ObjectExists(StorageError):
    code = "object_exists"


class UploadMissing(StorageError):
    code = "upload_not_found"


class UploadRefused(StorageError):
    code = "upload_incomplete"


class QueueUnavailable(StorageError):
    code = "queue_unavailable"


class QueueReadOnly(QueueUnavailable):
    code = "queue_read_only"


class TooManyJobs(StorageError):
    code = "too_many_jobs"


class ClientJobsExceeded(TooManyJobs):
    code = "client_jobs_exceeded"


class JobMissing(StorageError):
    code = "job_not_found"


class JobConflict(StorageError):
    code = "job_conflict"


class JobSuspect(StorageError):
    code = "job_conflict"


class IdempotencyConflict(StorageError):
    code = "idempotency_conflict"


class JobFenced(StorageError):
    code = "job_fenced"


class ModelUnavailable(StorageError):
    code = "model_unavailable"


def quoted(text: str) -> str:
    """A client's text within a sentence: its beginning, without characters that do not show."""
    shown = "".join(character if character.isprintable() else "\ufffd" for character in text[:100])
    return f"'{shown}'"
