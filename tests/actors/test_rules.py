"""What the report says of subtitles that break their rules, each rule by the smallest cue that breaks it."""

import msgspec
import pytest
from hypothesis import given

from actors.layout import PLAIN, Cue, Layout, lay_out
from actors.phrases import columns
from actors.rules import breaches, report
from storage.transcript import Transcript
from tests.actors.subtitles import spoken, transcript
from tests.actors.test_layout import VIEWERS, layouts, patient, talks


@pytest.mark.parametrize(
    ("cues", "expected"),
    [
        ([Cue(0, 4000, ["a" * 43])], [(1, "max_line_width", 43, 42)]),
        ([Cue(0, 4000, ["今" * 22])], [(1, "max_line_width", 44, 42)]),
        ([Cue(0, 4000, ["aa bb", "cc dd", "ee ff"])], [(1, "max_line_count", 3, 2)]),
        ([Cue(0, 1999, ["a" * 40])], [(1, "max_characters_per_second", 20.01, 20)]),
        ([Cue(0, 832, ["Yes."])], [(1, "min_cue_seconds", 0.832, 0.833)]),
        ([Cue(0, 7001, ["Yes."])], [(1, "max_cue_seconds", 7.001, 7)]),
        ([Cue(0, 4000, ["Yes."]), Cue(4082, 6000, ["No."])], [(1, "min_gap_seconds", 0.082, 0.083)]),
        ([Cue(0, 4000, ["This is not how it is", "done."])], [(1, "lone_word", 1, 2)]),
        ([Cue(0, 2000, ["a" * 40]), Cue(2083, 2916, ["Yes."])], []),
    ],
)
def test_a_breach_names_cue_rule_value_and_limit(
    cues: list[Cue], expected: list[tuple[int, str, float, float]]
) -> None:
    found = [(breach.cue, breach.rule, breach.value, breach.limit) for breach in breaches(cues, VIEWERS)]

    assert found == expected


def test_rules_that_are_off_are_not_broken() -> None:
    cues = [Cue(0, 1, ["a" * 500]), Cue(1, 90_000, ["b", "c", "d"])]

    assert list(breaches(cues, PLAIN)) == []


def test_speech_that_is_too_fast_is_reported_with_its_place() -> None:
    fast = "More letters than anybody can read in a single second are spoken here in haste."
    talk = transcript(
        spoken("He was not.", 0, 2), spoken(fast, 5.25, 6), spoken("It ends as slowly as it began, and in peace.", 6, 9)
    )

    found = report(talk, VIEWERS)

    assert found.cues == 3
    assert [(breach.cue, breach.start, breach.rule, breach.limit) for breach in found.breaches] == [
        (2, 5.25, "max_characters_per_second", 20)
    ]
    assert found.breaches[0].value > 90
    assert msgspec.json.decode(msgspec.json.encode(found))["rules"]["max_line_width"] == 42


@patient
@given(talks(), layouts)
def test_what_the_layout_can_help_is_never_in_a_report(talk: Transcript, layout: Layout) -> None:
    rules = {breach.rule for breach in breaches(lay_out(talk, layout), layout)}

    if layout.max_line_width > 1:
        assert "max_line_width" not in rules
    assert not rules & {"max_line_count"}
    # A cue has a millisecond at least.
    assert layout.max_cue_seconds < 0.001 or "max_cue_seconds" not in rules


def test_the_report_reads_lines_as_wide_as_the_layout_does() -> None:
    assert (columns("今日はx"), columns("e\u0301"), columns("\u200fabc")) == (7, 1, 3)
