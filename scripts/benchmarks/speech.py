"""What the benchmarks transcribe, as files: made of the clips of recordings.py that nothing was tuned on.

Clips come from the folder SPEECH_DIR (data/speech of the checkout), into which Debian packages are unpacked when a full
run finds it empty. Where they cannot be had, and in quick runs without them, the wheel's few clips serve.
"""

import os
import random
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import imageio_ffmpeg
import msgspec
import numpy as np

from actors.audio.decode import SAMPLE_RATE
from deploy.environment import ROOT
from scripts.benchmarks import recordings
from scripts.benchmarks.benchmark import Bench, BenchmarkFailed
from scripts.benchmarks.recordings import Clip, Recording

#: Languages of the wheel that have no prompts.
WHEEL_LANGUAGES = ("hi", "ja", "pl", "pt", "zh")
_FLITE_SENTENCES = 40
#: Between two parts of a long recording, in seconds.
_PAUSE_SECONDS = 1.0
_SEED = 50


class Voices(msgspec.Struct, frozen=True):
    """English clips, of the half that is reported on."""

    #: None: only the wheel.
    folder: Path | None
    #: Prompts and single sentences by people.
    short: list[Clip]
    #: Long sentences by two synthetic voices; none where there are no packages.
    read: list[list[Clip]]


class Mixture(msgspec.Struct, frozen=True):
    """A long recording of many kinds of speech."""

    recording: Recording
    #: Name, start and end in seconds, what is said.
    parts: list[tuple[str, float, float, str]]


def voices(bench: Bench) -> Voices:
    folder = recordings.fetch(Path(os.environ.get("SPEECH_DIR") or ROOT / "data/speech"), download=not bench.quick)
    wheel = recordings.wheel_clips("en")
    if folder is None:
        bench.say(f"the Debian packages of speech are not at hand: English is {len(wheel)} clips, again and again")
        return Voices(None, wheel, [])
    short = held_out([*recordings.prompts(folder, "en"), *recordings.librivox(folder), *wheel])
    # The even ones were tuned on.
    sentences = recordings.sentences()[1::2]
    read = [
        recordings.flite(folder, voice, sentences[number :: len(recordings.FLITE_VOICES)][:_FLITE_SENTENCES])
        for number, voice in enumerate(recordings.FLITE_VOICES)
    ]
    return Voices(folder, short, read)


def held_out(clips: Iterable[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.half == "report"]


def mixture(speech: Voices, seconds: float) -> Mixture:
    """Single sentences, reading, conversations, noise and a bare room, of about `seconds` altogether."""
    short = speech.short
    shares: list[tuple[str, float, Callable[[float], Recording]]] = [
        ("sentences", 0.15, lambda length: recordings.join("sentences", short, length, _SEED)),
        ("reading", 0.14, lambda length: recordings.join("reading", short, length, _SEED + 1, (0.1, 0.3))),
        ("conversation", 0.17, lambda length: _conversation(speech, length)),
    ]
    for number, clips in enumerate(speech.read):
        shares.append((f"synthetic_{number}", 0.12, _reader(clips, _SEED + 2 + number)))
    for name, spoil in _spoilers(speech).items():
        shares.append((name, 0.06, _spoilt(short, spoil)))
    total = sum(share for _, share, _ in shares)
    pause = np.zeros(round(_PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    samples: list[np.ndarray] = []
    parts: list[tuple[str, float, float, str]] = []
    start = 0.0
    for name, share, make in shares:
        part = make(seconds * share / total)
        samples += [part.samples, pause]
        parts.append((name, start, start + part.seconds, part.text))
        start += part.seconds + _PAUSE_SECONDS
    text = " ".join(text for *_, text in parts)
    return Mixture(Recording("mixture", "en", text, np.concatenate(samples)), parts)


def language_samples(bench: Bench, speech: Voices, seconds: float) -> list[Recording]:
    """One recording a language: prompts and the wheel's clips, of some languages only the wheel's."""
    samples = [recordings.join("en", speech.short, seconds, _SEED)]
    for language in ("es",) if bench.quick else ("es", "fr", "it", "ru"):
        clips = [] if language == "ru" else recordings.wheel_clips(language)
        if speech.folder is not None:
            clips = held_out([*recordings.prompts(speech.folder, language), *clips])
        if clips:
            samples.append(recordings.join(language, clips, seconds, _SEED))
    if not bench.quick:
        # Three clips: said oftener, they tell no more.
        samples += [
            recordings.join(language, recordings.wheel_clips(language), min(seconds, 30), _SEED, (0.3, 1.5))
            for language in WHEEL_LANGUAGES
        ]
    return samples


def short_clips(speech: Voices, count: int, least_seconds: float = 2.0, most_seconds: float = 5.0) -> list[Clip]:
    """Different ones as far as there are any."""
    fitting = [clip for clip in speech.short if least_seconds <= len(clip.samples) / SAMPLE_RATE <= most_seconds]
    if not fitting:
        raise BenchmarkFailed(f"no clip lasts {least_seconds:g} to {most_seconds:g} s")
    random.Random(_SEED).shuffle(fitting)
    return [fitting[number % len(fitting)] for number in range(count)]


def clip(folder: Path, seconds: float) -> Path:
    """The wheel's English clip whose length is nearest."""
    nearest = min(recordings.wheel_clips("en"), key=lambda each: abs(len(each.samples) / SAMPLE_RATE - seconds))
    return write(folder / "clip.wav", [nearest.samples])


def polyglot(folder: Path, lengths: Sequence[float]) -> list[Path]:
    """Speech joined with gaps, one recording for each length in seconds, in turns of several languages."""
    paths = []
    for number, seconds in enumerate(lengths):
        language = ("en", "es", "fr", "it")[number % 4]
        made = recordings.join(language, recordings.wheel_clips(language), seconds, number, (1.0, 1.0))
        paths.append(write(folder / f"recording-{number}.wav", [made.samples]))
    return paths


def repeated(path: Path, recording: Recording, seconds: float) -> Path:
    """A recording again and again until `seconds` are full, written without ever being in memory as a whole."""

    def blocks() -> Iterator[np.ndarray]:
        left = round(seconds * SAMPLE_RATE)
        while left > 0:
            yield recording.samples[:left]
            left -= len(recording.samples)

    return write(path, blocks())


def write(path: Path, blocks: Iterable[np.ndarray]) -> Path:
    """float32 samples in [-1, 1] at 16 kHz as the file that the name's ending says: wav, flac or mp3."""
    kind = {".wav": [], ".flac": [], ".mp3": ["-b:a", "48k"]}[path.suffix]
    raw = ["-f", "s16le", "-ar", str(SAMPLE_RATE), "-ac", "1", "-i", "pipe:0"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *raw, *kind, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        for block in blocks:
            encoder.stdin.write((np.clip(block, -1, 1) * 32767).astype("<i2").tobytes())
        encoder.stdin.close()
        if encoder.wait():
            raise BenchmarkFailed(f"FFmpeg could not write {path.name}")
    return path


def _conversation(speech: Voices, seconds: float) -> Recording:
    chance = random.Random(_SEED)
    speakers = [speech.short, recordings.shifted(speech.short, 1.12), recordings.shifted(speech.short, 0.88)]
    turns = [chance.sample(clips, min(40, len(clips))) for clips in speakers]
    return recordings.conversation("conversation", [*turns, *(clips[:8] for clips in speech.read)], seconds, _SEED + 6)


def _reader(clips: Sequence[Clip], seed: int) -> Callable[[float], Recording]:
    return lambda seconds: recordings.join("reading", clips, seconds, seed, (0.05, 0.3))


def _spoilt(clips: Sequence[Clip], spoil: Callable[[Recording], Recording]) -> Callable[[float], Recording]:
    return lambda seconds: spoil(recordings.join("spoilt", clips, seconds, _SEED + 7))


def _spoilers(speech: Voices) -> dict[str, Callable[[Recording], Recording]]:
    if speech.folder is None:
        strangers = [*recordings.wheel_clips("es"), *recordings.wheel_clips("fr")]
    else:
        strangers = [*recordings.prompts(speech.folder, "es"), *recordings.prompts(speech.folder, "fr")]
    babble, white = recordings.babble(strangers, 60, _SEED), recordings.white(60, _SEED)
    return {
        "babble_20": lambda clean: recordings.with_noise(clean, babble, 20),
        "babble_10": lambda clean: recordings.with_noise(clean, babble, 10),
        "white_20": lambda clean: recordings.with_noise(clean, white, 20),
        "white_10": lambda clean: recordings.with_noise(clean, white, 10),
        "echo": lambda clean: recordings.with_echo(clean, 0.5, _SEED),
    }
