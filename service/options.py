"""What a client may ask for, in a form or in JSON: the same fields with the same limits, decoded in one place."""

import codecs
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from actors.languages import LANGUAGES, LanguageUnknown, parse_language
from actors.layout import Layout
from service.errors import ApiError, explain, invalid
from service.model_names import ModelNames, ModelUnknown
from service.subtitles import SubtitleFields
from storage.errors import quoted
from storage.job import Options, Priority
from storage.model_store import MODELS
from storage.structs import NOT_JSON, convert, decode, why_not_json

_Text = Annotated[str, Meta(max_length=4000)]
#: Characters of a prompt that are kept, its last ones. Whisper reads the last 223 tokens, which are fewer.
_PROMPT_CHARACTERS = 4000
WebhookUrl = Annotated[str, Meta(max_length=2000)]


class OptionFields(SubtitleFields, frozen=True, kw_only=True):
    """The options as they arrive: all may be left out."""

    model: Annotated[
        str | None,
        Meta(description="Also a hub's or OpenAI's name; default: the configured one.", examples=list(MODELS)),
    ] = None
    language: Annotated[
        str | None,
        Meta(description="A code, a tag as en-US, or an English name; default, and auto: detect.", examples=["en"]),
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
        str | None,
        Meta(description="Text that precedes the recording, to set style and spelling. Of a long one the end counts."),
    ] = None
    hotwords: Annotated[_Text | None, Meta(description="Words to listen for.")] = None
    vad_filter: Annotated[bool, Meta(description="Leave stretches without speech out.")] = True
    priority: Annotated[Priority, Meta(description="Which jobs are taken first.")] = "normal"
    channels: Annotated[
        Literal["mixed", "separate"],
        Meta(description="separate: each channel is transcribed on its own, as the two sides of a call."),
    ] = "mixed"
    audio_track: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64)] | Annotated[int, Meta(ge=1, le=1000)] | None,
        Meta(
            description="Of a file with several: a number, counted from 1, or a language; default: the main one.",
            examples=[2, "en"],
        ),
    ] = None
    segment_details: Annotated[
        bool, Meta(description="The JSON has what the decoder knew of each segment: its tokens and probabilities.")
    ] = False
    webhook_url: Annotated[
        WebhookUrl | None, Meta(description="Where the job is posted to when it has ended, in place of the key's own.")
    ] = None


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


class UrlSource(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="url", forbid_unknown_fields=True):
    """A worker fetches the recording; `source.size` of the job is 0 until it has it."""

    url: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4096,
            description="http or https, without a user, at a public address. Nobody is shown it again.",
            examples=["https://example.org/talk.mp3"],
        ),
    ]


class NewJob(OptionFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job to be made: where the recording is, and the options."""

    source: UploadSource | ObjectSource | UrlSource


Fields = TypeVar("Fields", bound=OptionFields)
Kind = TypeVar("Kind", bound=msgspec.Struct)


def read_form(fields: Mapping[str, str], names: ModelNames) -> OptionFields:
    """A form's fields. Empty ones count as left out; unknown ones are ignored: other Whisper servers know more.

    Raises:
        ApiError: invalid_parameter, naming the field and what it may be.
    """
    known = {name: value for name, value in fields.items() if name in OptionFields.__struct_fields__ and value != ""}
    try:
        options = convert(known, OptionFields, strict=False)
    except msgspec.ValidationError as error:
        raise explain(OptionFields, error) from error
    return _with_known_names(options, names)


def read_job(body: bytes, names: ModelNames) -> NewJob:
    """A JSON body. Here unknown fields are refused: they are misspelt ones. Raises as read_json."""
    return _with_known_names(read_json(body, NewJob), names)


def read_json(body: bytes, kind: type[Kind]) -> Kind:
    """
    Raises:
        ApiError: invalid_body or invalid_parameter.
    """
    if not body.strip():
        raise ApiError("invalid_body", "the body is empty; JSON is expected")
    try:
        return decode(body, kind)
    except msgspec.ValidationError as error:
        raise explain(kind, error) from error
    except NOT_JSON as error:
        raise ApiError("invalid_body", f"the body is not JSON: {why_not_json(error)}") from error


class _Sidecar(OptionFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options in an object beside the recording."""


def read_sidecar(body: bytes, beneath: OptionFields, names: ModelNames) -> OptionFields:
    """A JSON object of options, over those that it lies on top of. As in a request's body, unknown ones are refused.

    Raises:
        ApiError: invalid_body or invalid_parameter.
    """
    try:
        # Windows' editors begin a text with a mark that JSON does not know.
        fields = decode(body.removeprefix(codecs.BOM_UTF8), dict[str, Any])
        given = convert(fields, _Sidecar)
    except msgspec.ValidationError as error:
        raise explain(_Sidecar, error) from error
    except NOT_JSON as error:
        raise ApiError("invalid_body", f"it is not JSON: {why_not_json(error)}") from error
    over = {name: getattr(given, name) for name in fields}
    return _with_known_names(msgspec.structs.replace(beneath, **over), names)


def fill_in(given: OptionFields, default_model: str, layout: Layout) -> Options:
    """The job's options: defaults filled in, and what was asked for fits together. `layout`: subtitle_rules.

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
    return Options(**{**fields, **msgspec.structs.asdict(given.over(layout)), "model": name})


def _with_known_names(options: Fields, names: ModelNames) -> Fields:
    """The model and the language by our names, the track as text, and of the prompt what can be read of it."""
    try:
        model = names.find(options.model or "")
    except ModelUnknown as error:
        raise invalid("model", f"{quoted(options.model or '')} is not a known model", list(MODELS)) from error
    try:
        language = parse_language(options.language or "")
    except LanguageUnknown as error:
        detail = f"{quoted(options.language or '')} is not a known language"
        raise invalid("language", detail, list(LANGUAGES)) from error
    track = None if options.audio_track is None else str(options.audio_track).strip()
    if track is not None and (not track or (track.isdecimal() and not int(track))):
        raise invalid("audio_track", "it is a number, counted from 1, or a language")
    prompt = None if options.prompt is None else options.prompt[-_PROMPT_CHARACTERS:]
    return msgspec.structs.replace(options, model=model, language=language, prompt=prompt, audio_track=track)
