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
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import structlog
from faster_whisper import WhisperModel

from actors import sequential
from actors.audio.decode import SAMPLE_RATE
from actors.audio.loudness import raise_quiet
from actors.decoder import Decoder
from actors.devices import choose_device
from actors.errors import InvalidOptions
from actors.languages import LANGUAGES
from actors.result import Result
from actors.settings import ActorSettings
from actors.voice import listen, noisy
from actors.windowed import VOTERS, Windowed, agreed
from actors.windows import Shape, plan
from storage.job import Options

log = structlog.get_logger()

#: Seconds of speech that are computed in one go: about 0.5 GB; an hour would be 3.2 GB.
STRETCH_SECONDS = 600

#: Seconds between stretches of speech in noise that stay together: a text begins better after the one before it, and
#: with 3 s read sentences in babble 10 dB below them had 18.4 % word errors against 14.4, in white noise 26 against 21.
_GAP_IN_NOISE = 6.0

#: What Whisper hears at once.
_WHISPER_SECONDS = 30.0


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
        planned = list(plan(samples, listen(samples), decoder.shape, everything=not options.vad_filter))
        windows = [window for window in planned if not window.doubtful] or planned
        # Spread over the speech: a recording may begin in another language than it goes on in, or with music.
        voters = windows[:: math.ceil(len(windows) / VOTERS)] if windows else []
        return agreed(decoder, [(window, decoder.detect_language(window)) for window in voters])

    def transcribe(self, samples: np.ndarray, options: Options) -> Result:
        """Transcribe 16 kHz mono float32 samples, shape (samples,).

        Finding speech and its language is done on return; the segments are computed as they are taken.

        Raises:
            InvalidOptions: the model cannot do this language or task.
            DeviceUnavailable, ModelUnavailable: as `load`.
        """
        decoder = self._loaded(options.model)
        options = msgspec.structs.replace(options, language=_agreed_language(decoder.whisper, options))
        samples = raise_quiet(samples)
        probabilities = listen(samples)
        asked = (options.engine or self._settings.engine) == "sequential"
        if asked or noisy(samples, probabilities):
            # The text before a window helps Whisper to hear through noise, and short windows have none: babble
            # 10 dB below the speech gave 10.1 % word errors in them against 6.8 %, 5 dB 34 against 19 % (base).
            return self._sequential(decoder, samples, probabilities, options, follow=not asked)
        windows = plan(samples, probabilities, decoder.shape, everything=not options.vad_filter)
        return self._windowed.transcribe(decoder, windows, len(samples) / SAMPLE_RATE, options)

    def _sequential(
        self, decoder: Decoder, samples: np.ndarray, probabilities: np.ndarray, options: Options, *, follow: bool
    ) -> Result:
        """faster-whisper as it is. `follow`: each window is decoded after the text before it."""
        duration = len(samples) / SAMPLE_RATE
        shape = Shape(self._stretch_seconds, _WHISPER_SECONDS)
        if follow:
            shape = msgspec.structs.replace(shape, gap=_GAP_IN_NOISE)
        stretches = list(plan(samples, probabilities, shape, everything=not options.vad_filter))
        if not stretches:
            return Result(options.language or "en", 0.0, duration, iter(()))
        language, probability = options.language, 1.0
        if language is None:
            language, probability = self.detect_language(samples, options)
        found = sequential.segments(decoder, stretches, language, self._settings, options, follow=follow)
        return Result(language, probability, duration, found)

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
