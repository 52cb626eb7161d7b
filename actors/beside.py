"""Results beside the source: what is said in `inbox/talk.mp3` lies in `inbox/talk.en.srt`, `.vtt`, `.txt` and `.json`.

The folder is somebody else's, so nothing is overwritten that is not this recording's: each result carries a digest of
its source's key. Where another's lies, as that of `talk.wav` or a file of people's own, the name gets longer:
`talk.mp3.en.srt`. Written before the job is completed, and when that is done twice, what lies there is found again.
"""

from collections.abc import Iterator

import structlog

from actors.formats import FORMATS
from storage.errors import ObjectExists, ObjectMissing, StoreRefused
from storage.inbox import BESIDE_JOB, BESIDE_SOURCE, about, drop_failure, known_etag
from storage.job import Job
from storage.keys import result_key
from storage.object_store import ObjectInfo, ObjectStore

log = structlog.get_logger()

#: JSON first: who has its name has the others', too.
_FORMATS = ("json", "srt", "vtt", "text")


def is_result(info: ObjectInfo) -> bool:
    """Whether an object is one that was put beside a source."""
    return BESIDE_SOURCE in info.metadata


def put_beside(job: Job, language: str, objects: ObjectStore) -> list[str]:
    """Put the job's results beside its source if it came from the inbox; the transcript's language is in their names.

    Returns warnings, as sentences. A recording that was replaced meanwhile gets none: they are its next job's to write.
    """
    if job.source.type != "inbox" or _is_replaced(job, objects):
        return []
    names = list(_names(job, "en" if job.options.task == "translate" else language))
    try:
        for name in _FORMATS:
            kind = FORMATS[name]
            stored = result_key(job.job_id, name)
            # A name that is another's is so for the formats that follow, too.
            while names and not _put(f"{names[0]}.{kind.extension}", stored, kind.media_type, job, objects):
                del names[0]
        drop_failure(job, objects)
    except StoreRefused as error:
        log.warning("results not beside their source", job_id=job.job_id, reason=str(error))
        return ["the results could not be put beside the recording: the store refuses it"]
    return [] if names else ["the results could not be put beside the recording: every name is taken"]


def _names(job: Job, language: str) -> Iterator[str]:
    """Without the format's extension, in the order in which they are tried."""
    folder, slash, name = job.source.key.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    if dot:
        yield f"{folder}{slash}{stem}.{language}"
    yield f"{folder}{slash}{name}.{language}"
    yield f"{folder}{slash}{name}.{job.job_id}.{language}"


def _is_replaced(job: Job, objects: ObjectStore) -> bool:
    """A recording that was taken away is not replaced: somebody may have moved it on and waits for the results."""
    try:
        return objects.head(job.source.key).etag != known_etag(job.source)
    except ObjectMissing:
        return False


def _put(key: str, stored: str, media_type: str, job: Job, objects: ObjectStore) -> bool:
    """Put the result that is stored at another key, unless it is there; False: something else is."""
    there = _head(key, objects)
    if there is None:
        try:
            objects.put(key, objects.get(stored), media_type, if_absent=True, metadata=about(job))
            return True
        except ObjectExists:
            there = _head(key, objects)  # Somebody was quicker, if only a first try of ours whose answer was lost.
    if there is None or there.metadata.get(BESIDE_SOURCE) != about(job)[BESIDE_SOURCE]:
        return False
    # Of what lay at the source's key before, or, if this worker was slow, of what has replaced it since.
    if there.metadata.get(BESIDE_JOB) != job.job_id and not _is_replaced(job, objects):
        objects.put(key, objects.get(stored), media_type, metadata=about(job))
    return True


def _head(key: str, objects: ObjectStore) -> ObjectInfo | None:
    try:
        return objects.head(key)
    except ObjectMissing:
        return None
