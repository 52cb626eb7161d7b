"""What the decoder knew of a segment: kept where it is asked for, by both engines, wherever the segment goes."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tokenizers import Tokenizer

from actors.audio.decode import SAMPLE_RATE, decode
from actors.engine import Engine
from actors.guards import compression_ratio
from actors.settings import ActorSettings
from storage.job import Options
from storage.transcript import Details, Segment, Word, merged, shifted
from tests.conftest import ROOT

ASKED = Options(model="tiny.en", language="en", segment_details=True)
DETAILS = Details(
    tokens=[50363, 843, 50463], avg_logprob=-0.2, compression_ratio=0.9, no_speech_prob=0.01, temperature=0.0, seek=1300
)


@pytest.fixture(scope="module", params=["windowed", "sequential"])
def engine(request: pytest.FixtureRequest, weights_dir: Path) -> Iterator[Engine]:
    settings = ActorSettings(whisper_device="cpu", engine=request.param)
    engine = Engine(settings, lambda name: weights_dir / name)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def read_aloud() -> np.ndarray:
    """Ten seconds of a human voice, after five of silence and before as many."""
    with (ROOT / "deploy" / "sample" / "sample.mp3").open("rb") as file:
        voice = np.concatenate(list(decode(file)))
    silence = np.zeros(5 * SAMPLE_RATE, np.float32)
    return np.concatenate([silence, voice, silence])


@pytest.mark.parametrize("granularity", ["segment", "word"])
def test_details_are_what_the_model_said(
    engine: Engine, weights_dir: Path, read_aloud: np.ndarray, granularity: str
) -> None:
    options = msgspec.structs.replace(ASKED, timestamp_granularity=granularity)
    tokenizer = Tokenizer.from_file(str(weights_dir / "tiny.en" / "tokenizer.json"))

    segments = list(engine.transcribe(read_aloud, options).segments)

    assert segments
    for segment in segments:
        details = segment.details
        assert details is not None
        assert tokenizer.decode(details.tokens) == segment.text
        assert np.exp(details.avg_logprob) == pytest.approx(segment.confidence, abs=1e-3)
        assert details.temperature == 0
        assert 0 <= details.no_speech_prob < 0.5
        # The window's text, of which the segment's is a part or all.
        assert details.compression_ratio >= compression_ratio(segment.text) - 0.01
        assert details.compression_ratio < 2.4
        # Windows begin with the speech: after the silence, and not after what they hold.
        assert 400 <= details.seek <= round(segment.start * 100) + 1


def test_what_was_not_asked_for_is_not_there(engine: Engine, read_aloud: np.ndarray) -> None:
    segments = list(engine.transcribe(read_aloud, msgspec.structs.replace(ASKED, segment_details=False)).segments)

    assert [segment.details for segment in segments] == [None] * len(segments)
    assert "details" not in msgspec.to_builtins(segments[0])


def test_details_go_where_their_segment_goes() -> None:
    segment = Segment(0, 1.0, 2.5, " So", 0.82, [Word(" So", 1.0, 2.5, 0.9)], details=DETAILS)

    moved = shifted(segment, 61.333, channel=1)
    stored = msgspec.json.decode(msgspec.json.encode(merged([[moved], [segment]])), type=list[Segment])

    assert (moved.start, moved.end, moved.words) == (62.333, 63.833, [Word(" So", 62.333, 63.833, 0.9)])
    assert stored[0].details == DETAILS
    assert stored[1].details == msgspec.structs.replace(DETAILS, seek=1300 + 6133)
