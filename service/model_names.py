"""Names of models: our own, those of OpenAI and of the model hub, and the operator's aliases."""

import re

from storage.models import MODELS
from storage.settings import SettingsError

#: OpenAI's models. Each stands for the configured model, unless MODEL_ALIASES says otherwise.
OPENAI_NAMES = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe")

#: Another name, in small letters → a name of MODELS.
_ALIASES = {
    **{model.repository.lower(): model.folder for model in MODELS.values()},
    **{
        spelling.format(name).lower(): name
        for name in MODELS
        for spelling in (
            *("whisper-{}", "faster-whisper-{}", "openai/whisper-{}", "openai-whisper/{}"),
            *("systran/faster-whisper-{}", "guillaumekln/faster-whisper-{}"),
        )
    },
    **{
        spelling.format(name.removeprefix("distil-")): name
        for name in MODELS
        if name.startswith("distil-")
        for spelling in (
            *("distil-whisper-{}", "distil-whisper/distil-{}", "distil-whisper/distil-{}-ct2"),
            *("systran/faster-distil-whisper-{}", "faster-distil-whisper-{}"),
        )
    },
    "distil-whisper-large-v3-en": "distil-large-v3",
    "deepdml/faster-whisper-large-v3-turbo-ct2": "large-v3-turbo",
    "dropbox-dash/faster-whisper-large-v3-turbo": "large-v3-turbo",
    "h2oai/faster-whisper-large-v3-turbo": "large-v3-turbo",
}

#: The date at the end of OpenAI's names of snapshots.
_OF_A_DAY = re.compile(r"-\d{4}-\d\d-\d\d$", re.ASCII)


class ModelUnknown(ValueError):
    """No model has this name."""


class ModelNames:
    """Resolves the name of a model, in any case."""

    def __init__(self, model_aliases: str) -> None:
        """
        Args:
            model_aliases: MODEL_ALIASES, as `my-model=base,other=small`.

        Raises:
            SettingsError: an entry is not a pair, its model is unknown, or its alias is the name of a model.
        """
        self._more: dict[str, str | None] = {}
        for entry in filter(None, map(str.strip, model_aliases.split(","))):
            alias, _, name = (part.strip() for part in entry.partition("="))
            if not alias or not name:
                raise SettingsError(f"MODEL_ALIASES: {entry!r} is not a pair; write my-model=base")
            if alias.lower() in MODELS:
                raise SettingsError(f"MODEL_ALIASES: {alias} is already the name of a model")
            try:
                self._more[alias.lower()] = self.find(name)
            except ModelUnknown as error:
                raise SettingsError(f"MODEL_ALIASES: {name!r} is not a model; there are {', '.join(MODELS)}") from error

    @property
    def listed(self) -> list[str]:
        """Names for GET /v1/models: OpenAI's, the operator's, and those of the models."""
        return list(dict.fromkeys((*OPENAI_NAMES, *self._more, *MODELS)))

    def find(self, given: str) -> str | None:
        """A name of MODELS; None: the configured model.

        Raises:
            ModelUnknown
        """
        asked = given.strip().lower()
        if asked in self._more:
            return self._more[asked]
        if asked == "" or _OF_A_DAY.sub("", asked.removeprefix("openai/")) in OPENAI_NAMES:
            return None
        name = asked if asked in MODELS else _ALIASES.get(asked)
        if name is None:
            raise ModelUnknown
        return name
