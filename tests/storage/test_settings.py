"""Settings from the environment: every refusal names its variable."""

from typing import Literal

import msgspec
import pytest

from storage.settings import SettingsError, StorageSettings, read_settings

pytestmark = pytest.mark.unit

NEEDED = {
    "S3_ENDPOINT_URL": "http://store:8333",
    "S3_ACCESS_KEY": "key",
    "S3_SECRET_KEY": "secret",
    "REDIS_URL": "redis://redis:6379",
}


class Example(msgspec.Struct, frozen=True, kw_only=True):
    needed: str
    beam_size: int = 5
    threshold: float = 0.5
    offline: bool = False
    device: Literal["auto", "cpu"] = "auto"


def test_what_is_not_set_has_its_default() -> None:
    settings = read_settings(StorageSettings, NEEDED)

    assert settings.s3_endpoint_url == "http://store:8333"
    assert settings.s3_bucket == "bucketscribe"
    assert settings.retention_seconds == 7 * 86400


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is not set$"):
        read_settings(StorageSettings, {key: value for key, value in NEEDED.items() if key != name})


@pytest.mark.parametrize("name", NEEDED)
def test_an_empty_variable_counts_as_not_set(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is not set$"):
        read_settings(StorageSettings, NEEDED | {name: ""})


def test_an_empty_variable_with_a_default_has_it() -> None:
    assert read_settings(Example, {"NEEDED": "x", "BEAM_SIZE": ""}).beam_size == 5


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("false", False), ("1", True), ("0", False), ("True", True), ("FALSE", False)]
)
def test_words_and_digits_are_truth_values(text: str, value: bool) -> None:
    assert read_settings(Example, {"NEEDED": "x", "OFFLINE": text}).offline is value


def test_numbers_are_read_as_numbers() -> None:
    settings = read_settings(Example, {"NEEDED": "7", "BEAM_SIZE": "3", "THRESHOLD": "0.25"})

    assert settings == Example(needed="7", beam_size=3, threshold=0.25)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BEAM_SIZE", "many"),
        ("BEAM_SIZE", "2.5"),
        ("THRESHOLD", "half"),
        ("OFFLINE", "perhaps"),
        ("DEVICE", "gpu"),
    ],
)
def test_a_value_that_does_not_fit_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        read_settings(Example, {"NEEDED": "x", name: value})


def test_a_refusal_does_not_repeat_a_secret() -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings(StorageSettings, NEEDED | {"RETENTION_SECONDS": "soon"})

    assert "secret" not in str(raised.value)
