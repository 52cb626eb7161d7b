"""Weights from the model hub. Only workers and scripts import this: its library comes with the engine.

Where the hub is, and with which token it is asked, is read by the library itself from HF_ENDPOINT and HF_TOKEN.
"""

import shutil
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.utils.tqdm import disable_progress_bars

from storage.errors import ModelUnavailable
from storage.models import ModelInfo

_FILES = ["config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*"]

#: For the first answer. Behind a firewall a hub that cannot be reached is the common case: nobody should wait for it.
_TIMEOUT_SECONDS = 5


def fetch(model: ModelInfo, folder: Path) -> dict[str, str]:
    """Fill the folder from the hub; a download that broke is taken up again.

    Returns the SHA-256 of the files that are kept by it: the large ones.

    Raises:
        ModelUnavailable: the hub cannot be reached or does not give the model.
    """
    constants.HF_HUB_DISABLE_TELEMETRY = True
    disable_progress_bars()
    try:
        # Asked first and without retries: the download itself would try an unreachable hub for half a minute.
        found = HfApi().model_info(
            model.repository, revision=model.revision, files_metadata=True, timeout=_TIMEOUT_SECONDS
        )
        snapshot_download(
            model.repository,
            revision=found.sha,
            local_dir=folder,
            allow_patterns=_FILES,
            etag_timeout=_TIMEOUT_SECONDS,
        )
    except Exception as error:  # Of the hub's client, its network, its answers: the weights are not there.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelUnavailable(f"{constants.ENDPOINT} did not give {model.repository}: {reason}") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    stated = {file.rfilename: file.lfs.sha256 for file in found.siblings or [] if file.lfs is not None}
    return {name: sha256 for name, sha256 in stated.items() if (folder / name).exists()}
