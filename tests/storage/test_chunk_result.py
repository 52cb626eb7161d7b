"""Results of chunks in a real store: what is taken for one, and which of two stays."""

from typing import Any

import msgspec

from storage.chunk_result import ChunkResult, store_result, stored_result
from storage.chunk_store import Chunk
from storage.job import Options, new_job_id
from storage.keys import chunk_result_key
from storage.object_store import ObjectStore
from storage.transcript import Segment

CHUNK = Chunk(3, 60.5, 91.25, 30.75)
GERMAN = Options(model="base", language="de", engine="windowed")


def said(text: str, chunk: Chunk = CHUNK, options: Options = GERMAN) -> ChunkResult:
    return ChunkResult(chunk, options, [Segment(0, chunk.start, chunk.end, text, 0.9)])


def test_a_result_comes_back_for_its_own_stretch_and_for_no_other(object_store: ObjectStore) -> None:
    job_id, result = new_job_id(), said("Guten Tag.")
    others: list[dict[str, Any]] = [{"end": 90.0}, {"start": 60.0}, {"channel": 0}, {"number": 4}]

    store_result(job_id, result, object_store)

    assert stored_result(job_id, CHUNK, object_store) == result
    for other in others:
        assert stored_result(job_id, msgspec.structs.replace(CHUNK, **other), object_store) is None


def test_the_first_result_of_a_chunk_stays(object_store: ObjectStore) -> None:
    job_id = new_job_id()

    store_result(job_id, said("first"), object_store)
    store_result(job_id, said("second"), object_store)

    assert stored_result(job_id, CHUNK, object_store) == said("first")


def test_a_result_of_another_cut_language_engine_or_version_is_replaced(object_store: ObjectStore) -> None:
    job_id = new_job_id()
    stale = [
        msgspec.json.encode(said("stale", chunk=msgspec.structs.replace(CHUNK, end=90.0))),
        msgspec.json.encode(said("stale", options=msgspec.structs.replace(GERMAN, language="nl"))),
        msgspec.json.encode(said("stale", options=msgspec.structs.replace(GERMAN, engine="sequential"))),
        b"[]",
        b"",
    ]

    for body in stale:
        object_store.put(chunk_result_key(job_id, CHUNK.number), body, "application/json")
        store_result(job_id, said("new"), object_store)

        assert stored_result(job_id, CHUNK, object_store) == said("new")
