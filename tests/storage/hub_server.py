"""As much of a model hub as its library asks for to download one repository: what is in it, and the files."""

import hashlib
import http.server
import threading
from pathlib import Path

import msgspec

from storage.models import ModelInfo


class HubServer:
    """Serves a folder as the repository of a model. `broken` files come with the right length and wrong bytes."""

    def __init__(self, model: ModelInfo, folder: Path) -> None:
        self.model = model
        self.broken: set[str] = set()
        #: Method and path of every request.
        self.asked: list[str] = []
        self.contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[bytes, dict[str, str]] | None:
        """Body and headers; None: 404."""
        commit = self.model.revision or "0" * 40
        repository = self.model.repository
        if path in (f"/api/models/{repository}", f"/api/models/{repository}/revision/{commit}"):
            siblings = [
                {"rfilename": name, "size": len(content), "lfs": self._lfs(name)}
                for name, content in self.contents.items()
            ]
            return msgspec.json.encode({"id": repository, "sha": commit, "siblings": siblings}), {}
        if path.startswith(f"/api/models/{repository}/tree/"):
            tree = [
                {"type": "file", "path": name, "oid": "0" * 40, "size": len(content), "lfs": self._lfs(name, "oid")}
                for name, content in self.contents.items()
            ]
            return msgspec.json.encode(tree), {}
        name = path.rpartition("/")[2]
        if path.startswith(f"/{repository}/resolve/{commit}/") and name in self.contents:
            content = self.contents[name]
            headers = {"ETag": f'"{_sha256(content)}"', "X-Repo-Commit": commit}
            return (bytes(len(content)) if name in self.broken else content), headers
        return None

    def _lfs(self, name: str, field: str = "sha256") -> dict[str, object] | None:
        """The hub keeps large files apart, and states the SHA-256 of those alone."""
        content = self.contents[name]
        if name != "model.bin":
            return None
        return {field: _sha256(content), "size": len(content), "pointerSize": 134}

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.reply(body=False)

            def do_GET(self) -> None:
                self.reply(body=True)

            def reply(self, *, body: bool) -> None:
                hub.asked.append(f"{self.command} {self.path}")
                content, headers = hub.answer(self.path.partition("?")[0]) or (b"", None)
                self.send_response(404 if headers is None else 200)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """`asked` has it."""

        return Handler


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
