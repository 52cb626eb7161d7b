"""What a form of OpenAI's API asks for, in our own options. Fields that we do not know are ignored."""

from typing import Literal, get_args

import msgspec

from service.errors import ApiError, invalid
from service.model_names import ModelNames, ModelUnknown
from service.options import OptionFields, read_form
from service.uploads import Fields, FormShape
from storage.errors import quoted
from storage.structs import convert

Task = Literal["transcribe", "translate"]
Format = Literal["json", "text", "srt", "verbose_json", "vtt"]

#: Samples of voices come as text of any length, and nobody is told apart by them here.
SHAPE = FormShape(dropped=frozenset({"known_speaker_references", "known_speaker_references[]"}), json=True)

GRANULARITIES = ("segment", "word")
#: Formats of which a stream can say what they would.
_STREAMED = ("json", "text")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How the answer is to look; what is to be done is in the job's options."""

    format: Format = "json"
    #: Segments, and words, in verbose_json.
    segments: bool = True
    words: bool = False
    #: The text is sent while it is found.
    stream: bool = False


def read_options(fields: Fields, task: Task, names: ModelNames) -> OptionFields:
    """Our own fields are taken as in the classic form. `translate` is not to be talked out of.

    Raises:
        ApiError: invalid_parameter, model_not_found.
    """
    wanted, given = read_wanted(fields, task), dict(fields)
    find_model(given.get("model", ""), names)
    verbose = wanted.format == "verbose_json"
    given["response_format"] = "json" if verbose else wanted.format
    if verbose:
        given["segment_details"] = "true"
    if wanted.words:
        given["timestamp_granularity"] = "word"
    if task == "translate":
        given["task"] = task
    if keywords := _every(fields, "keywords"):
        given.setdefault("hotwords", ", ".join(keywords))
    if len(languages := _every(fields, "languages")) == 1:
        given.setdefault("language", languages[0])
    return read_form(given, names)


def find_model(given: str, names: ModelNames) -> str | None:
    """As ModelNames.find.

    Raises:
        ApiError: model_not_found.
    """
    try:
        return names.find(given)
    except ModelUnknown as error:
        detail = f"the model {quoted(given)} does not exist here; there are {', '.join(names.listed)}"
        raise ApiError("model_not_found", detail, field="model") from error


def read_wanted(fields: Fields, task: Task) -> Wanted:
    """
    Raises:
        ApiError: invalid_parameter.
    """
    given = dict(fields)
    format = given.get("response_format") or "json"
    if format not in get_args(Format):
        why = (
            "speakers are not told apart here" if format == "diarized_json" else f"{quoted(format)} is not one of them"
        )
        raise invalid("response_format", why, get_args(Format))
    granularities = _every(fields, "timestamp_granularities")
    if unknown := [name for name in granularities if name not in GRANULARITIES]:
        raise invalid("timestamp_granularities[]", f"{quoted(unknown[0])} is not one of them", GRANULARITIES)
    # As OpenAI does with whisper-1, a stream of subtitles or of verbose_json is answered whole.
    stream = _flag(given.get("stream", ""), "stream") and task == "transcribe" and format in _STREAMED
    return Wanted(
        format=msgspec.convert(format, Format),  # noqa: TID251 no struct
        segments="segment" in granularities or not granularities,
        words="word" in granularities or given.get("timestamp_granularity") == "word",
        stream=stream,
    )


def _every(fields: Fields, name: str) -> list[str]:
    """The values of a list, whichever way it is spelled."""
    return [value for field, value in fields if field in (name, f"{name}[]") and value]


def _flag(text: str, name: str) -> bool:
    try:
        return convert(text or "false", bool, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(name, f"{quoted(text)} is neither", ["true", "false"]) from error
