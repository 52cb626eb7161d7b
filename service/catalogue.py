"""What there is to choose from: models and languages."""

import msgspec
from litestar import get

from actors.languages import LANGUAGES
from service.backend import Backend
from service.errors import problems
from storage.model_store import MODELS


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    #: Bytes of the weights.
    size: int
    #: False: English only.
    multilingual: bool
    #: The weights are at hand: in the directory or in the bucket.
    available: bool
    #: A live worker has it in memory.
    loaded: bool
    #: The hub's name.
    repository: str
    #: The name under which its weights are kept; another one's where this is only another name of them.
    weights: str


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    models: list[ModelView]
    #: What a request without a model gets.
    current_model: str


class Language(msgspec.Struct, frozen=True):
    code: str
    #: In English.
    name: str


class LanguageList(msgspec.Struct, frozen=True):
    languages: list[Language]


_LANGUAGES = LanguageList([Language(code, name) for code, name in LANGUAGES.items()])


@get(
    "/models",
    summary="Whisper models",
    tags=["Catalogue"],
    sync_to_thread=True,
    responses=problems("unauthorized", "rate_limited", "queue_unavailable", "storage_unavailable"),
)
def list_models(backend: Backend) -> ModelList:
    """Every model that faster-whisper knows."""
    loaded = {name for worker in backend.jobs.workers() for name in worker.models}
    models = [
        ModelView(
            name=name,
            size=model.size_bytes,
            multilingual=model.multilingual,
            available=backend.models.available(name),
            loaded=name in loaded or model.folder in loaded,
            repository=model.repository,
            weights=model.folder,
        )
        for name, model in MODELS.items()
    ]
    return ModelList(models=models, current_model=backend.storage_settings.default_model)


@get(
    "/languages",
    summary="Languages",
    tags=["Catalogue"],
    sync_to_thread=False,
    responses=problems("unauthorized", "rate_limited", "queue_unavailable"),
)
def list_languages() -> LanguageList:
    """All that Whisper knows, from its tokenizer's own table."""
    return _LANGUAGES
