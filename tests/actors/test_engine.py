"""The engine with real weights on real speech, and on what is none."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ctranslate2
import jiwer
import msgspec
import numpy as np
import pytest
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from actors.audio.decode import SAMPLE_RATE, decode
from actors.engine import Engine
from actors.errors import DeviceUnavailable, InvalidOptions
from actors.settings import ActorSettings
from storage.job import Options
from storage.transcript import Segment
from tests.conftest import ROOT, Sample
from tests.recordings import joined

normalize_english = EnglishTextNormalizer()
normalize = BasicTextNormalizer(remove_diacritics=True)

ON_CPU = ActorSettings(whisper_device="cpu", loaded_models=2)


def samples_of(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return np.concatenate(list(decode(file)))


def text_of(segments: list[Segment]) -> str:
    return "".join(segment.text for segment in segments).strip()


def english_error(said: str, heard: str) -> float:
    return float(jiwer.wer(normalize_english(said), normalize_english(heard)))


@pytest.fixture(scope="module", params=["windowed", "sequential"])
def engine(request: pytest.FixtureRequest, weights_dir: Path) -> Iterator[Engine]:
    """Both engines keep the same promises."""
    settings = msgspec.structs.replace(ON_CPU, engine=request.param)
    engine = Engine(settings, lambda name: weights_dir / name)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def read_aloud() -> tuple[np.ndarray, str]:
    """Ten seconds of a human voice, two sentences, and what is said."""
    folder = ROOT / "deploy" / "sample"
    return samples_of(folder / "sample.mp3"), (folder / "sample.txt").read_text(encoding="utf-8")


def music(seconds: float) -> np.ndarray:
    """Plucked chords that Silero takes for speech here and there."""
    total = round(seconds * SAMPLE_RATE)
    sound = np.zeros(total)
    beat = SAMPLE_RATE // 2
    for number, start in enumerate(range(0, total, beat)):
        root = (220, 174.6, 261.6, 196)[number // 4 % 4]
        time = np.arange(min(beat, total - start)) / SAMPLE_RATE
        for interval, harmonic in itertools.product((1, 1.25, 1.5, 2), (1, 2, 3)):
            pitch = root * interval * harmonic
            sound[start : start + len(time)] += np.sin(2 * np.pi * pitch * time) * np.exp(-3 * time) / (4 * harmonic)
    return 0.1 * sound


def brown_noise(seconds: float) -> np.ndarray:
    steps = np.cumsum(np.random.default_rng(3).standard_normal(round(seconds * SAMPLE_RATE)))
    steps -= np.convolve(steps, np.ones(2000) / 2000, "same")
    loudest: float = np.abs(steps).max()
    return steps * (0.3 / loudest)


def tones(*pitches: float, seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return sum((0.15 * np.sin(2 * np.pi * pitch * time) for pitch in pitches), np.zeros(len(time)))


WORDLESS: dict[str, Callable[[], np.ndarray]] = {
    "nothing at all": lambda: np.zeros(0),
    "a tenth of a second": lambda: np.zeros(1600),
    "silence": lambda: np.zeros(60 * SAMPLE_RATE),
    "white noise": lambda: 0.02 * np.random.default_rng(9).standard_normal(60 * SAMPLE_RATE),
    "brown noise": lambda: brown_noise(60),
    "a tone": lambda: tones(440, seconds=60),
    "a dialling tone": lambda: tones(697, 1209, seconds=60),
    "music": lambda: music(30),
}


@pytest.mark.parametrize("model", ["tiny.en", "base"])
@pytest.mark.parametrize("sound", WORDLESS)
def test_no_words_are_invented(sound: str, model: str, engine: Engine) -> None:
    samples = WORDLESS[sound]().astype(np.float32)

    result = engine.transcribe(samples, Options(model=model))

    assert text_of(list(result.segments)) == ""
    assert result.duration == len(samples) / SAMPLE_RATE


def test_audio_without_speech_has_no_language_to_speak_of(engine: Engine) -> None:
    silence = np.zeros(5 * SAMPLE_RATE, np.float32)

    detected = engine.transcribe(silence, Options(model="base"))
    asked_for = engine.transcribe(silence, Options(model="base", language="de"))

    assert (detected.language, detected.language_probability) == ("en", 0.0)
    assert (asked_for.language, asked_for.language_probability) == ("de", 0.0)


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_a_human_voice_is_understood(model: str, engine: Engine, read_aloud: tuple[np.ndarray, str]) -> None:
    samples, said = read_aloud

    result = engine.transcribe(samples, Options(model=model))

    assert result.language == "en"
    assert english_error(said, text_of(list(result.segments))) < 0.2


@pytest.mark.parametrize(
    ("language", "name", "errors"),
    [
        ("en", "quick_brown_fox", 0.05),
        ("es", "pangrama", 0.3),
        ("fr", "bonjour_monde", 0.2),
        ("it", "pangrama", 0.2),
        ("ja", "konnichiwa_sekai", 0.2),
        ("pt", "pangrama", 0.2),
        # A thousand-year-old poem, spoken without a pause.
        ("zh", "pangrama", 0.45),
    ],
)
def test_speech_is_understood_in_its_language_without_being_told_which(
    language: str, name: str, errors: float, engine: Engine, speech: dict[str, list[Sample]]
) -> None:
    sample = next(sample for sample in speech[language] if sample.name == name)

    result = engine.transcribe(samples_of(sample.path), Options(model="base"))

    heard = text_of(list(result.segments))
    assert result.language == language
    assert 0.3 < result.language_probability <= 1
    assert jiwer.cer(normalize(sample.text), normalize(heard)) <= errors


def test_the_language_is_that_of_the_speech_after_a_long_silence(
    engine: Engine, speech: dict[str, list[Sample]]
) -> None:
    spoken = samples_of(speech["es"][-1].path)
    samples = np.concatenate([np.zeros(35 * SAMPLE_RATE, np.float32), spoken])

    result = engine.transcribe(samples, Options(model="base"))

    first = next(result.segments)
    assert result.language == "es"
    assert first.start > 34


@pytest.mark.parametrize(("first", "then"), [("fr", "it"), ("music", "pt")])
def test_twenty_seconds_of_something_else_do_not_decide_the_language(
    first: str, then: str, weights_dir: Path, speech: dict[str, list[Sample]]
) -> None:
    engine = Engine(ON_CPU, lambda name: weights_dir / name)
    beginning = music(20) if first == "music" else joined(speech[first], 20)[: 20 * SAMPLE_RATE]
    samples = np.concatenate([beginning, joined(speech[then], 40)]).astype(np.float32)

    language, probability = engine.detect_language(samples, Options(model="base"))

    assert language == then
    assert 0.5 < probability < 1


def test_french_is_translated_to_english(engine: Engine, speech: dict[str, list[Sample]]) -> None:
    hello = next(sample for sample in speech["fr"] if sample.name == "bonjour_monde")

    result = engine.transcribe(samples_of(hello.path), Options(model="base", task="translate", language="fr"))

    heard = normalize(text_of(list(result.segments)))
    assert {"hello", "world"} & set(heard.split())


@pytest.mark.parametrize("vad_filter", [True, False])
def test_words_follow_one_another_inside_their_segment_and_the_audio(
    vad_filter: bool, engine: Engine, read_aloud: tuple[np.ndarray, str]
) -> None:
    samples = np.concatenate([read_aloud[0], np.zeros(4 * SAMPLE_RATE, np.float32), read_aloud[0]])
    options = Options(model="tiny.en", timestamp_granularity="word", vad_filter=vad_filter)

    segments = list(engine.transcribe(samples, options).segments)

    words = [word for segment in segments for word in segment.words or []]
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= len(samples) / SAMPLE_RATE
    assert all(isinstance(time, float) and not isinstance(time, np.floating) for time in times)
    assert all(segment.start <= segment.words[0].start for segment in segments if segment.words)
    assert all(segment.words[-1].end <= segment.end for segment in segments if segment.words)
    assert "".join(word.word for word in words).split() == text_of(segments).split()
    assert all(0 <= word.confidence <= 1 for word in words)


def test_segments_are_numbered_in_order_with_a_confidence_and_without_words(
    engine: Engine, read_aloud: tuple[np.ndarray, str]
) -> None:
    segments = list(engine.transcribe(read_aloud[0], Options(model="tiny.en")).segments)

    assert [segment.id for segment in segments] == list(range(len(segments)))
    assert all(before.end <= after.start for before, after in itertools.pairwise(segments))
    assert all(0.4 < segment.confidence < 1 for segment in segments)
    assert all(segment.words is None for segment in segments)
    assert segments[-1].end <= len(read_aloud[0]) / SAMPLE_RATE


@pytest.mark.parametrize("vad_filter", [True, False])
def test_speech_that_goes_through_in_stretches_loses_nothing(
    vad_filter: bool, weights_dir: Path, read_aloud: tuple[np.ndarray, str]
) -> None:
    samples, said = read_aloud
    gap = np.zeros(3 * SAMPLE_RATE, np.float32)
    engine = Engine(ON_CPU, lambda name: weights_dir / name, stretch_seconds=11)

    result = engine.transcribe(np.concatenate([samples, gap] * 3), Options(model="base", vad_filter=vad_filter))

    segments = list(result.segments)
    assert english_error(f"{said} {said} {said}", text_of(segments)) < 0.25
    assert all(before.end <= after.start for before, after in itertools.pairwise(segments))
    assert [segment.id for segment in segments] == list(range(len(segments)))
    assert segments[-1].end > 2 * (len(samples) + len(gap)) / SAMPLE_RATE


def test_a_prompt_and_hotwords_set_the_spelling(engine: Engine, read_aloud: tuple[np.ndarray, str]) -> None:
    samples = read_aloud[0]

    prompted = engine.transcribe(samples, Options(model="base", prompt="A letter from Mister Jon Dashwoode."))
    hinted = engine.transcribe(samples, Options(model="base", hotwords="Dashwoode"))

    assert "Dashwoode" in text_of(list(prompted.segments))
    assert "Dashwoode" in text_of(list(hinted.segments))


def test_a_long_prompt_and_long_hotwords_find_room_together(engine: Engine, read_aloud: tuple[np.ndarray, str]) -> None:
    samples, said = read_aloud
    long = "A sentence that goes on about the weather. " * 60

    result = engine.transcribe(samples, Options(model="tiny.en", prompt=long, hotwords=long))

    assert english_error(said, text_of(list(result.segments))) < 0.5


# Above 0.8 or so the text is drawn at random, and what comes of it is no measure.
@pytest.mark.parametrize("temperature", [0.3, 0.7])
def test_a_temperature_is_accepted(temperature: float, engine: Engine, read_aloud: tuple[np.ndarray, str]) -> None:
    samples, said = read_aloud

    result = engine.transcribe(samples, Options(model="tiny.en", temperature=temperature))

    assert english_error(said, text_of(list(result.segments))) < 0.5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (Options(model="tiny.en", language="de"), "language: the model tiny.en knows English only, not German"),
        (Options(model="tiny.en", task="translate"), "task: the model tiny.en knows English only and cannot translate"),
        (Options(model="base", language="yue"), "language: the model base does not know 'yue'"),
        (Options(model="base", language="xx"), "language: the model base does not know 'xx'"),
    ],
)
def test_what_a_model_cannot_do_is_refused(options: Options, sentence: str, engine: Engine) -> None:
    with pytest.raises(InvalidOptions) as caught:
        engine.transcribe(np.zeros(SAMPLE_RATE, np.float32), options)

    assert str(caught.value) == sentence
    assert caught.value.code == "invalid_parameter"


class Folder:
    """Where weights are, counting how often they are asked for."""

    def __init__(self, weights_dir: Path) -> None:
        self._weights_dir = weights_dir
        self.asked: list[str] = []

    def path(self, name: str) -> Path:
        self.asked.append(name)
        return self._weights_dir / name


def test_the_model_not_used_for_longest_makes_room(weights_dir: Path) -> None:
    folder = Folder(weights_dir)
    engine = Engine(ActorSettings(whisper_device="cpu", loaded_models=1), folder.path)

    engine.load("tiny.en")
    engine.load("base")
    engine.load("base")

    assert engine.loaded == ["base"]
    assert folder.asked == ["tiny.en", "base"]


def test_models_stay_in_memory_up_to_the_setting(weights_dir: Path) -> None:
    folder = Folder(weights_dir)
    engine = Engine(ActorSettings(whisper_device="cpu", loaded_models=2), folder.path)

    for name in ("tiny.en", "base", "tiny.en"):
        engine.load(name)

    assert engine.loaded == ["base", "tiny.en"]
    assert folder.asked == ["tiny.en", "base"]


def test_threads_that_want_a_model_at_once_load_it_once_and_share_it(
    weights_dir: Path, read_aloud: tuple[np.ndarray, str]
) -> None:
    folder = Folder(weights_dir)
    engine = Engine(ON_CPU, folder.path)

    def transcribe(_: int) -> str:
        return text_of(list(engine.transcribe(read_aloud[0], Options(model="tiny.en")).segments))

    with ThreadPoolExecutor(3) as threads:
        texts = list(threads.map(transcribe, range(3)))

    assert folder.asked == ["tiny.en"]
    # Windows that share a batch add up in another order: a letter may differ.
    assert [text for text in texts if english_error(read_aloud[1], text) >= 0.2] == []


def no_weights(name: str) -> Path:
    raise AssertionError(f"{name} was asked for")


def test_the_self_check_says_how_this_machine_computes() -> None:
    engine = Engine(ActorSettings(whisper_device="cpu", whisper_threads=3), no_weights)

    assert engine.self_check() == "Whisper computes on cpu with int8 and 3 threads"
    assert engine.loaded == []


without_cuda = pytest.mark.skipif(ctranslate2.get_cuda_device_count() > 0, reason="this machine has CUDA")


@without_cuda
def test_cuda_that_was_asked_for_and_is_missing_is_named() -> None:
    engine = Engine(ActorSettings(whisper_device="cuda"), no_weights)

    with pytest.raises(DeviceUnavailable, match=r"^CUDA does not work on this machine: .+$"):
        engine.self_check()
    with pytest.raises(DeviceUnavailable):
        engine.load("base")


@without_cuda
def test_auto_takes_the_cpu_where_cuda_is_missing() -> None:
    engine = Engine(ActorSettings(whisper_device="auto"), no_weights)

    assert (engine.device, engine.compute_type) == ("cpu", "int8")


def test_a_compute_type_that_the_device_does_not_have_is_named_with_those_it_has() -> None:
    engine = Engine(ActorSettings(whisper_device="cpu", whisper_compute_type="float17"), no_weights)

    with pytest.raises(
        DeviceUnavailable, match=r"^WHISPER_COMPUTE_TYPE=float17 does not work on cpu here, which has .*int8"
    ):
        engine.self_check()
