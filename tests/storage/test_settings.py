"""Settings from the environment: every refusal names its variable."""

from typing import Literal

import msgspec
import pytest

from actors.settings import ActorSettings
from deploy.settings import StackSettings
from service.settings import ServiceSettings
from storage.settings import ObjectBytes, Port, SettingsError, StorageSettings, read_settings

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
    port: Port = 80
    size: ObjectBytes = 1
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
    ("name", "value", "reason"),
    [
        ("BEAM_SIZE", "many", "'many' is not a whole number"),
        ("BEAM_SIZE", "2.5", "'2.5' is not a whole number"),
        ("PORT", "abc", "'abc' is not a whole number"),
        ("PORT", "0", "0: 1 at least"),
        ("PORT", "-80", "-80: 1 at least"),
        ("PORT", "99999", "99999: 65535 at most"),
        ("SIZE", "1G", "'1G': write bytes, as 1073741824"),
        ("SIZE", "-1", "-1: 1 at least"),
        ("THRESHOLD", "half", "'half' is not a number"),
        ("OFFLINE", "perhaps", "'perhaps': true or false"),
        ("DEVICE", "gpu", "'gpu': one of auto, cpu"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_variable(name: str, value: str, reason: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings(Example, {"NEEDED": "x", name: value})

    assert str(raised.value) == f"{name}={reason}"


@pytest.mark.parametrize("kind", [StorageSettings, ActorSettings, ServiceSettings, StackSettings])
def test_every_number_has_bounds_and_none_may_be_negative(kind: type[msgspec.Struct]) -> None:
    numbers = [field.name for field in msgspec.structs.fields(kind) if type(field.default) is int]
    huge = str(10**18)

    for name in numbers:
        for value, reason in (("-1", "at least"), (huge, "at most")):
            with pytest.raises(SettingsError, match=f"^{name.upper()}={value}: .* {reason}$"):
                read_settings(kind, NEEDED | {name.upper(): value})

    assert numbers


def test_a_refusal_does_not_repeat_a_secret() -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings(StorageSettings, NEEDED | {"RETENTION_SECONDS": "soon"})

    assert "secret" not in str(raised.value)
