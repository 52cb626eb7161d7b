"""How subtitles are laid out: the rules that a job or a request may set."""

import msgspec

from storage.job import Options


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The rules. Zero: the rule is off; with all of them off a cue is one segment on one line.

    Widths are columns: a wide character (Chinese, Japanese, Korean) takes two, a mark that stands on a letter none.
    """

    #: Columns in a line.
    max_line_width: int = 0
    #: Lines in a cue, counted only with max_line_width.
    max_line_count: int = 0
    #: Reading speed; a cue that would be faster stays longer where there is time.
    max_characters_per_second: float = 0.0
    min_cue_seconds: float = 0.0
    max_cue_seconds: float = 0.0
    #: Between the end of a cue and the start of the next.
    min_gap_seconds: float = 0.0


#: A cue a segment, on one line.
PLAIN = Layout()


def layout_of(options: Options) -> Layout:
    """What the job asks for."""
    return Layout(**{rule: getattr(options, rule) or 0 for rule in Layout.__struct_fields__})
