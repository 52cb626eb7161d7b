"""Recordings with known texts, made of real speech: joins, continuous reading, conversations, noise and rooms.

Speech comes from the wheel pytest-audioeval (nine languages, three short clips each) and, where apt-get is at hand,
from Debian packages that are unpacked under a folder and not installed: telephone prompts in five languages (8 kHz, one
speaker a language), LibriVox sentences, and Flite's voices reading long sentences. Everything is seeded: the same call
gives the same samples. Every clip belongs to one half by its name, so that what was tuned on one half is reported on
the other.
"""

import gzip
import os
import random
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest_audioeval

from actors.audio.decode import SAMPLE_RATE, decode

Half = Literal["tune", "report"]

#: Language → the speaker's folder in Debian's asterisk-core-sounds-{language}-wav.
PROMPT_VOICES = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
FLITE_VOICES = ("slt", "rms")
PACKAGES = [
    *(f"asterisk-core-sounds-{language}{kind}" for language in PROMPT_VOICES for kind in ("", "-wav")),
    "pocketsphinx-testdata",
    "flite",
    "libflite1",
]
#: A long text with long sentences that every Debian has.
_READ_ALOUD = Path("/usr/share/common-licenses/GPL-3")


class Clip(msgspec.Struct, frozen=True):
    name: str
    #: Who speaks: clips of one voice make continuous reading, of several a conversation.
    voice: str
    language: str
    text: str
    #: float32 in [-1, 1] at 16 kHz, shape (samples,), scaled to a peak of 0.6.
    samples: np.ndarray

    @property
    def half(self) -> Half:
        return "tune" if zlib.crc32(self.name.encode()) % 2 else "report"


class Recording(msgspec.Struct, frozen=True):
    name: str
    language: str
    text: str
    #: float32 in [-1, 1] at 16 kHz, shape (samples,).
    samples: np.ndarray
    #: What is said when, in order: (start, end, text), times in seconds.
    timeline: tuple[tuple[float, float, str], ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


def fetch(folder: Path, *, download: bool = True) -> Path | None:
    """Unpack the Debian packages under a folder, once. None where there is no apt-get or no package index."""
    done = folder / "complete"
    if done.exists():
        return folder
    if not (download and shutil.which("apt-get") and shutil.which("dpkg")):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for command in (["apt-get", "update", "-qq"], ["apt-get", "download", "-qq", *PACKAGES]):
            if subprocess.run(command, cwd=work, check=False).returncode and command[1] == "download":
                return None
        for package in sorted(Path(work).glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    done.touch()
    return folder


def wheel_clips(language: str) -> list[Clip]:
    folder = Path(next(iter(pytest_audioeval.__path__))) / "samples" / "audio" / language
    return [
        _clip(path, f"audioeval-{language}", language, path.with_suffix(".txt").read_text(encoding="utf-8").strip())
        for path in sorted(folder.glob("*.wav"))
    ]


def prompts(folder: Path, language: str) -> list[Clip]:
    """Telephone prompts of at least three words and 0.8 s, as their text file spells them.

    Outside English a text with digits is left out: no normaliser here knows that 1 is said uno.
    """
    sounds = folder / "usr/share/asterisk/sounds" / PROMPT_VOICES[language]
    texts = folder / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    clips = []
    for line in gzip.decompress(texts.read_bytes()).decode("utf-8", errors="replace").splitlines():
        name, colon, text = line.strip().partition(":")
        path = sounds / f"{name}.wav"
        spelled = colon and not name.startswith(";") and not re.search(r"[\[(<]", text) and len(text.split()) > 2
        if not spelled or (language != "en" and re.search(r"\d", text)) or not path.exists():
            continue
        clip = _clip(path, PROMPT_VOICES[language], language, text.strip())
        if len(clip.samples) > 0.8 * SAMPLE_RATE:
            clips.append(clip)
    return clips


def librivox(folder: Path) -> list[Clip]:
    data = folder / "usr/share/pocketsphinx/test/data/librivox"
    found = re.findall(r"<s> (.*) </s> \((.*)\)", (data / "transcription").read_text(encoding="utf-8"))
    return [_clip(data / f"{name}.wav", "librivox", "en", text) for text, name in found]


def flite(folder: Path, voice: str, sentences: Sequence[str]) -> list[Clip]:
    """Sentences read by one of Flite's voices; synthetic, but long and of known text."""
    clips = []
    spoken = folder / "flite" / voice
    spoken.mkdir(parents=True, exist_ok=True)
    for sentence in sentences:
        path = spoken / f"{zlib.crc32(sentence.encode()):08x}.wav"
        if not path.exists():
            subprocess.run(
                [str(folder / "usr/bin/flite"), "-voice", voice, "-t", sentence, str(path)],
                env={**os.environ, "LD_LIBRARY_PATH": str(folder / "usr/lib/x86_64-linux-gnu")},
                check=True,
            )
        clips.append(_clip(path, f"flite-{voice}", "en", sentence))
    return clips


def sentences() -> list[str]:
    """Sentences of 12 to 60 words without brackets or numbers, for reading aloud."""
    text = " ".join(_READ_ALOUD.read_text(encoding="utf-8").split())
    found = (part.strip() for part in re.split(r"(?<=[.:;])\s", text))
    return [part for part in found if 12 <= len(part.split()) <= 60 and re.fullmatch(r"[A-Za-z ,.;:'\"-]+", part)]


def join(
    name: str, clips: Sequence[Clip], seconds: float, seed: int, gap_seconds: tuple[float, float] = (0.5, 2.0)
) -> Recording:
    """Clips in a shuffled order, again and again, until `seconds` are full; a negative gap is an overlap."""
    chance = random.Random(seed)
    noise = np.random.default_rng(seed)
    samples = np.zeros(round((seconds + 90) * SAMPLE_RATE), np.float32)
    position = SAMPLE_RATE // 2
    timeline = []
    for clip in _shuffled(clips, chance):
        end = position + len(clip.samples)
        if end > (seconds + 60) * SAMPLE_RATE or position > seconds * SAMPLE_RATE:
            break
        samples[position:end] += clip.samples
        timeline.append((position / SAMPLE_RATE, end / SAMPLE_RATE, clip.text))
        position = max(0, end + round(chance.uniform(*gap_seconds) * SAMPLE_RATE))
    samples = samples[: round((timeline[-1][1] + 0.5) * SAMPLE_RATE)]
    samples += (noise.standard_normal(len(samples)) * 0.0005).astype(np.float32)
    text = " ".join(text for _, _, text in timeline)
    return Recording(name, clips[0].language, text, np.clip(samples, -1, 1), tuple(timeline))


def conversation(name: str, voices: Sequence[Sequence[Clip]], seconds: float, seed: int) -> Recording:
    """Turns of several voices of unlike loudness, 0.1 s over each other to 0.3 s apart."""
    chance = random.Random(seed)
    turns: list[Clip] = []
    for speaker, clips in enumerate(voices):
        gain = 10 ** (-chance.uniform(0, 12) / 20)
        turns += [
            msgspec.structs.replace(clip, voice=f"speaker-{speaker}", samples=clip.samples * np.float32(gain))
            for clip in clips
        ]
    return join(name, turns, seconds, seed, gap_seconds=(-0.1, 0.3))


def shifted(clips: Sequence[Clip], factor: float) -> list[Clip]:
    """The same speech higher and faster (factor above 1) or lower and slower: another voice, nearly."""
    return [
        msgspec.structs.replace(
            clip,
            voice=f"{clip.voice}-{factor}",
            samples=np.interp(
                np.arange(0, len(clip.samples) - 1, factor), np.arange(len(clip.samples)), clip.samples
            ).astype(np.float32),
        )
        for clip in clips
    ]


def with_noise(recording: Recording, noise: np.ndarray, snr_db: float) -> Recording:
    """Add noise, repeated as needed, so many decibels below the speech (measured where there is any)."""
    loud = recording.samples[np.abs(recording.samples) > 0.01]
    power = float(np.mean(loud**2))
    added = np.resize(noise, len(recording.samples))
    added = added * np.sqrt(power / float(np.mean(added**2)) / 10 ** (snr_db / 10))
    mixed = recording.samples + added.astype(np.float32)
    mixed *= min(1.0, 0.95 / float(np.abs(mixed).max()))
    return msgspec.structs.replace(recording, samples=mixed)


def white(seconds: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE)) * 0.05).astype(np.float32)


def brown(seconds: float, seed: int = 0) -> np.ndarray:
    walk = np.cumsum(np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE)))
    walk -= np.convolve(walk, np.ones(2000) / 2000, "same")
    loudest = float(np.abs(walk).max())
    return (walk * (0.3 / loudest)).astype(np.float32)


def babble(clips: Sequence[Clip], seconds: float, seed: int = 0, voices: int = 6) -> np.ndarray:
    """Many people at once, none of them to be understood."""
    total = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for voice in range(voices):
        said = join("babble", clips, seconds, seed * 100 + voice, (0.0, 0.3)).samples
        total += np.resize(said, len(total))
    loudest = float(np.abs(total).max())
    return (total * (0.6 / loudest)).astype(np.float32)


def with_echo(recording: Recording, reverberation_seconds: float = 0.5, seed: int = 0) -> Recording:
    """As heard across a bare room: an exponentially decaying noise tail, 60 dB down after the given time."""
    chance = np.random.default_rng(seed)
    tail = chance.standard_normal(round(reverberation_seconds * SAMPLE_RATE))
    tail *= 10 ** (-3 * np.arange(len(tail)) / len(tail)) * 0.05
    tail[0] = 1.0
    size = len(recording.samples) + len(tail)
    heard = np.fft.irfft(np.fft.rfft(recording.samples, size) * np.fft.rfft(tail, size), size)
    heard = heard[: len(recording.samples)]
    return msgspec.structs.replace(recording, samples=(heard * (0.6 / np.abs(heard).max())).astype(np.float32))


def tones(seconds: float) -> np.ndarray:
    """A 440 Hz tone and telephone keys by turns, two seconds each."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    keys = np.sin(2 * np.pi * 697 * time) + np.sin(2 * np.pi * 1209 * time)
    return np.where(time % 4 < 2, 0.2 * np.sin(2 * np.pi * 440 * time), 0.15 * keys).astype(np.float32)


def chords(seconds: float) -> np.ndarray:
    """Music-like: plucked chords with overtones, two a second."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    root = np.array([220, 174.6, 261.6, 196])[(time // 2).astype(int) % 4]
    since = time % 0.5
    total = np.zeros_like(time)
    for interval in (1, 1.25, 1.5, 2):
        for overtone in (1, 2, 3):
            total += np.sin(2 * np.pi * root * interval * overtone * since) / (4 * overtone)
    return (0.1 * total * np.exp(-3 * since)).astype(np.float32)


def _clip(path: Path, voice: str, language: str, text: str) -> Clip:
    with path.open("rb") as file:
        samples = np.concatenate(list(decode(file, None)))
    return Clip(path.stem, voice, language, text, samples * np.float32(0.6 / max(1e-3, float(np.abs(samples).max()))))


def _shuffled(clips: Sequence[Clip], chance: random.Random) -> Iterator[Clip]:
    """Clips without end, none twice in a row: Whisper takes a sentence that is repeated at once for one."""
    last: Clip | None = None
    while True:
        order = list(clips)
        chance.shuffle(order)
        if order[0] is last:
            order.append(order.pop(0))
        yield from order
        last = order[-1]
