"""Text that nobody said, word errors by language, phrases said again and again: both engines, through the service."""

import os
from pathlib import Path

import numpy as np

from actors.audio.decode import SAMPLE_RATE
from scripts.benchmarks import recordings
from scripts.benchmarks.benchmark import Bench
from scripts.benchmarks.client import Client, Content, submit, wait_final
from scripts.benchmarks.recordings import Recording
from scripts.benchmarks.running import RunningStack, running_stack
from scripts.benchmarks.speech import language_samples, mixture, voices, write
from scripts.benchmarks.words import WordErrors, repeated_phrases, summed, word_errors

_ENGINES = ("windowed", "sequential")


def run(bench: Bench) -> dict[str, float]:
    quiet_seconds, language_seconds, long_seconds = (10, 10, 10) if bench.quick else (600, 180, 1200)
    speech = voices(bench)
    quiet = {name: _flac(bench.folder, name, made) for name, made in _without_speech(quiet_seconds).items()}
    samples = language_samples(bench, speech, language_seconds)
    if (os.environ.get("DEFAULT_MODEL") or "").endswith(".en"):
        bench.say("the model knows English only: no other language is measured")
        samples = [sample for sample in samples if sample.language == "en"]
    spoken = {sample.name: _flac(bench.folder, sample.name, sample.samples) for sample in samples}
    long = mixture(speech, long_seconds).recording
    long_content = _flac(bench.folder, "long", long.samples)
    figures: dict[str, float] = {"words_from_silence_and_noise": 0, "repeats": 0}
    errors: dict[str, WordErrors] = {}
    for engine in _ENGINES:
        with running_stack(bench.folder / engine, {"ENGINE": engine}) as stack:
            bench.say(f"{engine}, {stack.plan.storage.default_model}")
            invented = _texts(stack, quiet)
            heard = _texts(stack, spoken, by_language=samples)
            repeats = repeated_phrases(long.text, _texts(stack, {"long": long_content})["long"])
        for name, text in invented.items():
            figures["words_from_silence_and_noise"] += len(text.split())
            if text:
                bench.say(f"{engine} on {name}: {text[:80]!r}")
        for phrase in repeats:
            bench.say(f"{engine} repeats: {phrase[:80]!r}")
        figures["repeats"] += len(repeats)
        counted = {sample.name: word_errors(sample.text, heard[sample.name], sample.language) for sample in samples}
        figures |= {f"wer_{language}_{engine}": wrong.percent for language, wrong in counted.items()}
        errors[engine] = summed(counted.values())
    points = errors["windowed"].percent - errors["sequential"].percent
    return {**figures, "wer_points_windowed_over_sequential": points}


def _without_speech(seconds: float) -> dict[str, np.ndarray]:
    return {
        "silence": np.zeros(round(seconds * SAMPLE_RATE), np.float32),
        "white noise": recordings.white(seconds),
        "brown noise": recordings.brown(seconds),
        "tones": recordings.tones(seconds),
        "chords": recordings.chords(seconds),
    }


def _flac(folder: Path, name: str, samples: np.ndarray) -> Content:
    return Content.of(write(folder / f"{name.replace(' ', '-')}.flac", [samples]))


def _texts(
    stack: RunningStack, contents: dict[str, Content], by_language: list[Recording] | None = None
) -> dict[str, str]:
    """What is heard, by name. The language is told where it is known: a wrong guess would be all that is measured."""
    client = Client(stack.plan.api)
    languages = {sample.name: sample.language for sample in by_language or []}
    jobs = {
        name: submit(client, content, **({"language": languages[name]} if name in languages else {}))
        for name, content in contents.items()
    }
    return {name: str(wait_final(client, job_id)["result"]["text"]) for name, job_id in jobs.items()}
