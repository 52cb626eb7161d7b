"""How long a short clip waits behind a long recording, with one worker."""

import time
from datetime import datetime

from scripts.benchmarks import recordings
from scripts.benchmarks.benchmark import Bench, BenchmarkFailed, listed, median_of
from scripts.benchmarks.chunks import ChunkWatch
from scripts.benchmarks.client import Client, Content, submit, wait_final
from scripts.benchmarks.running import running_stack
from scripts.benchmarks.speech import mixture, voices, write


def run(bench: Bench) -> dict[str, float]:
    speech = voices(bench)
    hour = write(bench.folder / "hour.flac", [mixture(speech, 240 if bench.quick else 3600).recording.samples])
    clips = [
        Content.of(write(bench.folder / f"{seed}.wav", [recordings.join("clip", speech.short, 3.0, seed).samples]))
        for seed in range(1 if bench.quick else 10)
    ]
    # Only so that a quick run sees chunks at all.
    settings = {"CHUNK_TARGET_SECONDS": "15", "CHUNK_MAX_SECONDS": "30"} if bench.quick else {}
    with running_stack(bench.folder / "stack", settings) as stack:
        client = Client(stack.plan.api)
        bench.say(f"{stack.plan.storage.default_model}, ENGINE={stack.plan.actors.engine}, one worker")
        wait_final(client, submit(client, clips[0], language="en"))
        long_job = submit(client, Content.of(hour), language="en")
        waits, answers = [], []
        with ChunkWatch(stack, long_job) as watch:
            for clip in clips:
                watch.wait_for_claims(len(watch.claims) + 2)
                job_id = submit(client, clip, language="en")
                accepted = time.time()
                job = wait_final(client, job_id)
                waits.append(max(0.0, _seconds(job["started_at"]) - accepted))
                answers.append(_seconds(job["completed_at"]) - accepted)
            watch.wait("a chunk was finished", lambda: bool(watch.seconds()))
            if client.get(f"/api/v1/status/{long_job}").expect(200).json()["status"] != "processing":
                raise BenchmarkFailed("the long recording was done before the clips were")
            chunk = median_of(watch.seconds())
        client.send("POST", f"/api/v1/jobs/{long_job}/cancel")
    bench.say(f"waits: {listed(waits, 's')}; to the transcript: {listed(answers, 's')}; a chunk takes {chunk:.1f} s")
    return {
        "wait_seconds": median_of(waits),
        "wait_seconds_most": max(waits),
        "wait_chunks": max(waits) / chunk,
        "transcript_seconds": median_of(answers),
        "chunk_seconds": chunk,
    }


def _seconds(time_stamp: str) -> float:
    return datetime.fromisoformat(time_stamp).timestamp()
