"""What is transcribed of a long recording so far."""

import msgspec

from storage.chunk_result import ChunkResult
from storage.chunk_store import ChunkStore
from storage.keys import chunk_result_key
from storage.object_store import ObjectStore
from storage.transcript import Segment, merged


def partial_segments(job_id: str, chunks: ChunkStore, objects: ObjectStore) -> list[Segment]:
    """The segments from the recording's beginning, in order and without gaps; none of a recording without chunks.

    With separate channels: up to where every channel is done.

    Raises:
        ObjectMissing: the job was completed meanwhile, or deleted.
    """
    done = chunks.done(job_id)
    known = chunks.chunks(job_id)
    reached = {chunk.channel: 0.0 for chunk in known}
    parts: list[list[Segment]] = []
    for chunk in known:
        if chunk.number not in done:
            break
        result = msgspec.json.decode(objects.get(chunk_result_key(job_id, chunk.number)), type=ChunkResult)
        if result.chunk != chunk:
            break
        reached[chunk.channel] = chunk.end
        parts.append(result.segments)
    everywhere = min(reached.values(), default=0.0)
    return [segment for segment in merged(parts) if segment.start < everywhere]
