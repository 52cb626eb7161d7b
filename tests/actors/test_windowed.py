"""The windowed engine: real weights on real speech, its text and times beside those of faster-whisper as it is."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jiwer
import msgspec
import numpy as np
import pytest
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from actors.audio.decode import SAMPLE_RATE, decode
from actors.decoder import Decoder, Request
from actors.engine import Engine
from actors.guards import repeats, says_twice, silent, worded
from actors.settings import ActorSettings
from actors.voice import Span, listen
from actors.windowed import Windowed
from actors.windows import Window, plan
from storage.job import Options
from storage.transcript import Segment, Word
from tests.conftest import ROOT, Sample
from tests.recordings import joined, samples_of

normalize = BasicTextNormalizer(remove_diacritics=True)
normalize_english = EnglishTextNormalizer()

#: The clip of each language that counts to ten.
COUNTING = {"conteo", "comptage", "conteggio", "contagem", "ginti"}

SETTINGS = ActorSettings(whisper_device="cpu", loaded_models=2, engine="windowed")


@pytest.fixture(scope="module")
def engine(weights_dir: Path) -> Iterator[Engine]:
    engine = Engine(SETTINGS, lambda name: weights_dir / name)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def sequential(weights_dir: Path) -> Engine:
    return Engine(msgspec.structs.replace(SETTINGS, engine="sequential"), lambda name: weights_dir / name)


@pytest.fixture(scope="module")
def english(speech: dict[str, list[Sample]]) -> np.ndarray:
    """25 s of three voices, a second apart, nothing said twice."""
    with (ROOT / "deploy" / "sample" / "sample.mp3").open("rb") as file:
        read_aloud = np.concatenate(list(decode(file)))
    gap = np.zeros(SAMPLE_RATE, np.float32)
    return np.concatenate([read_aloud, *(part for clip in speech["en"] for part in (gap, samples_of(clip)))])


def heard(engine: Engine, samples: np.ndarray, options: Options) -> list[Segment]:
    return list(engine.transcribe(samples, options).segments)


def text_of(segments: list[Segment]) -> str:
    return "".join(segment.text for segment in segments).strip()


def digit_errors(counted: str) -> float:
    """How far a count of ten is from one, however it is spaced; 1 where there is no number in it."""
    digits = "".join(filter(str.isdigit, normalize_english(counted)))
    return float(jiwer.cer("12345678910", digits))


def words_of(segments: list[Segment]) -> list[Word]:
    return [word for segment in segments for word in segment.words or []]


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_it_hears_what_faster_whisper_hears(
    model: str, engine: Engine, sequential: Engine, english: np.ndarray
) -> None:
    options = Options(model=model, language="en")

    windowed = normalize_english(text_of(heard(engine, english, options)))
    reference = normalize_english(text_of(heard(sequential, english, options)))

    # Numbers are told by their digits, however they are spaced.
    assert len(reference.split()) > 40
    assert jiwer.cer(reference.replace(" ", ""), windowed.replace(" ", "")) < 0.06


def test_segments_follow_one_another(engine: Engine, english: np.ndarray) -> None:
    segments = heard(engine, english, Options(model="base", language="en"))

    assert [segment.id for segment in segments] == list(range(len(segments)))
    times = [time for segment in segments for time in (segment.start, segment.end)]
    assert times == sorted(times)
    assert times[-1] <= len(english) / SAMPLE_RATE


@pytest.mark.parametrize("language", ["en", "es", "fr", "it", "pt", "ja"])
def test_words_are_where_faster_whisper_finds_them(
    language: str, engine: Engine, sequential: Engine, english: np.ndarray, speech: dict[str, list[Sample]]
) -> None:
    options = Options(model="base", language=language, timestamp_granularity="word")
    gap = np.zeros(SAMPLE_RATE, np.float32)
    clips = np.concatenate([part for clip in speech[language] for part in (samples_of(clip), gap)])
    samples = english if language == "en" else clips

    windowed = words_of(heard(engine, samples, options))
    reference = words_of(heard(sequential, samples, options))

    # A model spells a number this way or that, and in a language that it half knows any word.
    pairs = list(_same_words(reference, windowed))
    assert len(pairs) > (0.6 if language == "en" else 0.3) * len(reference)
    apart = np.array([(abs(a.start - b.start), abs(a.end - b.end)) for a, b in pairs])
    assert np.median(apart, axis=0).max() < 0.1
    assert apart.mean(axis=0).max() < 0.25
    times = [time for word in windowed for time in (word.start, word.end)]
    assert times == sorted(times)


@pytest.mark.parametrize("language", ["es", "fr", "it", "pt", "hi"])
def test_other_languages_are_translated_as_faster_whisper_does(
    language: str, engine: Engine, sequential: Engine, speech: dict[str, list[Sample]]
) -> None:
    options = Options(model="base", language=language, task="translate")
    counting, *_ = [clip for clip in speech[language] if clip.name in COUNTING]

    windowed = text_of(heard(engine, samples_of(counting), options))
    reference = text_of(heard(sequential, samples_of(counting), options))

    # A count of ten is a count of ten in English; of Hindi, `base` understands some numbers less.
    assert digit_errors(windowed) <= digit_errors(reference) + 0.5


def test_a_job_may_ask_for_the_other_engine(engine: Engine, sequential: Engine, english: np.ndarray) -> None:
    asked = Options(model="tiny.en", language="en", engine="sequential")

    segments = heard(engine, english, asked)

    assert segments == heard(sequential, english, Options(model="tiny.en", language="en"))
    assert segments != heard(engine, english, Options(model="tiny.en", language="en"))


def test_speech_in_noise_is_heard_after_the_text_before_it(engine: Engine, english: np.ndarray) -> None:
    loud = np.random.default_rng(3).standard_normal(len(english)).astype(np.float32)
    noise = english + 0.5 * float(english.std()) * loud
    decoder = engine._loaded("base")

    segments = heard(engine, noise, Options(model="base", language="en"))

    as_it_is, _ = decoder.whisper.transcribe(noise, language="en", vad_filter=True)
    assert jiwer.cer(normalize_english("".join(s.text for s in as_it_is)), normalize_english(text_of(segments))) < 0.1


def test_the_first_segment_comes_early_and_closing_ends_the_threads(weights_dir: Path, english: np.ndarray) -> None:
    engine = Engine(SETTINGS, lambda name: weights_dir / name)
    others = set(threading.enumerate())
    segments = engine.transcribe(np.tile(english, 4), Options(model="tiny.en", language="en")).segments

    first = next(segments)
    segments.close()  # type: ignore[attr-defined]
    engine.close()

    assert first.id == 0
    assert not [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("engine-")]


def test_jobs_at_once_keep_their_own_language_and_task(engine: Engine, speech: dict[str, list[Sample]]) -> None:
    clips = [(language, speech[language][-1]) for language in ("en", "es", "fr", "it", "pl", "pt")]
    wanted = [(language, "transcribe", clip) for language, clip in clips]
    wanted += [("fr", "translate", speech["fr"][-1])]

    def job(language: str, task: str, clip: Sample) -> str:
        options = Options(model="base", language=language, task=task)  # type: ignore[arg-type]
        return text_of(heard(engine, samples_of(clip), options))

    alone = [job(*each) for each in wanted]
    with ThreadPoolExecutor(len(wanted)) as threads:
        together = list(threads.map(lambda each: job(*each), wanted * 3))

    # A batch adds up in another order than one window: a letter may differ, in a language half known a word.
    errors = [jiwer.cer(normalize(before), normalize(text)) for text, before in zip(together, alone * 3, strict=True)]
    assert max(errors) < 0.5
    assert np.mean(errors) < 0.1


def test_the_language_is_voted_on_by_several_windows(engine: Engine, speech: dict[str, list[Sample]]) -> None:
    # The recording begins with a third in another language.
    samples = np.concatenate([joined(speech["es"], 20)[: 20 * SAMPLE_RATE], joined(speech["fr"], 40)])

    result = engine.transcribe(samples.astype(np.float32), Options(model="base"))
    text = text_of(list(result.segments))

    assert result.language == "fr"
    assert 0.5 < result.language_probability <= 1.0
    assert len(text.split()) > 40


def test_a_job_that_is_given_up_leaves_the_others_alone(engine: Engine, english: np.ndarray) -> None:
    options = Options(model="tiny.en", language="en")
    expected = text_of(heard(engine, english, options))

    given_up = engine.transcribe(np.tile(english, 3), options).segments
    next(given_up)
    other = engine.transcribe(english, options).segments
    given_up.close()  # type: ignore[attr-defined]

    assert jiwer.wer(normalize_english(expected), normalize_english(text_of(list(other)))) < 0.1


def test_a_window_that_cannot_be_decoded_fails_its_own_job(
    weights_dir: Path, engine: Engine, english: np.ndarray
) -> None:
    engine.load("tiny.en")
    decoder: Decoder = engine._loaded("tiny.en")
    windowed = Windowed(threads=1)
    broken = Window(0, None, (Span(0, 5 * SAMPLE_RATE),), 1500)  # type: ignore[arg-type]
    windows = list(plan(english, listen(english), decoder.shape))

    with pytest.raises(TypeError):
        list(windowed.transcribe(decoder, [broken], 5.0, Options(model="tiny.en")).segments)
    segments = list(windowed.transcribe(decoder, windows, 25.0, Options(model="tiny.en")).segments)
    windowed.close()

    assert len(text_of(segments).split()) > 40


def test_a_prompt_may_be_longer_than_whisper_takes(engine: Engine, english: np.ndarray) -> None:
    def text(times: int) -> str:
        prompt, hotwords = "It was a fine day, and they walked along the river. " * times, "John Dashwood, " * times
        options = Options(model="base", language="en", prompt=prompt, hotwords=hotwords)
        return text_of(heard(engine, english[: 10 * SAMPLE_RATE], options))

    said = (ROOT / "deploy" / "sample" / "sample.txt").read_text(encoding="utf-8")
    assert text(400) == text(300)
    assert jiwer.wer(normalize_english(said), normalize_english(text(400))) < 0.5


def test_language_detection_hears_one_window(engine: Engine, speech: dict[str, list[Sample]]) -> None:
    decoder = engine._loaded("base")
    clip = samples_of(speech["it"][-1])
    (window,) = plan(clip, listen(clip), decoder.shape)

    (decoded,) = decoder.decode([Request(window, language=None)])

    assert decoded.language == decoder.whisper.detect_language(clip)[0]
    assert decoded.languages is not None
    assert sum(decoded.languages.values()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("text", "says_again"),
    [
        ("", False),
        ("No, no, no.", False),
        ("Press one to hear it. Press two to delete it. Press three to keep it.", False),
        ("if you wish to immediately connect to the call, if you wish to immediately connect to the call,", False),
        ("I'm going to go I'm going to go I'm going to go", True),
        ("go " * 40, True),
        ("ああ" * 40, True),
    ],
)
def test_text_that_repeats_itself_is_recognised(text: str, says_again: bool) -> None:
    assert repeats(text) is says_again


def test_long_words_said_twice_are_worth_another_look() -> None:
    assert says_twice("if you wish to immediately connect to the call, if you wish to immediately connect to the call,")
    assert not says_twice("Press one to hear it. Press two to delete it. Press three to keep it.")


def test_what_is_really_said_twice_is_written_twice(engine: Engine, speech: dict[str, list[Sample]]) -> None:
    sentence = next(sample for sample in speech["en"] if "fox" in sample.text)
    once = np.concatenate([samples_of(sentence), np.zeros(SAMPLE_RATE, np.float32)])

    text = text_of(heard(engine, np.tile(once, 2), Options(model="tiny.en")))

    assert jiwer.wer(normalize_english(f"{sentence.text} {sentence.text}"), normalize_english(text)) < 0.3


def test_what_is_probably_silence_is_no_word() -> None:
    assert silent(-1.1, 0.7)
    assert not silent(-0.9, 0.7)
    assert not silent(-1.1, 0.5)
    assert not worded(" You", -0.81, 0.95)
    assert not worded(" ...", -0.1, 0.1)
    assert not worded(" you", -1.3, 0.1)
    assert worded(" Yes.", -0.4, 0.7)
    assert worded(" Yes, I am", -1.3, 0.1)


def _same_words(reference: list[Word], windowed: list[Word]) -> Iterator[tuple[Word, Word]]:
    """The words that both heard, in pairs."""
    plain = [[normalize(word.word).strip() or "." for word in words] for words in (reference, windowed)]
    for chunk in jiwer.process_words(" ".join(plain[0]), " ".join(plain[1])).alignments[0]:
        if chunk.type == "equal":
            yield from zip(
                reference[chunk.ref_start_idx : chunk.ref_end_idx],
                windowed[chunk.hyp_start_idx : chunk.hyp_end_idx],
                strict=True,
            )
