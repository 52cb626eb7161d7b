"""What the document says is what the server does: schemathesis asks, a real server answers."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS

from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi

NAMES = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
CONFORMANCE = [check for check in CHECKS.get_all() if check.__name__ in NAMES]


@pytest.fixture(scope="module")
def document(start_api: StartApi, quiet_settings: StorageSettings) -> schemathesis.BaseSchema:
    # Nobody works here, so the synchronous call answers 202 after its second.
    api: Api = start_api(quiet_settings, SYNC_TIMEOUT_SECONDS="1")
    files = {"file": ("a.mp3", b"sound")}
    api.client.post("/api/v1/transcribe-async", files=files)
    return schemathesis.openapi.from_url(f"{api.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_the_server_answers_as_documented(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CONFORMANCE, timeout=30)


def test_every_check_is_known() -> None:
    assert len(CONFORMANCE) == len(NAMES)
