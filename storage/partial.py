"""What is transcribed of a long recording so far."""

from itertools import takewhile

import msgspec

from storage.chunk_result import ChunkResult
from storage.chunk_store import ChunkStore
from storage.keys import chunk_result_key
from storage.object_store import ObjectStore
from storage.transcript import Segment, merged


def partial_segments(job_id: str, chunks: ChunkStore, objects: ObjectStore) -> list[Segment]:
    """The segments from the recording's beginning, in order and without gaps; none of a recording without chunks.

    Raises:
        ObjectMissing: the job was completed meanwhile, or deleted.
    """
    done = chunks.done(job_id)
    numbers = takewhile(done.__contains__, range(len(done)))
    return merged(
        msgspec.json.decode(objects.get(chunk_result_key(job_id, number)), type=ChunkResult).segments
        for number in numbers
    )
