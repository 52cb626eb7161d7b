"""The rules of subtitles as clients and settings give them: for a job, and for a transcript rendered anew."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from actors.layout import Layout
from service.errors import explain
from service.settings import ServiceSettings
from storage.structs import convert

LineWidth = Annotated[
    int,
    Meta(ge=0, le=1000, description="Columns in a subtitle's line, a wide character has two; 0: one line a segment."),
]
LineCount = Annotated[
    int, Meta(ge=0, le=1000, description="Lines in a subtitle, counted only with max_line_width; 0: any number.")
]
CharactersPerSecond = Annotated[float, Meta(ge=0, le=1000, description="Reading speed of subtitles; 0: any.")]
LeastSeconds = Annotated[float, Meta(ge=0, le=60, description="How long a subtitle is shown at least; 0: any time.")]
MostSeconds = Annotated[float, Meta(ge=0, le=3600, description="How long a subtitle is shown at most; 0: any time.")]
GapSeconds = Annotated[float, Meta(ge=0, le=10, description="Seconds between two subtitles at least; 0: none.")]


class SubtitleFields(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of Layout as they arrive. None: as the job, or the service, has it."""

    max_line_width: LineWidth | None = None
    max_line_count: LineCount | None = None
    max_characters_per_second: CharactersPerSecond | None = None
    min_cue_seconds: LeastSeconds | None = None
    max_cue_seconds: MostSeconds | None = None
    min_gap_seconds: GapSeconds | None = None

    def over(self, layout: Layout) -> Layout:
        """The layout with what is given here."""
        given = {rule: getattr(self, rule) for rule in Layout.__struct_fields__}
        return msgspec.structs.replace(layout, **{rule: value for rule, value in given.items() if value is not None})


def read_rules(query: Mapping[str, str]) -> SubtitleFields:
    """Those of a query's parameters that are rules. Empty ones count as left out.

    Raises:
        ApiError: invalid_parameter, naming the field and what it may be.
    """
    given = {name: query[name] for name in SubtitleFields.__struct_fields__ if query.get(name)}
    try:
        return convert(given, SubtitleFields, strict=False)
    except msgspec.ValidationError as error:
        raise explain(SubtitleFields, error) from error


def subtitle_rules(settings: ServiceSettings) -> Layout:
    """What subtitles follow where the client says nothing."""
    return Layout(
        max_line_width=settings.subtitle_line_width,
        max_line_count=settings.subtitle_line_count,
        max_characters_per_second=settings.subtitle_characters_per_second,
        min_cue_seconds=settings.subtitle_min_seconds,
        max_cue_seconds=settings.subtitle_max_seconds,
        min_gap_seconds=settings.subtitle_gap_seconds,
    )
