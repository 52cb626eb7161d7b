"""Where cues and lines end in the middle of a sentence: not between words that are read together."""

import pytest

from actors.layout import Layout, lay_out
from actors.phrases import columns
from tests.actors.subtitles import said, spoken, transcript

VIEWERS = Layout(
    max_line_width=42,
    max_line_count=2,
    max_characters_per_second=20,
    min_cue_seconds=0.833,
    max_cue_seconds=7,
    min_gap_seconds=0.083,
)


def test_a_segment_that_ends_before_a_noun_does_not_make_a_cue_too_fast() -> None:
    talk = transcript(
        spoken("For a particular product received by a particular user, normally used refers", 0, 5.4),
        spoken("to a typical or common use of that class of product,", 5.4, 9),
        spoken("regardless of the status of the particular user or of the way in which the particular", 9, 12.8),
        spoken("user actually uses, or expects or is expected to use, the product.", 12.8, 17.8),
    )

    cues = lay_out(talk, VIEWERS)

    assert all(columns("".join(cue.lines)) * 1000 / (cue.end - cue.start) <= 20 for cue in cues)
    assert not any(line.endswith("particular") for cue in cues for line in cue.lines)


def test_a_segment_that_ends_after_an_auxiliary_does_not_end_a_cue() -> None:
    talk = transcript(
        spoken("and dynamically linked subprograms that the work is", 0, 3),
        spoken("specifically designed to require.", 3.1, 5),
    )

    cues = lay_out(talk, VIEWERS)

    assert [cue.lines for cue in cues] == [
        ["and dynamically linked subprograms"],
        ["that the work is specifically designed", "to require."],
    ]


def test_a_line_does_not_end_between_an_adjective_and_its_noun() -> None:
    text = "The output from running a covered work is covered by this license only"

    [cue] = lay_out(transcript(spoken(text, 0, 4)), VIEWERS)

    assert not any(line.endswith("a covered") for line in cue.lines)


@pytest.mark.parametrize(
    ("text", "language", "lines"),
    [
        ("天地玄皇宇宙 洪荒日月影子陈蘇列長", "zh", ["天地玄皇宇宙", "洪荒日月影子陈蘇列長"]),
        ("あしたは雨です うちにいます", "ja", ["あしたは雨です", "うちにいます"]),
    ],
)
def test_a_line_ends_at_a_space_rather_than_between_two_characters(text: str, language: str, lines: list[str]) -> None:
    [cue] = lay_out(transcript(said(text, 0, 6), language=language), Layout(max_line_width=20))

    assert cue.lines == lines
