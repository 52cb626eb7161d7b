"""The object store is reached without the proxy of the environment, and through one only if a setting names it."""

import msgspec
import pytest

from storage.errors import StoreUnavailable
from storage.object_store import ObjectStore, Part
from storage.settings import StorageSettings
from tests.listener import listening

MIB = 2**20


def test_recordings_do_not_pass_through_a_proxy_of_the_environment(
    store_settings: StorageSettings, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as proxy:
        for name, value in proxy.variables.items():
            monkeypatch.setenv(name, value)
        store = ObjectStore(store_settings)

        store.prepare()
        store.check()
        store.put("proxy/small", b"words", "text/plain")
        upload_id = store.start_upload("proxy/parts")
        parts: list[Part] = [store.upload_part("proxy/parts", upload_id, number, b"x" * 5 * MIB) for number in (1, 2)]
        store.complete_upload("proxy/parts", upload_id, parts)
        store.copy("proxy/small", "proxy/copy")

        assert store.get("proxy/copy") == b"words"
        assert store.head("proxy/parts").size == 10 * MIB
        assert proxy.connections == 0


def test_a_proxy_that_is_set_is_used(store_settings: StorageSettings) -> None:
    with listening() as proxy:
        store = ObjectStore(msgspec.structs.replace(store_settings, s3_proxy_url=proxy.url))

        with pytest.raises(StoreUnavailable):
            store.check()

        assert proxy.connections == 1
