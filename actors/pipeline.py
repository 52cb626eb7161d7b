"""A recording's way: cut → transcribe its chunks → assemble. Everything may run twice and be broken off anywhere.

One worker cuts: it reads the object once, and each stretch of speech that is cut off is stored and announced while the
rest is still being read. Any worker transcribes a chunk; its result object is the checkpoint. Whoever finishes the last
one asks for the assembly. A recording shorter than one chunk takes the short cut: the same, without chunk objects.

Who cuts or assembles holds the job, and who transcribes a chunk holds the chunk, by lease and token; what is written
after losing them is refused, and storage/risk.py says which deaths of workers count. Results are stored first and never
overwritten: whoever comes later, a second delivery or a worker that was frozen, finds them and goes on from there. The
change of the record to completed is the commit point and comes last.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing

import msgspec
import numpy as np
import structlog

from actors import formats
from actors.audio.decode import SAMPLE_RATE, DecodeOptions, Source
from actors.audio.decode import decode as decode_audio
from actors.audio.flac import encode_flac
from actors.audio.isolated import IsolatedDecoder
from actors.beside import put_beside
from actors.cut import Piece, Reading, not_reached, with_short_start
from actors.detect import detect_language
from actors.engine import Engine
from actors.hand import Hand
from actors.layout import layout_of
from actors.lease import Lease, Stopping
from actors.levels import store_levels, stored_levels
from actors.outcome import Later, carry_out, carry_out_job
from actors.result import Result
from actors.settings import ActorSettings
from actors.telling import Telling
from actors.voice import VoiceActivity
from storage.chunk_result import ChunkResult, store_result, stored_result
from storage.chunk_store import Chunk, ChunkClaim, ChunkStore
from storage.errors import (
    JobConflict,
    JobMissing,
    ObjectExists,
    ObjectMissing,
)
from storage.inbox import known_etag
from storage.job import Job, Options
from storage.job_store import Claim, JobStore
from storage.keys import chunk_key, result_key
from storage.notes import note_warnings
from storage.object_store import ObjectStore
from storage.range_reader import RangeReader
from storage.removal import sweep_if_unwanted
from storage.risk import Risk
from storage.structs import decode
from storage.transcript import Segment, Transcript, merged, shifted

log = structlog.get_logger()


class Pipeline:
    def __init__(
        self,
        jobs: JobStore,
        chunks: ChunkStore,
        objects: ObjectStore,
        engine: Engine,
        decoder: IsolatedDecoder,
        settings: ActorSettings,
        worker_id: str,
        stopping: threading.Event,
        send_chunk: Callable[[Job, int], None],
        send_job: Callable[[Job], None],
        remember: Callable[[Job], None],
    ) -> None:
        """`send_chunk` and `send_job` put the message of a chunk, or of a job's next step, into the queue.

        `remember` hears of each job that is completed.
        """
        self._jobs = jobs
        self._chunks = chunks
        self._objects = objects
        self._engine = engine
        self._decoder = decoder
        self._settings = settings
        self._worker_id = worker_id
        self._stopping = stopping
        self._hand = Hand(stopping)
        self._send_chunk = send_chunk
        self._send_job = send_job
        self._remember = remember

    def advance_job(self, job_id: str, *, last_try: bool) -> None:
        """Do the job's next step: cut it, or assemble it when every chunk is done.

        Returns when there is nothing more to do here: done, failed for good, handed back because the worker stops, or
        not this worker's.

        Raises:
            one of outcome.OUTAGES: handed back, worth another try; not raised on the last try, which fails the job.
        """
        carry_out_job(
            job_id,
            self._step,
            self._jobs,
            self._objects,
            self._settings,
            self._worker_id,
            self._stopping,
            send_again=self._send_job,
            last_try=last_try,
            hand=self._hand,
        )

    def transcribe_chunk(self, job_id: str, number: int, *, last_try: bool) -> None:
        """Transcribe one chunk of a job. Returns and raises as `advance_job`."""
        seconds, most = self._settings.lease_seconds, self._settings.max_job_attempts

        def claim_chunk(risk: Risk) -> ChunkClaim:
            return self._chunks.claim(job_id, number, seconds, most, risk)

        with ExitStack() as held:
            try:
                claim = held.enter_context(self._hand.holding(f"{job_id}/{number}", claim_chunk))
            except (JobMissing, JobConflict) as reason:
                log.info("chunk not taken", job_id=job_id, chunk=number, reason=str(reason))
                sweep_if_unwanted(job_id, self._jobs, self._objects)
                return
            except Stopping:
                raise Later("the worker stops", delay=0) from None
            lease = Lease(lambda progress: self._chunks.beat(claim, seconds), seconds, self._stopping)
            carry_out(
                job_id,
                lambda: self._chunk(claim, lease),
                lease,
                self._jobs,
                self._objects,
                fail=lambda code, message: self._chunks.fail(claim, code, message),
                hand_back=lambda: self._chunks.release(claim),
                send_again=lambda: self._send_chunk(claim.job, number),
                last_try=last_try,
            )

    # The steps

    def _step(self, claim: Claim, lease: Lease) -> None:
        log.info("job started", job_id=claim.job.job_id, attempt=claim.job.attempts, size=claim.job.source.size)
        if claim.job.phase == "cut":
            self._assemble(claim, lease)
        elif claim.job.options.task == "detect_language":
            self._detect(claim, lease)
        else:
            self._cut(claim, lease)

    def _detect(self, claim: Claim, lease: Lease) -> None:
        """Hear the beginning of the recording, no more."""

        def decoded(recording: Source) -> Iterator[np.ndarray]:
            options = DecodeOptions(max_channels=self._settings.max_channels, audio_track=claim.job.options.audio_track)
            return self._decoder.decode_channels(recording, options, check=lease.check)

        language, probability, heard = detect_language(claim.job, self._objects, self._engine, lease.check, decoded)
        self._write(claim, self._transcript(claim.job, language, probability, heard, []), [])

    def _cut(self, claim: Claim, lease: Lease) -> None:
        """Read the recording once; announce its chunks, or transcribe it here if it is no longer than one."""
        job = claim.job
        warnings: list[str] = []
        known = self._chunks.chunks(job.job_id)
        reached = {chunk.channel: round(chunk.end * SAMPLE_RATE) for chunk in known}
        number = len(known)
        with (
            self._objects.open(job.source.key, known_etag(job.source)) as recording,
            closing(self._blocks(job, recording, lease, warnings)) as blocks,
        ):
            target, most = self._settings.chunk_target_seconds, self._settings.chunk_max_seconds
            reading = Reading(blocks, lambda: VoiceActivity().listen, target, most)
            for piece in reading.pieces():
                facts = {"length_estimate": str(reading.seconds * job.source.size / max(recording.tell(), 1))}
                parts = [piece]
                if number == 0:
                    language, probability = self._engine.detect_language(piece.samples, job.options)
                    facts |= {"language": language, "language_probability": str(probability)}
                    facts["channels"] = str(reading.channels)
                    parts = with_short_start(piece)
                for part in not_reached(parts, reached):
                    self._announce(claim, number, part, **facts)
                    number += 1
        rest = reading.rest()
        if number == 0:
            self._finish_here(claim, lease, rest, reading, warnings)
            return
        for following, piece in enumerate(not_reached(rest, reached), number):
            self._announce(claim, following, piece)
        store_levels(job.job_id, reading.levels, self._objects)
        facts = {"duration": str(round(reading.seconds, 3)), "warnings": msgspec.json.encode(warnings).decode()}
        log.info(
            "recording cut",
            job_id=job.job_id,
            duration=round(reading.seconds, 1),
            fetched_bytes=recording.fetched_bytes,
            requests=recording.requests,
        )
        if self._chunks.finish_cut(job.job_id, claim.token, **facts):
            self._send_job(job)

    def _blocks(
        self, job: Job, recording: RangeReader, lease: Lease, warnings: list[str]
    ) -> Generator[np.ndarray, None, None]:
        """The recording's samples as they are decoded; given up when the job is not this worker's any more."""
        options = DecodeOptions(
            max_seconds=self._settings.max_duration,
            max_channels=self._settings.max_channels,
            separate=job.options.channels == "separate",
            audio_track=job.options.audio_track,
        )
        for block in self._decoder.decode_channels(recording, options, warnings, lease.check):
            lease.check()
            yield block

    def _announce(self, claim: Claim, number: int, piece: Piece, **facts: str) -> None:
        """Store a chunk, then say that it is there."""
        job = claim.job
        self._objects.put(chunk_key(job.job_id, number), encode_flac(piece.samples), "audio/flac")
        start, end = piece.begin / SAMPLE_RATE, piece.end / SAMPLE_RATE
        chunk = Chunk(number, start, end, piece.share, piece.channel)
        for ready in self._chunks.announce(job.job_id, claim.token, chunk, self._parallel(), **facts):
            self._send_chunk(job, ready)

    def _finish_here(
        self, claim: Claim, lease: Lease, pieces: Sequence[Piece], reading: Reading, warnings: list[str]
    ) -> None:
        """The short cut: transcribe what is in memory, no more than a chunk (a channel), and write it."""
        job, duration = claim.job, reading.seconds
        transcript = self._stored(job)
        if transcript is None:
            options, probability = job.options, 0.0
            telling = None if job.options.channels == "separate" else Telling(self._jobs, claim)
            if telling is not None and telling.segments:
                options = msgspec.structs.replace(options, language=job.language)
                probability = job.language_probability or 0.0

            def tell(segment: Segment) -> None:
                lease.progress = min(99.0, 100 * segment.end / duration)
                if telling is not None:
                    telling.add(segment, result.language, result.language_probability)

            found: list[list[Segment]] = []
            for piece in pieces:
                result = self._engine.transcribe(piece.samples, options)
                if not probability and result.language_probability:
                    # The language is heard together with the first words, and is the other channels' too.
                    options = msgspec.structs.replace(options, language=result.language)
                    probability = result.language_probability
                found.append(_said(result, piece.begin / SAMPLE_RATE, piece.channel, lease, tell))
            if telling is not None:
                telling.finish()
                found = [telling.segments]
            language = options.language or "en"
            transcript = self._transcript(job, language, probability, duration, merged(found))
        self._write(claim, transcript, [*warnings, *reading.levels.warnings(transcript.segments)])

    def _chunk(self, claim: ChunkClaim, lease: Lease) -> None:
        """Transcribe a chunk, unless its result is stored: by a worker that died then, or before Redis was lost."""
        job, chunk = claim.job, claim.chunk
        result = stored_result(job.job_id, chunk, self._objects)
        adopted = result is not None and result.options == self._chunk_options(job)
        if not adopted:
            self._result(job, chunk, lease)
        last, ready = self._chunks.finish(claim, self._parallel())
        log.info("chunk finished", job_id=job.job_id, chunk=chunk.number, adopted=adopted)
        for number in ready:
            self._send_chunk(job, number)
        if last:
            self._send_job(job)

    def _result(self, job: Job, chunk: Chunk, lease: Lease) -> ChunkResult:
        """Transcribe a chunk and store what is said in it."""
        with self._objects.open(chunk_key(job.job_id, chunk.number)) as recording:
            samples = np.concatenate(list(decode_audio(recording)))
        options = self._chunk_options(job)
        segments = _said(self._engine.transcribe(samples, options), chunk.start, chunk.channel, lease)
        result = ChunkResult(chunk, options, segments)
        store_result(job.job_id, result, self._objects)
        return result

    def _chunk_options(self, job: Job) -> Options:
        """With what was found or is the worker's choice filled in: a result that was made otherwise is not taken."""
        engine = job.options.engine or self._settings.engine
        return msgspec.structs.replace(job.options, language=job.language, engine=engine)

    def _assemble(self, claim: Claim, lease: Lease) -> None:
        """Every chunk is done: make one transcript of their results. Asked for too early, nothing is done."""
        job = claim.job
        chunks = self._chunks.chunks(job.job_id)
        if {chunk.number for chunk in chunks} != self._chunks.done(job.job_id):
            self._jobs.release(job.job_id, claim.token)
            return
        transcript = self._stored(job)
        if transcript is None:
            found = []
            for chunk in chunks:
                lease.check()
                # It is missing only where a worker of an earlier cut, frozen since then, has put its own there.
                result = stored_result(job.job_id, chunk, self._objects) or self._result(job, chunk, lease)
                found.append(result.segments)
            language, probability = job.language or "en", job.language_probability or 0.0
            transcript = self._transcript(job, language, probability, job.duration or 0.0, merged(found))
        levels = stored_levels(job.job_id, self._objects)
        self._write(claim, transcript, [*job.warnings, *levels.warnings(transcript.segments)])
        self._objects.delete_prefix(f"chunks/{job.job_id}/")
        self._chunks.forget(job.job_id)

    def _transcript(
        self, job: Job, language: str, probability: float, duration: float, segments: list[Segment]
    ) -> Transcript:
        return Transcript(
            text="".join(segment.text for segment in segments).strip(),
            language=language,
            language_probability=round(probability, 4),
            duration=round(duration, 3),
            processing_time=round(time.time() - (job.started_at or time.time()), 3),
            segments=segments,
        )

    def _stored(self, job: Job) -> Transcript | None:
        """The transcript that an earlier attempt stored before it died, if any."""
        return self._read_transcript(job) if job.attempts >= 2 else None

    def _read_transcript(self, job: Job) -> Transcript | None:
        """None: it is not there, or it cannot be read and is made again."""
        try:
            return decode(self._objects.get(result_key(job.job_id, "json")), Transcript)
        except (ObjectMissing, msgspec.DecodeError):
            return None

    def _write(self, claim: Claim, transcript: Transcript, warnings: Sequence[str]) -> None:
        """Store every format, JSON first; then the job is completed."""
        job, key = claim.job, result_key(claim.job.job_id, "json")
        json = formats.FORMATS["json"].media_type
        try:
            self._objects.put(key, formats.render(transcript, "json"), json, if_absent=True)
        except ObjectExists:
            stored = self._read_transcript(job)
            if stored is None:
                self._objects.put(key, formats.render(transcript, "json"), json)
            transcript = stored or transcript
        files = {}
        for name, kind in formats.FORMATS.items():
            body = formats.render(transcript, name, layout_of(job.options))
            if name != "json":
                self._objects.put(result_key(job.job_id, name), body, kind.media_type)
            files[name] = len(body)
        warnings = [*warnings, *put_beside(job, transcript.language, self._objects)]
        if warnings:
            note_warnings(job.job_id, warnings, self._objects)
        self._jobs.complete(job.job_id, claim.token, files, transcript.duration, warnings)
        seconds = transcript.processing_time
        if job.options.task != "detect_language":
            self._jobs.record_work(job.source.size, seconds)
        self._remember(job)
        log.info("job finished", job_id=job.job_id, seconds=seconds, duration=transcript.duration)

    def _parallel(self) -> int:
        """Chunks of one job on their way at once."""
        workers = self._settings.job_parallel_chunks or sum(worker.threads for worker in self._jobs.workers())
        return max(1, workers)


def _said(
    result: Result,
    start: float,
    channel: int | None,
    lease: Lease,
    tell: Callable[[Segment], None] = lambda segment: None,
) -> list[Segment]:
    """What is said in a stretch of a recording that begins at `start` seconds, in the recording's times."""
    segments = []
    for heard in result.segments:
        segments.append(shifted(heard, start, channel))
        tell(segments[-1])
        lease.check()
    return segments
