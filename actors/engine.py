"""Speech → segments: faster-whisper on CPU or CUDA, a few models in memory, shared by the threads of a worker.

Silence and noise make Whisper invent text. So speech is found first (Silero VAD) and only that is transcribed; every
window is decoded on its own, without the text before it, so that a mistake does not feed on itself; and what still
looks invented is dropped. The speech of a long recording goes through in stretches: memory does not grow with length.
"""

import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog
from faster_whisper import WhisperModel
from faster_whisper.transcribe import restore_speech_timestamps
from faster_whisper.vad import SpeechTimestampsMap, VadOptions, get_speech_timestamps

from actors.audio.decode import SAMPLE_RATE
from actors.audio.loudness import raise_quiet
from actors.decoder import Decoder
from actors.devices import choose_device
from actors.errors import InvalidOptions
from actors.languages import LANGUAGES
from actors.result import Result
from actors.settings import ActorSettings
from actors.voice import listen, noisy
from actors.windowed import VOTERS, Windowed, vote
from actors.windows import plan
from storage.job import Options
from storage.transcript import Details, Segment, Word

log = structlog.get_logger()

#: Seconds of speech that are computed in one go: about 0.5 GB; an hour would be 3.2 GB.
STRETCH_SECONDS = 600

VAD = VadOptions(max_speech_duration_s=STRETCH_SECONDS)

#: Whisper's own limits: above the one and below the other a window holds no speech.
_NO_SPEECH_PROBABILITY = 0.6
_LOG_PROBABILITY = -1.0

#: Tokens of the prompt, and of the hotwords, where there are both: with Whisper's marks less than half of its 448.
_PROMPT_TOKENS = 100

#: What VAD takes for speech in music comes out as a word or two below this.
_MUMBLED_LOG_PROBABILITY = -1.2

#: A span of speech as Silero gives it: {"start", "end"} in samples.
Span = dict[str, int]


class Engine:
    """Thread-safe: any number of threads may transcribe at once, also on one model."""

    def __init__(
        self, settings: ActorSettings, model_path: Callable[[str], Path], stretch_seconds: int = STRETCH_SECONDS
    ) -> None:
        """`model_path`: a model's name → the folder of its weights. Nothing is loaded before it is needed."""
        self._settings = settings
        self._model_path = model_path
        self._stretch_seconds = stretch_seconds
        self._models: OrderedDict[str, Decoder] = OrderedDict()
        self._models_lock = threading.Lock()
        self._loading = threading.Lock()

    @property
    def device(self) -> str:
        """cpu or cuda. Raises DeviceUnavailable."""
        return self._computing[0]

    @property
    def compute_type(self) -> str:
        """CTranslate2's name for how weights are held and multiplied. Raises DeviceUnavailable."""
        return self._computing[1]

    @property
    def loaded(self) -> list[str]:
        """Names of the models in memory, the one not used for longest first."""
        with self._models_lock:
            return list(self._models)

    def self_check(self) -> str:
        """How this machine will compute, in one sentence.

        Raises:
            DeviceUnavailable: it cannot as the settings say; the message says in one sentence what is missing.
        """
        return f"Whisper computes on {self.device} with {self.compute_type} and {self.threads} threads"

    def load(self, model: str) -> None:
        """Have a model's weights in memory.

        Raises:
            DeviceUnavailable: the settings ask for a device that is not there.
            ModelUnavailable: no source has the weights.
        """
        self._loaded(model)

    def detect_language(self, samples: np.ndarray, options: Options) -> tuple[str, float]:
        """Which language the speech is in, by Whisper's code, and how probable that is.

        1.0 for a language that was asked for; English with 0.0 where there is no speech. Raises as `transcribe`.
        """
        decoder = self._loaded(options.model)
        language = _agreed_language(decoder.whisper, options)
        if language is not None:
            return language, 1.0
        samples = raise_quiet(samples)
        windows = list(plan(samples, listen(samples), decoder.shape, everything=not options.vad_filter))
        # Spread over the speech: a recording may begin in another language than it goes on in, or with music.
        voters = windows[:: math.ceil(len(windows) / VOTERS)] if windows else []
        return vote([(window, decoder.detect_language(window)) for window in voters])

    def transcribe(self, samples: np.ndarray, options: Options) -> Result:
        """Transcribe 16 kHz mono float32 samples, shape (samples,).

        Finding speech and its language is done on return; the segments are computed as they are taken.

        Raises:
            InvalidOptions: the model cannot do this language or task.
            DeviceUnavailable, ModelUnavailable: as `load`.
        """
        decoder = self._loaded(options.model)
        options = msgspec.structs.replace(options, language=_agreed_language(decoder.whisper, options))
        duration = len(samples) / SAMPLE_RATE
        samples = raise_quiet(samples)
        if (options.engine or self._settings.engine) == "sequential":
            return self._sequential(decoder, samples, options, follow=False)
        probabilities = listen(samples)
        if noisy(samples, probabilities):
            # The text before a window helps Whisper to hear through noise, and short windows have none: babble
            # 10 dB below the speech gave 10.1 % word errors in them against 6.8 %, 5 dB 34 against 19 % (base).
            return self._sequential(decoder, samples, options, follow=True)
        windows = plan(samples, probabilities, decoder.shape, everything=not options.vad_filter)
        return self._windowed.transcribe(decoder, windows, duration, options)

    def _sequential(self, decoder: Decoder, samples: np.ndarray, options: Options, *, follow: bool) -> Result:
        """faster-whisper as it is. `follow`: each window is decoded after the text before it."""
        duration = len(samples) / SAMPLE_RATE
        spans = _speech(samples, self._stretch_seconds, vad_filter=options.vad_filter)
        stretches = list(_stretches(spans, self._stretch_seconds))
        if not stretches:
            return Result(options.language or "en", 0.0, duration, iter(()))
        language, probability = options.language, 1.0
        if language is None:
            language, probability = self.detect_language(samples, options)
        model = decoder.whisper
        told = arguments(self._settings, options) | _fitted(model, options) | {"condition_on_previous_text": follow}
        segments = _segments(model, samples, stretches, language, told, details=options.segment_details)
        return Result(language, probability, duration, segments)

    def close(self) -> None:
        """Finish the windows in hand and end the engine's threads: one at work at exit would abort the process."""
        if "_windowed" in self.__dict__:
            self._windowed.close()

    def _loaded(self, name: str) -> Decoder:
        """A model from memory, else loaded in place of the one not used for longest."""
        decoder = self._remembered(name)
        if decoder is not None:
            return decoder
        with self._loading:
            decoder = self._remembered(name)
            if decoder is not None:
                return decoder
            device, compute_type = self._computing
            folder = self._model_path(name)
            began = time.monotonic()
            with self._models_lock:
                # Before the new one comes, so that memory holds no more than the setting; work in hand keeps its own.
                while len(self._models) >= max(self._settings.loaded_models, 1):
                    self._models.popitem(last=False)
            model = WhisperModel(
                str(folder),
                device=device,
                compute_type=compute_type,
                cpu_threads=self.threads,
                # Weights are shared. Two jobs at once on all cores beat one by 15-19 %.
                num_workers=max(self._settings.worker_threads, 1),
                local_files_only=True,
            )
            decoder = Decoder(model, name)
            with self._models_lock:
                self._models[name] = decoder
            log.info("model loaded", model=name, device=device, seconds=round(time.monotonic() - began, 2))
            return decoder

    def _remembered(self, name: str) -> Decoder | None:
        with self._models_lock:
            if name in self._models:
                self._models.move_to_end(name)
            return self._models.get(name)

    @cached_property
    def _windowed(self) -> Windowed:
        return Windowed(threads=max(self._settings.worker_threads, 1))

    @cached_property
    def _computing(self) -> tuple[str, str]:
        return choose_device(self._settings)

    @property
    def threads(self) -> int:
        """Cores for one transcription."""
        return self._settings.whisper_threads or _cores()


def _segments(
    model: WhisperModel,
    samples: np.ndarray,
    stretches: list[list[Span]],
    language: str,
    told: dict[str, Any],
    *,
    details: bool,
) -> Iterator[Segment]:
    last = int(len(samples) * 1000 / SAMPLE_RATE) / 1000
    number, earliest = 0, 0.0
    for stretch in stretches:
        found, _ = model.transcribe(_heard(samples, stretch), language=language, **told)
        for segment in restore_speech_timestamps(found, stretch, SAMPLE_RATE):
            if _spoken(segment):
                ours = _segment(number, segment, earliest, last)
                if details:
                    ours = msgspec.structs.replace(ours, details=_details(segment, stretch))
                number, earliest = number + 1, ours.end
                yield ours


def arguments(settings: ActorSettings, options: Options) -> dict[str, Any]:
    """What faster-whisper's `transcribe` is told beside sound and language. The benchmarks tell it the same."""
    return {
        "task": options.task,
        "beam_size": settings.beam_size,
        "temperature": _ladder(options.temperature),
        "initial_prompt": options.prompt,
        "hotwords": options.hotwords,
        "word_timestamps": options.timestamp_granularity == "word",
        # With it tiny.en lost whole sentences after long gaps (word errors 20.5 against 12.4 %, 176 s of read
        # sentences); base was even (8.4 against 9.0 %).
        "condition_on_previous_text": False,
    }


def _fitted(model: WhisperModel, options: Options) -> dict[str, str | None]:
    """Prompt and hotwords as far as both find room before the text: faster-whisper bounds each, but not their sum.

    What is too long loses the beginning of the prompt and the end of the hotwords, as faster-whisper does.
    """
    if not (options.prompt and options.hotwords):
        return {}
    tokenizer = model.hf_tokenizer
    prompt, hotwords = (
        tokenizer.encode(text, add_special_tokens=False).ids for text in (options.prompt, options.hotwords)
    )
    return {
        "initial_prompt": tokenizer.decode(prompt[-_PROMPT_TOKENS:]),
        "hotwords": tokenizer.decode(hotwords[:_PROMPT_TOKENS]),
    }


def _cores() -> int:
    """Cores that this process may use, where the system can tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _agreed_language(model: WhisperModel, options: Options) -> str | None:
    """The language to transcribe, None: to be detected. English-only models need no detection."""
    if not model.model.is_multilingual:
        if options.language not in (None, "en"):
            named = LANGUAGES.get(options.language, options.language)
            raise InvalidOptions(f"language: the model {options.model} knows English only, not {named}")
        if options.task == "translate":
            raise InvalidOptions(f"task: the model {options.model} knows English only and cannot translate")
        return "en"
    if options.language is not None and model.hf_tokenizer.token_to_id(f"<|{options.language}|>") is None:
        raise InvalidOptions(f"language: the model {options.model} does not know {options.language!r}")
    return options.language


def _ladder(temperature: float) -> list[float]:
    """Where decoding starts and where it goes on when a window fails its checks: up to 1.0 in steps of 0.2."""
    return [round(temperature + 0.2 * step, 2) for step in range(6) if temperature + 0.2 * step <= 1.001]


def _speech(samples: np.ndarray, stretch_seconds: int, *, vad_filter: bool) -> list[Span]:
    """Where speech is, in samples, in spans of at most a stretch; without the filter, all of the audio."""
    if not len(samples):
        return []
    spans: list[Span] = get_speech_timestamps(samples, replace(VAD, max_speech_duration_s=stretch_seconds))
    if vad_filter:
        return spans
    # Everything is to be heard; the ends of speech are still the best places to cut.
    limit = stretch_seconds * SAMPLE_RATE
    ends = [*(span["end"] for span in spans[:-1]), len(samples)]
    whole = zip([0, *ends], ends, strict=False)
    return [{"start": at, "end": min(at + limit, end)} for start, end in whole for at in range(start, end, limit)]


def _stretches(spans: Iterable[Span], stretch_seconds: int) -> Iterator[list[Span]]:
    """Group neighbouring spans so that each group holds at most a stretch of sound."""
    stretch: list[Span] = []
    length = 0
    for span in spans:
        samples = span["end"] - span["start"]
        if stretch and length + samples > stretch_seconds * SAMPLE_RATE:
            yield stretch
            stretch, length = [], 0
        stretch.append(span)
        length += samples
    if stretch:
        yield stretch


def _heard(samples: np.ndarray, stretch: list[Span]) -> np.ndarray:
    """The samples of a stretch, one span after the other."""
    return np.concatenate([samples[span["start"] : span["end"]] for span in stretch])


def _spoken(segment: Any) -> bool:
    """Whether somebody said it; False for what Whisper invents on music and noise."""
    if not any(letter.isalnum() for letter in segment.text):
        return False
    if segment.no_speech_prob > _NO_SPEECH_PROBABILITY and segment.avg_logprob < _LOG_PROBABILITY:
        return False
    return not (segment.avg_logprob < _MUMBLED_LOG_PROBABILITY and len(segment.text.split()) <= 2)


def _segment(number: int, heard: Any, earliest: float, last: float) -> Segment:
    """faster-whisper's segment as ours: times between `earliest` and `last` and in order, probabilities from 0 to 1."""
    clock = _Clock(earliest, last)
    start = clock.tick(heard.start)
    words = None
    if heard.words is not None:
        words = [
            Word(word.word, clock.tick(word.start), clock.tick(word.end), _share(word.probability))
            for word in heard.words
        ]
    return Segment(number, start, clock.tick(heard.end), heard.text, _share(float(np.exp(heard.avg_logprob))), words)


def _details(heard: Any, stretch: list[Span]) -> Details:
    """What faster-whisper knows of a segment. Its `seek` counts in the stretch, where silence is left out."""
    begins = SpeechTimestampsMap(stretch, SAMPLE_RATE).get_original_time(heard.seek / 100)
    return Details(
        tokens=list(heard.tokens),
        avg_logprob=round(float(heard.avg_logprob), 4),
        compression_ratio=round(float(heard.compression_ratio), 4),
        no_speech_prob=_share(heard.no_speech_prob),
        temperature=float(heard.temperature),
        seek=round(begins * 100),
    )


class _Clock:
    """Times in seconds that never go back and never pass the end: Whisper's may, by a few hundredths."""

    def __init__(self, earliest: float, last: float) -> None:
        self._now = earliest
        self._last = last

    def tick(self, seconds: float) -> float:
        self._now = max(self._now, min(round(float(seconds), 3), self._last))
        return self._now


def _share(probability: float) -> float:
    return round(min(max(float(probability), 0.0), 1.0), 4)
