"""The pipeline in real worker processes, with real speech: what goes in, and what comes out."""

import difflib
import itertools
import re
from contextlib import suppress
from pathlib import Path

import jiwer
import numpy as np
import pytest
import srt
import webvtt
from whisper_normalizer.english import EnglishTextNormalizer

from actors.audio.flac import encode_flac
from deploy.embedded.running import Running
from storage.errors import ObjectMissing
from storage.job import new_job_id
from storage.keys import result_key, source_key
from storage.partial import partial_segments
from storage.transcript import Transcript
from tests.actors.conftest import Convert
from tests.actors.world import APART_SECONDS, World
from tests.conftest import Sample
from tests.recordings import joined, samples_of, tone, wav

normalize = EnglishTextNormalizer()


def shifts_of_words(a: Transcript, b: Transcript) -> list[float]:
    """Seconds by which the words that both have begin apart."""
    words_a, words_b = (
        [word for segment in transcript.segments for word in segment.words or []] for transcript in (a, b)
    )
    spelled_a, spelled_b = ([word.word.strip(" .,!?").lower() for word in words] for words in (words_a, words_b))
    return [
        abs(words_a[block.a + at].start - words_b[block.b + at].start)
        for block in difflib.SequenceMatcher(None, spelled_a, spelled_b, autojunk=False).get_matching_blocks()
        for at in range(block.size)
    ]


def test_a_recording_goes_in_and_a_transcript_in_every_format_comes_out(
    world: World, worker: Running, clip: Sample
) -> None:
    job_id = world.submit(clip.path.read_bytes(), timestamp_granularity="word")

    job = world.finished(job_id)

    transcript = world.transcript(job_id)
    assert job.status == "completed", job.error
    assert job.progress == 100
    assert jiwer.wer(normalize(clip.text), normalize(transcript.text)) < 0.2
    assert transcript.language == "en"
    assert job.duration == pytest.approx(transcript.duration, abs=0.01)
    assert all(segment.words for segment in transcript.segments)
    sizes = {name: len(world.objects.get(result_key(job_id, name))) for name in ("json", "text", "srt", "vtt", "tsv")}
    assert job.files == sizes
    cues = list(srt.parse(world.objects.get(result_key(job_id, "srt")).decode(), ignore_errors=False))
    assert " ".join(cue.content for cue in cues) == " ".join(segment.text.strip() for segment in transcript.segments)
    captions = webvtt.from_string(world.objects.get(result_key(job_id, "vtt")).decode())
    assert len(captions) == len(cues)


def test_the_text_so_far_is_read_in_order_and_without_gaps_while_the_job_runs(
    world: World, worker: Running, long_recording: bytes
) -> None:
    job_id = world.submit(long_recording)
    world.until(job_id, lambda job: job.progress > 0 and 0 in world.chunks.done(job_id))
    seen = []
    while world.jobs.get(job_id).status == "processing":
        with suppress(ObjectMissing):  # It was completed in this moment.
            seen.append(partial_segments(job_id, world.jobs, world.chunks, world.objects))
    final = world.transcript(job_id).segments

    assert seen
    assert seen[0]
    for earlier, later in itertools.pairwise(seen):
        assert later[: len(earlier)] == earlier
    assert final[: len(seen[-1])] == seen[-1]


def test_separate_channels_are_transcribed_each_and_merged_in_the_order_of_time(
    world: World, worker: Running, speech: dict[str, list[Sample]]
) -> None:
    caller, callee = (samples_of(sample) for sample in speech["en"][1:3])
    silence = np.zeros_like
    left = np.concatenate([caller, silence(callee), caller])
    right = np.concatenate([silence(caller), callee, silence(caller)])

    job_id = world.submit(wav(np.stack([left, right])), channels="separate")
    job = world.finished(job_id)

    segments = world.transcript(job_id).segments
    assert job.status == "completed", job.error
    assert [channel for channel, _ in itertools.groupby(segment.channel for segment in segments)] == [0, 1, 0]
    assert [segment.start for segment in segments] == sorted(segment.start for segment in segments)


def test_a_recording_that_breaks_off_is_transcribed_as_far_as_it_goes_with_a_warning(
    world: World, worker: Running, clip: Sample
) -> None:
    whole = encode_flac(samples_of(clip))

    job = world.finished(world.submit(whole[: len(whole) // 2]))

    assert job.status == "completed"
    assert any("breaks off after 1." in warning for warning in job.warnings)


def test_a_transcript_that_cannot_be_read_is_replaced(world: World, worker: Running, clip: Sample) -> None:
    job_id, recording = new_job_id(), clip.path.read_bytes()
    world.objects.put(source_key(job_id), recording, "audio/wav")
    world.objects.put(result_key(job_id, "json"), b'{"text": "\xff', "application/json")

    job = world.finished(world.enqueue(job_id, len(recording)))

    assert (job.status, job.attempts) == ("completed", 1)
    assert world.transcript(job_id).text


@pytest.mark.parametrize("ending", ["wav", "mp3"])
def test_a_tenth_of_a_second_is_transcribed_to_nothing(
    ending: str, world: World, worker: Running, convert: Convert
) -> None:
    job_id = world.submit(convert(wav(tone(0.1)), ending))

    job = world.finished(job_id)

    assert (job.status, job.warnings) == ("completed", [])
    assert world.transcript(job_id).segments == []
    assert job.duration == pytest.approx(0.1, abs=0.03)


def test_a_recording_without_a_length_is_refused_where_it_passes_the_limit_and_its_chunks_are_swept(
    world: World, long_recording: bytes, clip: Sample, convert: Convert
) -> None:
    streamed = convert(long_recording, "mkv", "-c:a", "flac", "-live", "1")
    running = world.worker(MAX_DURATION="100")

    job_id = world.submit(streamed)
    job = world.finished(job_id)
    next_job = world.finished(world.submit(clip.path.read_bytes()))
    running.stop()

    assert (job.status, job.error_code, job.attempts) == ("failed", "audio_too_long", 1)
    assert re.fullmatch(r"the recording lasts at least 100\.\d s, the limit is 100 s", job.error or "")
    assert len(world.chunks.chunks(job_id)) > 2
    assert world.chunk_objects(job_id) == world.results(job_id) == []
    assert next_job.status == "completed"


def test_a_bad_file_fails_its_job_with_a_sentence_and_is_not_tried_again(world: World, worker: Running) -> None:
    bad = world.submit(b"This is a letter, not a recording. " * 50)
    missing = world.enqueue(new_job_id(), 10)

    failed, lost = world.finished(bad), world.finished(missing)

    assert (failed.status, failed.error_code, failed.attempts) == ("failed", "audio_unreadable", 1)
    assert (lost.status, lost.error_code, lost.attempts) == ("failed", "object_not_found", 1)
    assert failed.error
    assert world.results(bad) == []


def test_a_cancel_takes_effect_between_segments_and_leaves_no_results(
    world: World, worker: Running, long_recording: bytes, clip: Sample
) -> None:
    job_id = world.submit(long_recording)
    world.until(job_id, lambda job: job.progress > 0)

    world.jobs.cancel(job_id)
    next_job = world.finished(world.submit(clip.path.read_bytes()))

    assert next_job.status == "completed"
    assert world.jobs.get(job_id).status == "cancelled"
    assert world.results(job_id) == []


def test_a_long_recording_is_cut_and_its_words_stand_where_they_stood_uncut(
    world: World, speech: dict[str, list[Sample]]
) -> None:
    # Without the one that counts: "1-2-3" or "one, two, three" is Whisper's choice.
    sentences = [sample for sample in speech["en"] if "two" not in sample.text.lower()]
    recording = wav(joined(sentences, seconds=100, gap_seconds=APART_SECONDS))
    wanted: dict[str, object] = {"timestamp_granularity": "word", "segment_details": True}
    cutting = world.worker(CHUNK_TARGET_SECONDS="15", CHUNK_MAX_SECONDS="25")
    cut = world.submit(recording, **wanted)
    in_pieces = world.finished(cut)
    cutting.stop()
    whole_worker = world.worker(CHUNK_TARGET_SECONDS="600", CHUNK_MAX_SECONDS="900")
    whole = world.submit(recording, **wanted)
    in_one = world.finished(whole)
    whole_worker.stop()

    a, b = world.transcript(cut), world.transcript(whole)
    assert (in_pieces.status, in_one.status) == ("completed", "completed")
    assert in_pieces.phase == "cut"
    assert in_one.phase is None
    assert in_pieces.duration == in_one.duration == pytest.approx(len(recording) / 32000, abs=0.1)
    assert [segment.id for segment in a.segments] == list(range(len(a.segments)))
    # A window that begins elsewhere may be heard otherwise by a word, and its neighbour be moved.
    assert jiwer.wer(normalize(b.text), normalize(a.text)) < 0.1
    assert np.quantile(shifts_of_words(a, b), 0.9) <= 0.05
    assert max(shifts_of_words(a, b)) <= 0.5
    # Also where a segment's window begins is told in the recording's time, and windows last 30 s at most.
    seeks = [(segment.details.seek / 100 if segment.details else -1) for segment in a.segments]
    assert all(-0.02 <= segment.start - seek <= 30 for segment, seek in zip(a.segments, seeks, strict=True))
    assert world.chunk_objects(cut) == []


def test_a_worker_makes_no_temporary_file(world: World, clip: Sample, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    made = folder.stat().st_mtime_ns
    running = world.worker(TMPDIR=str(folder))

    job = world.finished(world.submit(clip.path.read_bytes()))
    running.stop()

    assert job.status == "completed"
    # Nothing is there, and nothing was made and removed again: either would have changed the folder's own time.
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mtime_ns == made
