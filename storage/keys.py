"""Names of the objects that the service keeps. They derive from ids, never from what a client says."""

#: Format → the extension of its result object.
EXTENSIONS = {"json": "json", "text": "txt", "txt": "txt", "srt": "srt", "vtt": "vtt", "tsv": "tsv"}


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


def loudness_key(job_id: str) -> str:
    """How loud the recording is, second by second, as JSON: for the assembly of its chunks."""
    return f"chunks/{job_id}/loudness"


def webhook_key(owner: str) -> str:
    """Where an owner's jobs are posted to, and the secret that signs them, as JSON."""
    return f"webhooks/{owner or 'everyone'}.json"
