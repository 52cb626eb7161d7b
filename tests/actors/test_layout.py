"""Subtitles as viewers get them: how text becomes cues, cues lines, and when they are shown."""

import itertools
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.layout import PLAIN, Cue, Layout, lay_out, layout_of
from actors.phrases import columns
from storage.job import Options
from storage.transcript import Segment, Transcript, Word
from tests.actors.subtitles import said, spoken, transcript

VIEWERS = Layout(
    max_line_width=42,
    max_line_count=2,
    max_characters_per_second=20,
    min_cue_seconds=0.833,
    max_cue_seconds=7,
    min_gap_seconds=0.083,
)


def texts(cues: list[Cue]) -> list[list[str]]:
    return [cue.lines for cue in cues]


def times(cues: list[Cue]) -> list[tuple[float, float]]:
    return [(cue.start / 1000, cue.end / 1000) for cue in cues]


def shown(*segments: Segment, layout: Layout = VIEWERS, language: str = "en") -> list[Cue]:
    return lay_out(transcript(*segments, language=language), layout)


# Which text is together


def test_without_rules_a_cue_is_a_segment_on_one_line() -> None:
    long = "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do."

    cues = shown(said(f" {long}", 0.25, 7.5), said(" No.", 7.5, 7.75), said(" \n ", 8, 9), layout=PLAIN)

    assert texts(cues) == [[long], ["No."]]
    assert times(cues) == [(0.25, 7.5), (7.5, 7.75)]


def test_a_long_segment_is_cut_where_its_phrases_end() -> None:
    sentence = (
        "Unless to be rather cold hearted and rather selfish is to be ill-disposed, but he was, in general, well"
        " respected, for he conducted himself with propriety in the discharge of his ordinary duties."
    )

    cues = shown(spoken(sentence, 0, 14))

    assert texts(cues) == [
        ["Unless to be rather cold hearted", "and rather selfish is to be ill-disposed,"],
        ["but he was, in general, well respected,"],
        ["for he conducted himself with propriety", "in the discharge of his ordinary duties."],
    ]


def test_short_segments_that_follow_closely_are_one_cue() -> None:
    cues = shown(spoken("Yes.", 0, 0.3), spoken("Yes.", 0.4, 0.8), spoken("Go on.", 1.0, 1.5))

    assert texts(cues) == [["Yes. Yes. Go on."]]
    assert times(cues) == [(0, 1.5)]


def test_a_long_pause_parts_what_is_short() -> None:
    cues = shown(spoken("Yes.", 0, 0.3), spoken("Go on.", 2.4, 2.9))

    assert texts(cues) == [["Yes."], ["Go on."]]


def test_sentences_that_can_be_read_alone_stay_alone() -> None:
    cues = shown(
        spoken("He was not an ill-disposed young man.", 0, 2.5), spoken("She knew him all too well.", 2.5, 4.5)
    )

    assert texts(cues) == [["He was not an ill-disposed young man."], ["She knew him all too well."]]


def test_a_segment_that_ends_in_the_middle_of_a_phrase_goes_on_in_the_same_cue() -> None:
    cues = shown(spoken("we found the old house at the end of the", 0, 3), spoken("road quite empty.", 3, 4))

    assert texts(cues) == [["we found the old house", "at the end of the road quite empty."]]
    assert times(cues) == [(0, 4)]


def test_voices_of_two_channels_are_never_one_cue() -> None:
    left, right = said(" Hello.", 0, 0.5, channel=0), said(" Hello.", 0.6, 1.1, channel=1)

    cues = shown(left, right)

    assert [(cue.channel, cue.lines) for cue in cues] == [(0, ["Hello."]), (1, ["Hello."])]


def test_speech_that_is_slow_is_cut_before_it_stands_too_long() -> None:
    cues = shown(spoken("We are now approaching the station, please mind the gap.", 0, 12))

    assert texts(cues) == [["We are now approaching the station,"], ["please mind the gap."]]
    assert all(cue.end - cue.start <= 7000 for cue in cues)


# Lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("I have never been to the capital of the country.", ["I have never been to the capital", "of the country."]),
        ("When the rain stopped, we all went outside again.", ["When the rain stopped,", "we all went outside again."]),
        ("It was Mr. Bennet who told the Bingleys about it.", ["It was Mr. Bennet", "who told the Bingleys about it."]),
        ("This one stays on a line that has room for it.", ["This one stays on a line", "that has room for it."]),
        ("Forty-three columns do not fit into a line.", ["Forty-three columns", "do not fit into a line."]),
        ("As many as forty-two columns on this line.", ["As many as forty-two columns on this line."]),
    ],
)  # fmt: skip
def test_a_line_is_broken_at_a_phrase_and_not_after_an_article_or_a_title(text: str, lines: list[str]) -> None:
    assert texts(shown(spoken(text, 0, 4))) == [lines]


@pytest.mark.parametrize(
    ("language", "text", "lines"),
    [
        ("de", "Die Würde des Menschen ist unantastbar, und sie zu achten ist Pflicht.",
         ["Die Würde des Menschen ist unantastbar,", "und sie zu achten ist Pflicht."]),
        ("fr", "Nous avons attendu longtemps devant la porte de la maison.",
         ["Nous avons attendu longtemps", "devant la porte de la maison."]),
        ("es", "Los niños jugaban en el parque mientras llovía a cántaros.",
         ["Los niños jugaban en el parque", "mientras llovía a cántaros."]),
    ],
)  # fmt: skip
def test_other_languages_have_phrases_too(language: str, text: str, lines: list[str]) -> None:
    assert texts(shown(spoken(text, 0, 5), language=language)) == [lines]


def test_no_short_word_is_left_alone_on_a_line() -> None:
    cues = shown(spoken("Consequently nobody understood whatever happened so.", 0, 4))

    assert all(len(line.split()) > 1 for cue in cues for line in cue.lines)


def test_only_a_word_longer_than_the_line_is_broken() -> None:
    cues = shown(said("a Donaudampfschiff b"), layout=Layout(max_line_width=8))

    assert texts(cues) == [["a", "Donaudam", "pfschiff", "b"]]


def test_a_broken_word_keeps_marks_with_their_letters() -> None:
    [cue] = shown(said("नमस्तेदुनिया"), layout=Layout(max_line_width=4))

    assert "".join(cue.lines) == "नमस्तेदुनिया"
    assert not any(line[0] in "ाि्ेु" for line in cue.lines)


def test_a_no_break_space_keeps_its_words_on_one_line() -> None:
    cues = shown(said("Combien de temps faut-il attendre\u00a0?"), layout=Layout(max_line_width=34, max_line_count=2))

    assert [line for cue in cues for line in cue.lines][-1].endswith("attendre\u00a0?")


# Wide characters, and those from the right


def test_wide_characters_take_two_columns() -> None:
    [cue] = shown(said("いろはにほへと散りぬるを", 0, 4), layout=Layout(max_line_width=10, max_line_count=3))

    assert len(cue.lines) == 3
    assert all(columns(line) <= 10 and len(line) <= 5 for line in cue.lines)


def test_japanese_is_broken_after_its_punctuation_and_never_before_it() -> None:
    text = "東京は午前中は晴れますが、午後からは雨が降るでしょう。"

    assert texts(shown(said(text, 0, 6), language="ja")) == [
        ["東京は午前中は晴れますが、", "午後からは雨が降るでしょう。"]
    ]


@pytest.mark.parametrize("width", range(10, 30))
def test_no_line_begins_or_ends_with_what_kinsoku_forbids(width: int) -> None:
    text = "彼は「それは、ちょっと（いや、かなり）ひどいね！」と言って、コーヒーを飲んだ。"

    cues = shown(said(text, 0, 10), layout=Layout(max_line_width=width, max_line_count=2), language="ja")
    lines = [line for cue in cues for line in cue.lines]

    assert "".join(lines) == text
    assert not any(line[0] in "、。」）！ーっょ" or line[-1] in "「（" for line in lines)


def test_a_foreign_word_among_characters_is_not_broken() -> None:
    cues = shown(
        said("我们今天用Python写一个很小的程序", 0, 5),
        layout=Layout(max_line_width=14, max_line_count=2),
        language="zh",
    )

    assert any("Python" in line for cue in cues for line in cue.lines)


def test_korean_is_broken_between_its_words() -> None:
    text = "오늘은 날씨가 매우 좋아서 우리는 공원에 산책하러 갔습니다."

    lines = [line for cue in shown(said(text, 0, 5), language="ko") for line in cue.lines]

    assert " ".join(lines) == text
    assert all(columns(line) <= 42 for line in lines)


def test_a_line_of_a_right_to_left_text_that_begins_with_a_foreign_word_keeps_its_direction() -> None:
    text = "Google شركة كبيرة جدا في العالم، Microsoft شركة كبيرة أخرى"

    [cue] = shown(said(text, 0, 5), language="ar")

    assert cue.lines == ["\u200fGoogle شركة كبيرة جدا في العالم،", "\u200fMicrosoft شركة كبيرة أخرى"]


# Times


def test_cues_begin_and_end_with_their_words_where_these_are_known() -> None:
    words = [
        Word(" aaaa", 10.1, 11, 1),
        Word(" bbbb", 11, 11.5, 1),
        Word(" cccc", 14.2, 15, 1),
        Word(" dddd", 15, 15.9, 1),
    ]

    cues = shown(said(" aaaa bbbb cccc dddd", 10.0, 18.0, words), layout=Layout(max_line_width=4, max_line_count=2))

    assert texts(cues) == [["aaaa", "bbbb"], ["cccc", "dddd"]]
    assert times(cues) == [(10.1, 11.5), (14.2, 15.9)]


def test_without_words_a_cue_has_its_letters_share_of_the_segment() -> None:
    cues = shown(said("aaaa bbbb cccc dddd", 10.0, 18.0), layout=Layout(max_line_width=4, max_line_count=2))

    assert times(cues) == [(10, 14), (14, 18)]


def test_words_that_are_cut_otherwise_than_the_text_still_give_the_times() -> None:
    words = [Word("今天", 1.0, 2.0, 1), Word("天气，", 2.0, 3.0, 1), Word("很", 6.0, 6.5, 1), Word("好。", 6.5, 7.5, 1)]

    cues = shown(said("今天天气，很好。", 1.0, 7.5, words), layout=VIEWERS, language="zh")

    assert texts(cues) == [["今天天气，"], ["很好。"]]
    assert times(cues)[1] == (6.0, 7.5)


def test_a_short_cue_stays_until_it_can_be_read_but_not_into_the_next() -> None:
    cues = shown(spoken("Stop!", 0, 0.2), spoken("Right there, in the middle.", 5.0, 7.0), spoken("No!", 9.7, 9.8))

    assert times(cues) == [(0, 0.833), (5.0, 7.0), (9.7, 10.533)]


def test_fast_speech_stays_until_it_is_read_where_there_is_time() -> None:
    cues = shown(spoken("Sixty columns were said within one second, or nearly sixty.", 0, 1), spoken("Well.", 9, 10))

    assert times(cues)[0] == (0, 2.5)


def test_a_gap_is_taken_from_the_end_of_the_earlier_cue() -> None:
    cues = shown(
        spoken("He was not an ill-disposed young man.", 0, 2.5), spoken("She knew him all too well.", 2.5, 4.5)
    )

    assert times(cues) == [(0, 2.417), (2.5, 4.5)]


def test_a_cue_is_not_shown_longer_than_allowed() -> None:
    cues = shown(said(" Mmmm.", 2, 30))

    assert times(cues) == [(2, 9)]


def test_two_voices_at_once_share_the_time_by_their_text() -> None:
    talks, agrees = (
        said(" I told you that it would be like this.", 0, 6, channel=0),
        said(" Yes, yes.", 2, 3, channel=1),
    )

    cues = shown(talks, agrees)

    assert cues[0].end <= cues[1].start
    assert all(cue.end - cue.start >= 833 for cue in cues)


def test_a_job_that_was_made_before_there_were_rules_has_none() -> None:
    assert layout_of(Options(model="base")) == PLAIN
    assert layout_of(Options(model="base", max_line_width=42)) == Layout(max_line_width=42)


# Whatever comes

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

_ENGLISH = ["the", "a", "of", "and", "Mr.", "house,", "went.", "is", "3", "I", "don't", "—", "(so)", "“well”", "John"]
_OTHERS = [
    "Donaudampfschiff",
    "今日は、",
    "「東京」",
    "天气",
    "ラーメン",
    "שלום",
    "العربية",
    "é̂",
    "नमस्ते",
    "한국어를",
    "a\u00a0b",
]
words: st.SearchStrategy[str] = st.sampled_from(_ENGLISH) | st.sampled_from(_OTHERS) | st.text(min_size=1, max_size=9)


@st.composite
def talks(draw: st.DrawFn) -> Transcript:
    """Segments in the order of time, as two engines and any number of channels give them."""
    clock = 0.0
    segments: list[Segment] = []
    for number in range(draw(st.integers(0, 8))):
        clock += draw(st.sampled_from([-0.5, 0.0, 0.0, 0.2, 1.0, 4.0]))
        start = max(clock, segments[-1].start if segments else 0.0)
        text = " ".join(draw(st.lists(words, min_size=1, max_size=25)))
        end = clock = start + draw(st.sampled_from([0.0, 0.3, 1.0, 3.7, 9.0]))
        timed = draw(st.booleans()) and bool(text.split())
        segment = spoken(text, start, end) if timed else said(text, start, end)
        channel = draw(st.sampled_from([None, None, 0, 1]))
        segments.append(Segment(number, start, end, segment.text, 0.9, segment.words, channel))
    return transcript(*segments, language=draw(st.sampled_from(["en", "de", "ja", "zh", "ar", "th", ""])))


layouts = st.builds(
    Layout,
    max_line_width=st.sampled_from([0, 1, 2, 7, 20, 42, 200, 1000]),
    max_line_count=st.sampled_from([0, 1, 2, 3, 1000]),
    max_characters_per_second=st.sampled_from([0.0, 5e-324, 12.0, 20.0, 1000.0]),
    min_cue_seconds=st.sampled_from([0.0, 5e-324, 0.833, 5.0, 60.0]),
    max_cue_seconds=st.sampled_from([0.0, 5e-324, 0.4, 7.0, 3600.0]),
    min_gap_seconds=st.sampled_from([0.0, 5e-324, 0.083, 2.0, 10.0]),
)


@patient
@given(talks(), layouts)
def test_cues_never_overlap_and_fit_their_lines(talk: Transcript, layout: Layout) -> None:
    cues = lay_out(talk, layout)

    assert all(cue.start < cue.end for cue in cues)
    assert all(before.end <= after.start for before, after in itertools.pairwise(cues))
    assert all(line.strip() and line == line.strip(" ") for cue in cues for line in cue.lines)
    if layout.max_line_width > 1:
        assert all(columns(line) <= layout.max_line_width for cue in cues for line in cue.lines)
    if layout.max_line_width and layout.max_line_count:
        assert all(len(cue.lines) <= layout.max_line_count for cue in cues)
    if layout.max_cue_seconds:
        assert all(cue.end - cue.start <= max(layout.max_cue_seconds * 1000, 1) for cue in cues)


@patient
@given(talks(), layouts)
def test_no_letter_is_lost_or_moved(talk: Transcript, layout: Layout) -> None:
    def letters(rules: Layout) -> str:
        text = "".join(line for cue in lay_out(talk, rules) for line in cue.lines)
        return "".join(text.replace("\u200f", "").split())

    assert letters(layout) == letters(PLAIN)


@patient
@given(talks())
def test_a_cue_begins_in_its_own_speech(talk: Transcript) -> None:
    cues = lay_out(talk, VIEWERS)

    spans = [(round(segment.start * 1000), round(segment.end * 1000)) for segment in talk.segments]
    assert all(cue.start >= min((start for start, _ in spans), default=0) for cue in cues)
    # What is said in order and without haste is shown in order and in time.
    if all(before[1] + 3000 <= after[0] for before, after in itertools.pairwise(spans)):
        assert all(any(start <= cue.start <= end for start, end in spans) for cue in cues)


def test_three_hours_with_words_are_laid_out_in_well_under_a_second() -> None:
    sentence = (
        "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do."
    )
    hours = transcript(*[spoken(sentence, at * 3.6, at * 3.6 + 3.5) for at in range(3000)])
    lay_out(hours, VIEWERS)

    began = time.process_time()
    cues = lay_out(hours, VIEWERS)
    seconds = time.process_time() - began

    assert len(cues) > 3000
    # A fifth of this on an idle core.
    assert seconds < 2
