"""What a client may ask for, in a form or in JSON: the same fields with the same limits, decoded in one place."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from actors.languages import LANGUAGES
from service.errors import ApiError, explain, invalid
from storage.job import Options, Priority
from storage.model_store import MODELS

_Text = Annotated[str, Meta(max_length=4000)]
_Count = Annotated[int, Meta(ge=1, le=1000)]


class OptionFields(msgspec.Struct, frozen=True, kw_only=True):
    """The options as they arrive: all may be left out."""

    model: Annotated[
        str | None, Meta(description="Default: the configured one.", extra_json_schema={"enum": [*MODELS, None]})
    ] = None
    language: Annotated[
        str | None,
        Meta(description="ISO 639-1 code; default: detect.", extra_json_schema={"enum": [*LANGUAGES, None]}),
    ] = None
    task: Annotated[Literal["transcribe", "translate"], Meta(description="translate: into English.")] = "transcribe"
    response_format: Annotated[
        Literal["json", "text", "srt", "vtt", "tsv"], Meta(description="What the synchronous call answers.")
    ] = "json"
    timestamp_granularity: Annotated[
        Literal["segment", "word"], Meta(description="word: the JSON has the times of words, too.")
    ] = "segment"
    engine: Annotated[
        Literal["windowed", "sequential"] | None,
        Meta(description="windowed: the fast way; sequential: faster-whisper as it is; default: as the worker is set."),
    ] = None
    temperature: Annotated[
        float, Meta(ge=0, le=1, description="Where decoding starts; a window that fails is tried again at higher ones.")
    ] = 0.0
    prompt: Annotated[
        _Text | None, Meta(description="Text that precedes the recording, to set style and spelling.")
    ] = None
    hotwords: Annotated[_Text | None, Meta(description="Words to listen for.")] = None
    vad_filter: Annotated[bool, Meta(description="Leave stretches without speech out.")] = True
    max_line_width: Annotated[
        _Count | None, Meta(description="Characters in a subtitle line; default: one line a segment.")
    ] = None
    max_line_count: Annotated[_Count | None, Meta(description="Lines in a cue; counted only with max_line_width.")] = (
        None
    )
    priority: Annotated[Priority, Meta(description="Which jobs are taken first.")] = "normal"
    channels: Annotated[
        Literal["mixed", "separate"],
        Meta(description="separate: each channel is transcribed on its own, as the two sides of a call."),
    ] = "mixed"


class UploadSource(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="upload", forbid_unknown_fields=True
):
    """The client puts the recording into the store itself, with presigned links."""

    filename: Annotated[str, Meta(max_length=1024, description="For people: it names the downloads.")]
    size: Annotated[int, Meta(ge=1, description="Bytes. Signed into the links: the store refuses another size.")]
    #: It becomes a header that the client has to send, so it must be one line.
    content_type: Annotated[str, Meta(max_length=200, pattern=r"^[\w.+-]+/[\w.+-]+(;[ -~]*)?$(?!\n)")] | None = None


class ObjectSource(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="object", forbid_unknown_fields=True
):
    """The recording lies in the bucket already; deleting the job leaves it there."""

    key: Annotated[str, Meta(min_length=1, max_length=1024)]


class NewJob(OptionFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job to be made: where the recording is, and the options."""

    source: UploadSource | ObjectSource


Fields = TypeVar("Fields", bound=OptionFields)


def read_form(fields: Mapping[str, str]) -> OptionFields:
    """A form's fields. Empty ones count as left out; unknown ones are ignored: other Whisper servers know more.

    Raises:
        ApiError: invalid_parameter, naming the field and what it may be.
    """
    known = {name: value for name, value in fields.items() if name in OptionFields.__struct_fields__ and value != ""}
    try:
        options = msgspec.convert(known, OptionFields, strict=False)
    except msgspec.ValidationError as error:
        raise explain(OptionFields, error) from error
    return _with_known_names(options)


def read_job(body: bytes) -> NewJob:
    """A JSON body. Here unknown fields are refused: they are misspelt ones.

    Raises:
        ApiError: invalid_body or invalid_parameter.
    """
    if not body.strip():
        raise ApiError("invalid_body", "the body is empty; JSON is expected")
    try:
        job = msgspec.json.decode(body, type=NewJob)
    except msgspec.ValidationError as error:
        raise explain(NewJob, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError("invalid_body", f"the body is not JSON: {error}") from error
    return _with_known_names(job)


def fill_in(given: OptionFields, default_model: str) -> Options:
    """The job's options: defaults filled in, and what was asked for fits together.

    Raises:
        ApiError: invalid_parameter, the model cannot do what was asked for.
    """
    model = MODELS.get(given.model or default_model)
    # `large` and `turbo` are names of other models' weights; a worker would load them twice.
    name = model.folder if model else default_model
    if model and not model.multilingual:
        if given.language not in (None, "en"):
            raise invalid("language", f"the model {name} knows English only", ["en"])
        if given.task != "transcribe":
            raise invalid("task", f"the model {name} knows English only", ["transcribe"])
    if given.language == "yue" and not name.startswith("large-v3"):
        raise invalid("language", f"the model {name} does not know Cantonese, large-v3 does")
    fields = {field: getattr(given, field) for field in OptionFields.__struct_fields__}
    return Options(**{**fields, "model": name})


def _with_known_names(options: Fields) -> Fields:
    """The language's code in small letters, however it came."""
    if options.model is not None and options.model not in MODELS:
        raise invalid("model", f"{options.model[:100]!r} is not a known model", list(MODELS))
    if options.language is None:
        return options
    language = options.language.lower()
    if language not in LANGUAGES:
        raise invalid("language", f"{options.language[:100]!r} is not a known language code", list(LANGUAGES))
    return msgspec.structs.replace(options, language=language)
