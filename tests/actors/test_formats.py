"""Every format, read back by strict parsers of other people's."""

import html
import io
import itertools
import re

import msgspec
import pytest
import srt
import webvtt
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from actors.formats import FORMATS, render
from actors.layout import PLAIN, Layout, lay_out
from storage.transcript import Segment, Transcript, Word
from tests.actors.subtitles import read_srt, read_vtt, said, transcript

_LIKE_A_CUE = re.compile(rf"^{srt.RGX_INDEX}\s*\n{srt.RGX_TIMESTAMP}", re.MULTILINE)


def as_srt(source: Transcript, layout: Layout = PLAIN) -> list[srt.Subtitle]:
    return list(srt.parse(render(source, "srt", layout).decode(), ignore_errors=False))


def as_vtt(source: Transcript, layout: Layout = PLAIN) -> list[webvtt.Caption]:
    return webvtt.from_buffer(io.BytesIO(render(source, "vtt", layout)), format="vtt").captions


def test_each_format_has_its_media_type_and_extension() -> None:
    table = {name: (kind.extension, kind.media_type) for name, kind in FORMATS.items()}

    assert table == {
        "json": ("json", "application/json; charset=utf-8"),
        "text": ("txt", "text/plain; charset=utf-8"),
        "srt": ("srt", "application/x-subrip; charset=utf-8"),
        "vtt": ("vtt", "text/vtt; charset=utf-8"),
        "tsv": ("tsv", "text/tab-separated-values; charset=utf-8"),
    }


def test_an_empty_transcript_gives_an_empty_file_of_each_format() -> None:
    empty = transcript()

    assert render(empty, "srt") == b""
    assert render(empty, "vtt") == b"WEBVTT\n"
    assert render(empty, "text") == b""
    assert render(empty, "tsv") == b"start\tend\ttext\n"
    assert msgspec.json.decode(render(empty, "json"))["segments"] == []


def test_srt_is_numbered_from_one_with_commas_and_blank_lines_between() -> None:
    two = transcript(said(" Hello.", 0.0, 1.5), said(" Good day.", 1.5, 2.25))

    assert render(two, "srt").decode() == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n00:00:01,500 --> 00:00:02,250\nGood day.\n"
    )


def test_vtt_has_its_header_and_points() -> None:
    assert render(transcript(said(" Hello.", 0.0, 1.5)), "vtt").decode() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello.\n"
    )


@pytest.mark.parametrize(
    ("seconds", "stamp"),
    [
        (3599.9996, "01:00:00,000"),
        (59.9994, "00:00:59,999"),
        (2.3, "00:00:02,300"),
        (1.0005, "00:00:01,000"),
        (1.0015, "00:00:01,002"),
        (359999.9996, "100:00:00,000"),
        (0.0, "00:00:00,000"),
        (-0.02, "00:00:00,000"),
    ],
)
def test_times_are_rounded_once_to_whole_milliseconds(seconds: float, stamp: str) -> None:
    first_time = render(transcript(said("x", seconds, seconds + 1)), "srt").decode().splitlines()[1].split(" --> ")[0]

    assert first_time == stamp


def test_vtt_counts_hours_beyond_ninety_nine() -> None:
    late = transcript(said("x", 360000.5, 360001.0))

    assert "100:00:00.500 --> 100:00:01.000" in render(late, "vtt").decode()


def test_a_cue_without_length_lasts_a_millisecond() -> None:
    [cue] = as_srt(transcript(said("x", 2.0, 2.0)))

    assert (cue.end - cue.start).total_seconds() == 0.001


def test_a_cue_that_ends_before_it_starts_lasts_a_millisecond() -> None:
    [cue] = as_vtt(transcript(said("x", 2.0, 1.0)))

    assert (cue.start, cue.end) == ("00:00:02.000", "00:00:02.001")


def test_an_arrow_in_the_text_does_not_become_a_time() -> None:
    tricky = transcript(said("go --> there", 0, 1), said("00:00:01,000 ---> 00:00:02,000", 1, 2))

    assert [cue.content for cue in as_srt(tricky)] == ["go -> there", "00:00:01,000 -> 00:00:02,000"]
    assert "go --&gt; there" in render(tricky, "vtt").decode()


def test_blank_lines_in_the_text_do_not_end_a_cue() -> None:
    tricky = transcript(said("one\n\n2\n00:00:09,000 --> 00:00:10,000\nthree\u2028four\r\n\r\nfive", 0, 1))

    [cue] = as_srt(tricky)

    assert cue.content == "one 2 00:00:09,000 -> 00:00:10,000 three four five"


def test_markup_in_the_text_is_escaped_in_vtt() -> None:
    tricky = transcript(said("<v Bob>Fish & chips</v>"))

    assert "&lt;v Bob&gt;Fish &amp; chips&lt;/v&gt;" in render(tricky, "vtt").decode()


def test_segments_without_text_make_no_cue() -> None:
    gaps = transcript(said("a", 0, 1), said(" \n ", 1, 2), said("b", 2, 3))

    assert [(cue.index, cue.content) for cue in as_srt(gaps)] == [(1, "a"), (2, "b")]


def test_tsv_is_whispers_with_tabs_and_line_ends_taken_out_of_the_text() -> None:
    tricky = transcript(said(" a\tb\nc", 0.5, 1.9996))

    assert render(tricky, "tsv").decode() == "start\tend\ttext\n500\t2000\ta b c\n"


def test_text_has_a_line_for_each_segment() -> None:
    assert render(transcript(said(" Hello,\nyou."), said(" Bye.")), "text").decode() == "Hello, you.\nBye.\n"


def test_json_has_no_words_unless_there_are_some_and_does_not_escape_letters() -> None:
    words = [Word(" Grüße", 1.0, 3.0, 0.8)]

    plain, worded = (render(transcript(said(" Grüße", words=given)), "json") for given in (None, words))

    assert "words" not in msgspec.json.decode(plain)["segments"][0]
    assert msgspec.json.decode(worded)["segments"][0]["words"] == [
        {"word": " Grüße", "start": 1.0, "end": 3.0, "confidence": 0.8}
    ]
    assert "Grüße".encode() in plain


def test_json_reads_back_as_the_same_transcript() -> None:
    original = transcript(said(" 你好", words=[Word("你好", 1.0, 3.0, 0.8)]))

    assert msgspec.json.decode(render(original, "json"), type=Transcript) == original


def test_vtt_names_what_would_not_be_seen() -> None:
    hidden = transcript(said("a\u00a0b \u200fא\u200e"))

    assert render(hidden, "vtt").decode().splitlines()[-1] == "a&nbsp;b &rlm;א&lrm;"
    assert read_vtt(render(hidden, "vtt").decode())[0].lines == ["a\u00a0b \u200fא\u200e"]


def test_vtt_says_which_channel_speaks() -> None:
    call = transcript(said("Hello?", 0, 1, channel=0), said("Who is <there>?", 2, 3, channel=1))

    captions = as_vtt(call)

    assert [(caption.voice, html.unescape(caption.text)) for caption in captions] == [
        ("Channel 1", "Hello?"),
        ("Channel 2", "Who is <there>?"),
    ]
    assert [cue.voice for cue in read_vtt(render(call, "vtt").decode())] == ["Channel 1", "Channel 2"]
    assert [cue.content for cue in as_srt(call)] == ["Hello?", "Who is <there>?"]


def test_only_subtitles_are_laid_out() -> None:
    long = transcript(said(" The quick brown fox jumps over the lazy dog, and the dog does not mind it at all."))
    narrow = Layout(max_line_width=12, max_line_count=1)

    changed = {name for name in FORMATS if render(long, name, narrow) != render(long, name)}

    assert changed == {"srt", "vtt"} == {name for name, kind in FORMATS.items() if kind.laid_out}


#: A busy machine is slow at making the first texts; that is no fault of the formats.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

#: Line ends, arrows, digits and marks are what parsers trip over, so they come often.
texts = st.lists(
    st.one_of(
        st.text(max_size=12), st.sampled_from(["-->", "\n\n", "1", "00:00:01,000", "&amp;", "<b>", "\u2028", "\x00"])
    ),
    max_size=8,
).map("".join)
#: Adding 0.0 makes -0.0 into 0.0, which would make an empty range with it.
times = st.floats(min_value=-1, max_value=400_000, allow_nan=False).map(lambda seconds: seconds + 0.0)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Segments as the engine gives them: in order, their words inside them."""
    bounds = sorted(draw(st.lists(times, max_size=12)))
    segments = []
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        spoken = draw(st.lists(texts, max_size=5))
        cuts = sorted(draw(st.lists(st.floats(start, end), min_size=len(spoken) + 1, max_size=len(spoken) + 1)))
        words = [Word(f" {word}", *span, 0.5) for word, span in zip(spoken, itertools.pairwise(cuts), strict=True)]
        text = "".join(word.word for word in words)
        segments.append(Segment(number, start, end, text, 0.5, words if draw(st.booleans()) else None))
    return transcript(*segments, language=draw(st.sampled_from(["en", "ja", "ar", "fi"])))


layouts = st.builds(
    Layout,
    max_line_width=st.integers(0, 40),
    max_line_count=st.integers(0, 3),
    max_characters_per_second=st.sampled_from([0.0, 12.5, 20.0]),
    min_cue_seconds=st.sampled_from([0.0, 0.833]),
    max_cue_seconds=st.sampled_from([0.0, 0.5, 7.0]),
    min_gap_seconds=st.sampled_from([0.0, 0.083]),
)


@patient
@given(transcripts(), layouts)
def test_any_text_and_times_make_an_srt_that_reads_back_as_its_cues(source: Transcript, layout: Layout) -> None:
    expected = lay_out(source, layout)
    # A number and below it what begins like a time: other than players, this library takes that for the next cue even
    # without an arrow, and SubRip has no escapes.
    assume(not any(_LIKE_A_CUE.search("\n".join(cue.lines)) for cue in expected))

    parsed, strict = as_srt(source, layout), read_srt(render(source, "srt", layout).decode())

    assert [cue.index for cue in parsed] == list(range(1, len(expected) + 1))
    assert [len(cue.content.split("\n")) for cue in parsed] == [len(cue.lines) for cue in expected]
    stamps = [(round(cue.start.total_seconds() * 1000), round(cue.end.total_seconds() * 1000)) for cue in parsed]
    assert stamps == [(cue.start, cue.end) for cue in expected] == [(cue.start, cue.end) for cue in strict]
    assert [len(cue.lines) for cue in strict] == [len(cue.lines) for cue in expected]


@patient
@given(transcripts(), layouts)
def test_any_text_and_times_make_a_vtt_that_reads_back_as_its_cues(source: Transcript, layout: Layout) -> None:
    expected = lay_out(source, layout)

    parsed, strict = as_vtt(source, layout), read_vtt(render(source, "vtt", layout).decode())

    assert [cue.lines for cue in strict] == [cue.lines for cue in expected]
    assert [(cue.start, cue.end) for cue in strict] == [(cue.start, cue.end) for cue in expected]
    assert [[html.unescape(line) for line in cue.lines] for cue in parsed] == [cue.lines for cue in expected]


@patient
@given(transcripts())
def test_tsv_and_text_keep_one_line_a_segment(source: Transcript) -> None:
    tsv = render(source, "tsv").decode().split("\n")[1:-1]

    assert all(line.count("\t") == 2 for line in tsv)
    assert len(tsv) == render(source, "text").decode().count("\n")
