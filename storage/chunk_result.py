"""What is said in a chunk, as an object that says of what it is the result: the checkpoint of a long job."""

import msgspec

from storage.chunk_store import Chunk
from storage.errors import ObjectExists, ObjectMissing
from storage.job import Options
from storage.keys import chunk_result_key
from storage.object_store import ObjectStore
from storage.structs import decode
from storage.transcript import Segment


class ChunkResult(msgspec.Struct, frozen=True):
    chunk: Chunk
    #: As it was done: with the language that was found, and the engine that did it.
    options: Options
    #: In the recording's times.
    segments: list[Segment]


def stored_result(job_id: str, chunk: Chunk, objects: ObjectStore) -> ChunkResult | None:
    """The chunk's result; None: there is none, or it is of another stretch, from another cut of the recording."""
    try:
        result = decode(objects.get(chunk_result_key(job_id, chunk.number)), ChunkResult)
    except (ObjectMissing, msgspec.DecodeError):
        return None  # What cannot be read is of another version.
    return result if result.chunk == chunk else None


def store_result(job_id: str, result: ChunkResult, objects: ObjectStore) -> None:
    """Of two of the same chunk with the same options the first one stays; any other is replaced."""
    key, body = chunk_result_key(job_id, result.chunk.number), msgspec.json.encode(result)
    try:
        objects.put(key, body, "application/json", if_absent=True)
    except ObjectExists:
        there = stored_result(job_id, result.chunk, objects)
        if there is None or there.options != result.options:
            objects.put(key, body, "application/json")
