"""A worker process: `python -m actors.worker`. One process, one engine, a few threads that share it.

Dramatiq's own Worker runs here in the main process, without the master and fork of its command line: nothing is
orphaned when it is killed, no model is loaded before a fork, and whoever supervises sees the very process that works.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import dramatiq
import structlog
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage

from actors import messages
from actors.audio.isolated import IsolatedDecoder
from actors.broker import CHUNK_QUEUES, ERRANDS, FETCHES, MAX_RETRIES, make_broker, waiting
from actors.engine import Engine
from actors.errors import DecoderUnavailable, DeviceUnavailable
from actors.fetch import Fetcher
from actors.guard import Guard
from actors.janitor import Janitor
from actors.notify import Notifier
from actors.pipeline import Pipeline
from actors.reuse import EarlierResults
from actors.settings import ActorSettings
from storage import hub, logs
from storage.chunk_store import ChunkStore
from storage.errors import QueueUnavailable, StorageError, StoreUnavailable
from storage.job import Job
from storage.job_store import JobStore, WorkerState
from storage.model_store import ModelStore
from storage.object_store import ObjectStore
from storage.outbox import Outbox
from storage.settings import SettingsError, StorageSettings, read_settings

log = structlog.get_logger()

T = TypeVar("T")

#: How long an idle consumer waits between two looks at its queue; a message waits half of it on average. What goes to
#: others' servers takes longer anyway.
_POLL_MILLISECONDS, _ERRAND_POLL_MILLISECONDS = 50, 250

#: How often a worker says that it lives; JobStore.workers counts those heard of within 20 s.
_ANNOUNCE_SECONDS = 5

#: How often the outbox is looked into: a webhook waits half of it on average.
_DUE_SECONDS = 1


def main() -> int:
    """Work until SIGTERM or SIGINT. Returns the exit status: 0, or 1 with the reason in the log."""
    logs.configure()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        return run(read_settings(StorageSettings), read_settings(ActorSettings), stopping)
    except (SettingsError, DecoderUnavailable, DeviceUnavailable, StorageError) as error:
        log.error("worker cannot start", reason=str(error))
        return 1


def run(storage: StorageSettings, settings: ActorSettings, stopping: threading.Event) -> int:
    objects = ObjectStore(storage)
    jobs = JobStore.connect(storage)
    guard = Guard(storage.allowed_networks)
    engine = Engine(settings, ModelStore(storage, objects, hub.fetch).path)
    log.info("engine checked", sentence=engine.self_check())
    decoder = IsolatedDecoder(settings.decode_memory_bytes, settings.decode_seconds)
    decoder.start()
    if not (_reached(objects.prepare, stopping) and _reached(jobs.check, stopping)):
        return 0
    if not _reached(lambda: engine.load(storage.default_model), stopping):
        return 0

    worker_id = f"{socket.gethostname()}:{os.getpid()}"
    broker = make_broker(storage, settings.worker_threads)
    chunk_broker = make_broker(storage, settings.worker_threads, list(CHUNK_QUEUES.values()))
    fetches = make_broker(storage, settings.fetch_threads, [FETCHES])
    errands = make_broker(storage, settings.errand_threads, [ERRANDS])
    chunks = ChunkStore.connect(storage, jobs)
    earlier = EarlierResults(jobs, objects, storage)
    pipeline = Pipeline(
        jobs,
        chunks,
        objects,
        engine,
        decoder,
        settings,
        worker_id,
        stopping,
        remember=earlier.remember,
        send_job=lambda job: messages.send_next(broker, job),
        send_chunk=lambda job, number: messages.send_chunk(broker, job.job_id, number, job.options.priority),
    )

    def hand_on(job: Job) -> None:
        if not earlier.complete(job):
            messages.send_next(broker, job)

    fetcher = Fetcher(
        jobs,
        objects,
        guard,
        settings,
        storage.max_file_size,
        worker_id,
        stopping,
        send_next=hand_on,
    )
    notifier = Notifier(
        jobs,
        Outbox.connect(storage),
        objects,
        guard,
        send=lambda job_id: messages.send_webhook(broker, job_id),
        waiting=lambda: waiting(errands, ERRANDS),
        link_seconds=storage.link_seconds,
    )

    def last_try() -> bool:
        message = CurrentMessage.get_current_message()
        return message is not None and message.options.get("retries", 0) >= MAX_RETRIES

    messages.declare(broker, lambda job_id: pipeline.advance_job(job_id, last_try=last_try()))
    messages.declare_chunks(
        chunk_broker, lambda job_id, number: pipeline.transcribe_chunk(job_id, number, last_try=last_try())
    )
    messages.declare_fetches(fetches, lambda job_id: fetcher.fetch_source(job_id, last_try=last_try()))
    messages.declare_errands(errands, notifier.post)
    janitor = Janitor(jobs, chunks, objects, broker, storage, settings.lease_seconds)

    def announce() -> None:
        jobs.announce_worker(
            WorkerState(worker_id, engine.device, engine.compute_type, engine.loaded, settings.worker_threads)
        )

    workers = [
        _started(broker, settings.worker_threads, _POLL_MILLISECONDS),
        _started(chunk_broker, settings.worker_threads, _POLL_MILLISECONDS),
        _started(fetches, settings.fetch_threads, _ERRAND_POLL_MILLISECONDS),
        _started(errands, settings.errand_threads, _ERRAND_POLL_MILLISECONDS),
    ]
    _every(_ANNOUNCE_SECONDS, announce, stopping)
    _every(settings.janitor_seconds, janitor.mend, stopping)
    _every(60, janitor.sweep, stopping)
    _every(_DUE_SECONDS, notifier.send_due, stopping)
    log.info("worker ready", worker_id=worker_id, threads=settings.worker_threads, models=engine.loaded)

    stopping.wait()
    # All at once: they share the grace.
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(lambda worker: worker.stop(timeout=settings.shutdown_grace_seconds * 1000), workers))
    try:
        jobs.withdraw_worker(worker_id)
    except QueueUnavailable:
        pass  # It is forgotten for its silence.
    log.info("worker stopped", worker_id=worker_id)
    if any(thread.is_alive() for worker in workers for thread in worker.workers):
        # A window of a large model outlasts the grace. Its job comes back when the lease runs out; the interpreter must
        # not take the engine down under a running thread, which aborts the process.
        sys.stderr.flush()
        os._exit(0)
    engine.close()
    decoder.close()
    return 0


def _started(broker: RedisBroker, threads: int, poll_milliseconds: int) -> dramatiq.Worker:
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=poll_milliseconds)
    # No message waits in a busy worker while another is idle.
    worker.queue_prefetch = threads
    worker.start()
    return worker


def _reached(step: Callable[[], T], stopping: threading.Event) -> bool:
    """Repeat a step until storage answers. False: the worker is to stop."""
    pause = 0.5
    while not stopping.is_set():
        try:
            step()
            return True
        except (StoreUnavailable, QueueUnavailable) as error:
            log.warning("waiting for storage", reason=str(error))
            stopping.wait(pause)
            pause = min(pause * 2, 10)
    return False


def _every(seconds: float, step: Callable[[], None], stopping: threading.Event) -> None:
    """Run a step at once and then at intervals, in a thread of its own, until the worker stops."""

    def loop() -> None:
        while True:
            try:
                step()
            except QueueUnavailable as error:
                log.warning("waiting for Redis", reason=str(error))
            except Exception:  # A worker's edge: one surprise must not end what every job depends on.
                log.exception("step failed", step=step.__qualname__)
            if stopping.wait(seconds):
                return

    threading.Thread(target=loop, name=step.__qualname__, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
