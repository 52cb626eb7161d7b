"""Keys that clients name: what passes the check is one object's name, in every store, as it is written."""

import secrets
from collections.abc import Iterator

import msgspec
import pytest

from storage.errors import ObjectMissing, StorageError
from storage.keys import beside, refusal, source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.stack import Parts, StoreServer

JOB = "0199a0000000aaaaaaaaaa"
#: Spellings of a stranger's recording. `{}` is the key as the service writes it.
REACHING = [
    *("sources\\{id}\\media", "sources\\{id}/media", "\\sources/{id}/media", "/{}", "//{}", "sources//{id}/media"),
    *("sources/\\{id}/media", "\\\\{}", "\\/{}"),
]
#: What a store may make something of, or refuses with an error of its own.
DOUBTFUL = [
    *("a\\..\\sources\\{id}\\media", "./{}", "x/../{}", "x/..\\{}", "../b/{}", "sources/./{id}/media", "{}/.", "{}/.."),
    *("sources/{id}/x/../media", "{}/", "{}\\", "", ".", "..", "/", "\\", "{}\0", "{}\t", "\t{}", "\n{}", "{}\r\n"),
    *("sou\nrces/{id}/media", "\x01{}", "{}\x7f", "{}\x85", "{}\x1b[0m", "{}\ufffe", "\uffff{}", "{}\ud800"),
    *("a" * 1025, "é" * 513),
]
#: Names of their own, however they look. Of these, those under sources/ are the service's, which is another check.
APART = [
    *("sources%2f{id}%2fmedia", "sources%5c{id}%5cmedia", "%2e/{}", "x/%2e%2e/{}", "..%2f{}", "%252f{}", "{}%00"),
    *("Sources/{id}/media", "SOURCES/{id}/MEDIA", "{} ", " {}", "{}?x", "{}#x", "{}+", "{};x", "{}.", "&{}", ".../{}"),
    *("x/.. /{}", "~/{}", "sources\u2044{id}\u2044media", "sources\uff0f{id}\uff0fmedia", "\uff53ources/{id}/media"),
    *("source\u017f/{id}/media", "\u200b{}", "\ufeff{}", "*", "sources/*/media"),
    *("a\u202fb", "a\u3000b", "a\u00a0b", "a\u200db", "a\u200cb", "a\u00adb", "a\u202eb", "a\u2028b", "\ue000"),
    *("é" * 100, "e\u0301", "\u00e9", "a b/c & d/100 % + \"1\" 'x'", "\U0001f600", "\U0001ffff"),
]


def spelled(pattern: str) -> str:
    return pattern.replace("{}", source_key(JOB)).replace("{id}", JOB)


@pytest.fixture(scope="module")
def moto(parts: Parts) -> Iterator[StoreServer]:
    server = parts.start_moto()
    yield server
    server.running.kill()


@pytest.fixture(scope="module", params=["seaweedfs", "moto"])
def store(request: pytest.FixtureRequest, store_settings: StorageSettings) -> ObjectStore:
    """A bucket with a stranger's recording, and nothing else, in both stores."""
    settings = msgspec.structs.replace(store_settings, s3_bucket=f"keys-{secrets.token_hex(4)}")
    if request.param == "moto":
        server: StoreServer = request.getfixturevalue("moto")
        settings = msgspec.structs.replace(
            settings, s3_endpoint_url=server.url, s3_access_key="moto", s3_secret_key="moto"
        )
    store = ObjectStore(settings)
    store.prepare()
    store.put(source_key(JOB), b"a stranger's", "audio/mpeg")
    return store


@pytest.mark.parametrize("pattern", [*REACHING, *DOUBTFUL])
def test_a_key_that_a_store_may_read_as_another_is_refused_with_a_sentence(pattern: str) -> None:
    assert (refusal(spelled(pattern)) or "").startswith("a key has ")


@pytest.mark.parametrize("pattern", APART)
def test_a_key_that_passes_is_an_object_of_its_own(store: ObjectStore, pattern: str) -> None:
    key = spelled(pattern)

    assert refusal(key) is None
    with pytest.raises(ObjectMissing):
        store.head(key)
    store.put(key, b"mine", "audio/mpeg")
    assert [item.key for item in store.list(key)][:1] == [key]
    assert (store.get(key), store.get(source_key(JOB))) == (b"mine", b"a stranger's")
    store.delete(key)
    assert [item.key for item in store.list("")] == [source_key(JOB)]


@pytest.mark.parametrize("pattern", REACHING)
def test_seaweedfs_reads_another_spelling_as_the_strangers_recording(object_store: ObjectStore, pattern: str) -> None:
    """Why the check is there. If this fails some day, the store has become stricter."""
    object_store.put(source_key(JOB), b"a stranger's", "audio/mpeg")

    assert object_store.get(spelled(pattern)) == b"a stranger's"


@pytest.mark.parametrize("key", ["inbox/a\tb.mp3", "inbox//x.mp3", "inbox/a\\b.mp3", "in/\ufffe", "in/" + "é" * 600])
def test_what_is_put_beside_an_object_has_a_name_that_can_be_written(store: ObjectStore, key: str) -> None:
    name = beside(key, ".error.txt")

    assert refusal(name) is None
    assert name.endswith(".error.txt")
    store.put(name, b"why", "text/plain")
    assert [item.key for item in store.list(name)] == [name]
    store.delete(name)


def test_no_spelling_is_answered_by_a_store_in_a_way_of_its_own(store: ObjectStore) -> None:
    """Of every pattern, what passes gives an object or none: never an error that a client would take for an outage."""
    refused = []
    for pattern in [*REACHING, *DOUBTFUL, *APART, "a" * 300, "b/" + "c" * 256 + "/d"]:
        if refusal(spelled(pattern)) is None:
            try:
                store.head(spelled(pattern))
            except ObjectMissing:
                continue
            except StorageError:
                refused.append(pattern)

    assert refused == []
