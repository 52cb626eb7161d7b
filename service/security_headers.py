"""Headers that restrict what browsers do with an answer, and keep it out of caches.

Pages run scripts of this server only and send nothing elsewhere; nothing is shown in a frame of others.
https://owasp.org/www-project-secure-headers/
"""

from litestar.datastructures import MutableScopeHeaders
from litestar.types import Message, Scope

_NO_PAGE = "frame-ancestors 'none'"
#: Swagger UI and ReDoc write style attributes, show inlined images, and ReDoc searches in a worker made of a blob.
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def send_security_headers(message: Message, scope: Scope) -> None:
    """A before_send hook. What a route sets itself stays."""
    if message["type"] != "http.response.start":
        return
    headers = MutableScopeHeaders(message)
    is_page = headers.get("content-type", "").startswith("text/html")
    headers.setdefault("Content-Security-Policy", _PAGE if is_page else _NO_PAGE)
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Referrer-Policy", "no-referrer")
    if not (scope["path"].startswith("/static/") and message["status"] < 400):
        headers.setdefault("Cache-Control", "no-store")
