"""A recording on its way into the store, where the store's answers are lost."""

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.object_writer import MIN_PART_BYTES, ObjectWriter
from storage.errors import StoreUnavailable, UploadMissing
from storage.job import new_job_id
from storage.keys import source_key
from storage.object_store import ObjectStore, Part
from storage.settings import StorageSettings


class LossyStore(ObjectStore):
    """Does what it is asked for, and says that it failed."""

    def put(self, *args: Any, **options: Any) -> None:
        super().put(*args, **options)
        raise StoreUnavailable("the answer was lost")


class RepeatedStore(ObjectStore):
    """A completion's first answer is lost; the second request hears that there is no such upload."""

    completes = True

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        if self.completes:
            super().complete_upload(key, upload_id, parts)
        raise UploadMissing("no such upload")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


async def written(writer: ObjectWriter, *pieces: bytes) -> None:
    try:
        for piece in pieces:
            await writer.write(piece)
        await writer.finish()
    except Exception:  # Whatever it was, as the service does it.
        await writer.abort()
        raise


def test_an_object_whose_put_was_answered_by_nothing_does_not_stay(
    quiet_settings: StorageSettings, threads: ThreadPoolExecutor
) -> None:
    store, key = LossyStore(quiet_settings), source_key(new_job_id())

    with pytest.raises(StoreUnavailable):
        asyncio.run(written(ObjectWriter(store, key, MIN_PART_BYTES, threads), b"sound"))

    assert list(store.list(key)) == []


def test_a_completion_that_was_done_is_not_an_error(
    quiet_settings: StorageSettings, threads: ThreadPoolExecutor
) -> None:
    store, key = RepeatedStore(quiet_settings), source_key(new_job_id())

    asyncio.run(written(ObjectWriter(store, key, MIN_PART_BYTES, threads), b"x" * MIN_PART_BYTES, b"end"))

    assert store.head(key).size == MIN_PART_BYTES + 3


def test_an_upload_that_the_store_lost_leaves_nothing(
    quiet_settings: StorageSettings, threads: ThreadPoolExecutor
) -> None:
    store, key = RepeatedStore(quiet_settings), source_key(new_job_id())
    store.completes = False

    with pytest.raises(UploadMissing):
        asyncio.run(written(ObjectWriter(store, key, MIN_PART_BYTES, threads), b"x" * MIN_PART_BYTES, b"end"))

    assert (list(store.list(key)), list(store.uploads(key))) == ([], [])


def test_a_buffer_takes_no_more_memory_for_coming_in_crumbs(
    quiet_settings: StorageSettings, threads: ThreadPoolExecutor
) -> None:
    writer = ObjectWriter(ObjectStore(quiet_settings), source_key(new_job_id()), MIN_PART_BYTES, threads)

    async def crumbs() -> None:
        for _ in range(200_000):
            await writer.write(b"ab")

    tracemalloc.start()
    asyncio.run(crumbs())
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert writer.size == 400_000
    assert held < 1_000_000


@pytest.mark.parametrize("size", [1, MIN_PART_BYTES - 1, MIN_PART_BYTES, 3 * MIN_PART_BYTES + 7])
def test_the_digest_is_of_all_bytes_in_their_order(
    quiet_store: ObjectStore, threads: ThreadPoolExecutor, size: int
) -> None:
    content, key = os.urandom(size), source_key(new_job_id())
    writer = ObjectWriter(quiet_store, key, MIN_PART_BYTES, threads, hashed=True)

    asyncio.run(written(writer, content[: size // 2], content[size // 2 :]))

    assert writer.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert quiet_store.get(key) == content
