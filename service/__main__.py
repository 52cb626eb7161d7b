"""The API process: `python -m service`."""

import sys

import structlog
import uvicorn

from service.app import create_app
from service.settings import ServiceSettings
from storage import logs
from storage.settings import SettingsError, read_settings

log = structlog.get_logger()


def main() -> int:
    """Serve until SIGTERM or SIGINT; requests under way get half a minute to end."""
    logs.configure()
    try:
        settings = read_settings(ServiceSettings)
        app = create_app()
    except SettingsError as error:
        log.error("API cannot start", reason=str(error))
        return 1
    uvicorn.run(
        app,
        host=settings.api_host,
        port=settings.api_port,
        http="httptools",
        loop="uvloop",
        # Without trusted proxies the header is a client's word and counts for nothing.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        server_header=False,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=30,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
