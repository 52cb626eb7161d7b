"""How far the fetch of a url has come, noted beside the recording, so that another worker goes on with it.

The parts themselves are in the store's list of the multipart upload; the note says which upload that is and what the
recording was known by when it was begun. It is written before the first part and removed when the recording is whole.
"""

import msgspec

from storage.errors import ObjectMissing
from storage.keys import fetch_key, source_key
from storage.object_store import ObjectStore
from storage.structs import decode


class FetchUpload(msgspec.Struct, frozen=True, kw_only=True):
    """A recording half in the store."""

    upload_id: str
    #: Bytes of every part but the last.
    part_size: int
    #: What its server knew these very bytes by, as If-Range has it; None: it cannot be gone on with.
    validator: str | None
    #: As the server named it; empty: it did not.
    filename: str
    content_type: str | None


class FetchNote(msgspec.Struct, frozen=True, kw_only=True):
    #: When the first worker began; seconds since the epoch.
    began: float
    #: How often the url's server failed.
    failures: int = 0
    upload: FetchUpload | None = None


def read_fetch(job_id: str, objects: ObjectStore) -> FetchNote | None:
    """None: nobody has begun, or the note cannot be read, so that the fetch begins again."""
    try:
        return decode(objects.get(fetch_key(job_id)), FetchNote)
    except (ObjectMissing, msgspec.DecodeError):
        return None


def note_fetch(job_id: str, note: FetchNote, objects: ObjectStore) -> None:
    objects.put(fetch_key(job_id), msgspec.json.encode(note), "application/json")


def drop_fetch(job_id: str, objects: ObjectStore) -> None:
    """Whatever a fetch left unfinished goes; there being nothing is fine."""
    key = source_key(job_id)
    for upload in objects.uploads(key):
        objects.abort_upload(upload.key, upload.upload_id)
    objects.delete(fetch_key(job_id))
