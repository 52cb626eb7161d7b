"""Every format, read back by strict parsers of other people's."""

import html
import io
import itertools

import msgspec
import pytest
import srt
import webvtt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.formats import FORMATS, Layout, cues, render
from storage.transcript import Segment, Transcript, Word


def transcript(*segments: Segment) -> Transcript:
    text = "".join(segment.text for segment in segments).strip()
    return Transcript(text, "en", 0.98, 7200.0, 1.5, list(segments))


def said(text: str, start: float = 1.0, end: float = 3.0, words: list[Word] | None = None) -> Segment:
    return Segment(0, start, end, text, 0.9, words)


def as_srt(source: Transcript, width: int | None = None, count: int | None = None) -> list[srt.Subtitle]:
    return list(srt.parse(render(source, "srt", width, count).decode(), ignore_errors=False))


def as_vtt(source: Transcript, width: int | None = None, count: int | None = None) -> list[webvtt.Caption]:
    return webvtt.from_buffer(io.BytesIO(render(source, "vtt", width, count)), format="vtt").captions


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


def test_lines_are_wrapped_between_words() -> None:
    [cue] = as_srt(transcript(said("The quick brown fox jumps over the lazy dog")), width=16)

    assert cue.content.splitlines() == ["The quick brown", "fox jumps over", "the lazy dog"]


def test_only_a_word_longer_than_the_line_is_broken() -> None:
    [cue] = as_srt(transcript(said("a Donaudampfschiff b")), width=8)

    assert cue.content.splitlines() == ["a", "Donaudam", "pfschiff", "b"]


def test_a_language_without_spaces_is_wrapped_too() -> None:
    [cue] = as_srt(transcript(said("いろはにほへと散りぬるを")), width=5)

    assert cue.content.splitlines() == ["いろはにほ", "へと散りぬ", "るを"]


def test_a_broken_word_keeps_marks_with_their_letters() -> None:
    [cue] = as_srt(transcript(said("नमस्तेदुनिया")), width=5)

    assert not any(line[0] in "ाि्ेु" for line in cue.content.splitlines())


def test_too_many_lines_become_several_cues_in_proportion_to_their_letters() -> None:
    parts = as_srt(transcript(said("aaaa bbbb cccc dddd", 10.0, 18.0)), width=4, count=2)

    assert [(cue.content, cue.start.total_seconds(), cue.end.total_seconds()) for cue in parts] == [
        ("aaaa\nbbbb", 10.0, 14.0),
        ("cccc\ndddd", 14.0, 18.0),
    ]


def test_cues_are_cut_at_the_times_of_their_words_where_these_are_known() -> None:
    words = [
        Word(" aaaa", 10.1, 11, 1),
        Word(" bbbb", 11, 11.5, 1),
        Word(" cccc", 16.5, 17, 1),
        Word(" dddd", 17, 17.9, 1),
    ]

    parts = as_srt(transcript(said(" aaaa bbbb cccc dddd", 10.0, 18.0, words)), width=4, count=2)

    assert [(cue.start.total_seconds(), cue.end.total_seconds()) for cue in parts] == [(10.0, 11.5), (16.5, 18.0)]


def test_a_line_count_alone_changes_nothing() -> None:
    one = transcript(said("The quick brown fox jumps over the lazy dog"))

    assert render(one, "srt", None, 1) == render(one, "srt")


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
    return transcript(*segments)


layouts = st.builds(Layout, st.none() | st.integers(1, 40), st.none() | st.integers(1, 3))


@patient
@given(transcripts(), layouts)
def test_any_text_and_times_make_an_srt_that_reads_back_as_its_cues(source: Transcript, layout: Layout) -> None:
    expected = list(cues(source, layout))

    parsed = as_srt(source, layout.max_line_width, layout.max_line_count)

    assert [cue.index for cue in parsed] == list(range(1, len(expected) + 1))
    assert [len(cue.content.split("\n")) for cue in parsed] == [len(cue.lines) for cue in expected]
    stamps = [(round(cue.start.total_seconds() * 1000), round(cue.end.total_seconds() * 1000)) for cue in parsed]
    assert stamps == [(cue.start, cue.end) for cue in expected]


@patient
@given(transcripts(), layouts)
def test_any_text_and_times_make_a_vtt_that_reads_back_as_its_cues(source: Transcript, layout: Layout) -> None:
    expected = list(cues(source, layout))

    parsed = as_vtt(source, layout.max_line_width, layout.max_line_count)

    assert [[html.unescape(line) for line in cue.lines] for cue in parsed] == [cue.lines for cue in expected]


@patient
@given(transcripts(), layouts)
def test_cues_are_in_order_last_a_millisecond_and_fit_their_lines(source: Transcript, layout: Layout) -> None:
    made = list(cues(source, layout))

    assert all(cue.start < cue.end for cue in made)
    assert all(before.end <= after.start for before, after in itertools.pairwise(made))
    assert all(line.strip() for cue in made for line in cue.lines)
    if layout.max_line_width:
        assert all(len(line) <= layout.max_line_width for cue in made for line in cue.lines)
        assert all(len(cue.lines) <= (layout.max_line_count or len(cue.lines)) for cue in made)


@patient
@given(transcripts(), st.integers(1, 40), st.integers(1, 3))
def test_no_letter_is_lost_by_wrapping_and_cutting(source: Transcript, width: int, count: int) -> None:
    def letters(layout: Layout) -> str:
        return "".join("".join(cue.lines) for cue in cues(source, layout)).replace(" ", "")

    assert letters(Layout(width, count)) == letters(Layout())


@patient
@given(transcripts())
def test_tsv_and_text_keep_one_line_a_segment(source: Transcript) -> None:
    tsv = render(source, "tsv").decode().split("\n")[1:-1]

    assert all(line.count("\t") == 2 for line in tsv)
    assert len(tsv) == render(source, "text").decode().count("\n")
