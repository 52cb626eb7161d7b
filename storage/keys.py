"""Names of the objects that the service keeps, which derive from ids alone; and the check of names from outside."""

import re
from urllib.parse import quote

#: Read by every health check: a store can lose what is in a bucket and list it still.
CANARY_KEY = "bucketscribe-canary.txt"

#: Format → the extension of its result object.
EXTENSIONS = {"json": "json", "text": "txt", "txt": "txt", "srt": "srt", "vtt": "vtt", "tsv": "tsv"}

#: S3's limit of a key, and that of many stores for what stands between two slashes; bytes of UTF-8.
KEY_BYTES, NAME_BYTES = 1024, 255

#: Control characters, and what XML 1.0 has no way to write: https://www.w3.org/TR/xml/#charsets
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
#: What else a key is refused for.
_AMBIGUOUS = re.compile(r"\\|(?:(?<=/)|^)/")


def refusal(key: str) -> str | None:
    """The reason to refuse a name from outside as a key, as the end of a sentence; None: it is accepted.

    A key must be one that every store reads as it is written. SeaweedFS takes `sources\\x`, `/sources/x` and
    `sources//x` for `sources/x`. So this comes before the prefix is looked at.
    """
    parts = key.split("/")
    if "\\" in key:
        return "a key has no backslash: some stores read it as a slash"
    if any(part in ("", ".", "..") for part in parts):
        return "a key has no empty, `.` or `..` parts between its slashes"
    if _UNWRITABLE.search(key):
        return "a key has no control characters and none that XML cannot carry"
    if len(key.encode()) > KEY_BYTES:
        return f"a key has at most {KEY_BYTES} bytes as UTF-8"
    return None


def beside(key: str, ending: str) -> str:
    """The key with an ending, in a spelling that `refusal` lets through: `a%09b.mp3.error.txt`, cut where too long.

    `key` is one that the store has listed, without `.` and `..` parts.
    """
    written = _AMBIGUOUS.sub(_escaped, _UNWRITABLE.sub(_escaped, key))
    folder, slash, name = written.rpartition("/")
    room = min(NAME_BYTES, KEY_BYTES - len(f"{folder}{slash}".encode())) - len(ending)
    return f"{folder}{slash}{name.encode()[:room].decode(errors='ignore')}{ending}"


def _escaped(found: re.Match[str]) -> str:
    return quote(found[0], safe="")


def source_key(job_id: str) -> str:
    """The recording."""
    return f"sources/{job_id}/media"


def job_key(job_id: str) -> str:
    """Options and source of the job as JSON, so that a lost record can be made again."""
    return f"sources/{job_id}/job.json"


def end_key(job_id: str) -> str:
    """How the job ended, if not with a transcript, as JSON: so that it is not done again when its record is lost."""
    return f"sources/{job_id}/end.json"


def fetch_key(job_id: str) -> str:
    """How far the fetch of a url has come, as JSON, while it is under way."""
    return f"sources/{job_id}/fetch.json"


def result_key(job_id: str, format: str) -> str:
    """The transcript in one of the formats; "text" is a file named txt."""
    return f"transcripts/{job_id}/transcript.{EXTENSIONS[format]}"


def warnings_key(job_id: str) -> str:
    """The job's warnings as JSON; only where there are any."""
    return f"transcripts/{job_id}/warnings.json"


def ingested_key(job_id: str) -> str:
    """Says that an object of the inbox became this job; it stays when the job is removed."""
    return f"ingested/{job_id}.json"


def chunk_key(job_id: str, number: int) -> str:
    """A stretch of the recording, as FLAC of 16 kHz mono."""
    return f"chunks/{job_id}/{number:04d}.flac"


def chunk_result_key(job_id: str, number: int) -> str:
    """What is said in it, as JSON: the checkpoint of a long job."""
    return f"chunks/{job_id}/{number:04d}.json"


def levels_key(job_id: str) -> str:
    """How loud the recording is, second by second, as JSON: for the assembly of its chunks."""
    return f"chunks/{job_id}/levels"


def webhook_key(owner: str) -> str:
    """Where an owner's jobs are posted to, and the secret that signs them, as JSON."""
    return f"webhooks/{owner or 'everyone'}.json"
