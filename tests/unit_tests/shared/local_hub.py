"""A model hub on loopback: the routes, headers and errors of huggingface.co, over real HTTP.

Small files come from the hub, after a redirect to another path of the same host. Large ones ("LFS") come from a CDN on
another host name and port, after a redirect to a signed address. `LocalHub.requests` records all requests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from langchain_petals.hub import KEY_VARIABLES

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import pytest
    from typing_extensions import Self

_LARGE = (".safetensors", ".bin")


def point_at(patch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Make this process and its children use `url` as the hub and `home` as its folder."""
    values = {  # what huggingface_hub took from the environment at its import
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_CACHE": str(home / "hub"),
    }
    for name, value in values.items():
        patch.setattr(f"huggingface_hub.constants.{name}", value)
        patch.setattr(f"huggingface_hub.file_download.{name}", value, raising=False)  # 0.25 copies them
    for name in (*KEY_VARIABLES, "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setenv("HF_ENDPOINT", url)
    patch.setenv("HF_HOME", str(home))
    patch.setenv("PETALS_CACHE", str(home / "petals"))
    for name in ("NO_PROXY", "no_proxy"):
        patch.setenv(name, "127.0.0.1,localhost")


@dataclass(frozen=True)
class Request:
    """What somebody asked of the hub or of the CDN."""

    place: str
    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    status: int

    @property
    def key(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass
class Repository:
    """A model on the hub: its files by commit, and who may read them."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    gated: bool = False
    private: bool = False
    readers: set[str] = field(default_factory=set)

    def commit_of(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


class LocalHub:
    """The hub, and the CDN beside it; serves until `close`.

    Attributes:
        url: What HF_ENDPOINT is to be.
        cdn_url: Where large files come from.
        requests: What has been asked for.
        keys: Keys that the hub knows.
        interruptions: How many of the next downloads of large files break off in the middle.
        echoes_keys: Whether answers have a header with the key, which no cassette may hold. The real hub has none.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.keys: set[str] = set()
        self.interruptions = 0
        self.echoes_keys = True
        self._servers = [_Server(_HubHandler, self), _Server(_CdnHandler, self)]
        self._ports = [server.server_address[1] for server in self._servers]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def cdn_url(self) -> str:
        return f"http://localhost:{self._ports[1]}"

    def add(self, name: str, files: Path | dict[str, bytes], branch: str = "main", **access: Any) -> Repository:
        """Add a commit to a branch of a model, and the model if there is none.

        Args:
            name: The model's name.
            files: Its folder, or its files' contents by name.
            branch: Branch or tag that shall point to the commit.
            **access: Who may read it: fields of `Repository`.
        """
        if not isinstance(files, dict):
            files = {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}
        commit = hashlib.sha1(json.dumps([name, {k: _sha256(v) for k, v in files.items()}]).encode()).hexdigest()
        repository = self.repositories.setdefault(name, Repository({}, {}))
        repository.commits[commit] = files
        repository.branches[branch] = commit
        for key, value in access.items():
            setattr(repository, key, value)
        return repository

    def clear(self) -> None:
        """Forget models, keys and requests."""
        self.repositories.clear()
        self.requests.clear()
        self.keys.clear()
        self.interruptions = 0

    def close(self) -> None:
        """Stop listening, so that connecting is refused."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
            server.hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[_Handler], hub: LocalHub) -> None:
        self.hub = hub
        self._connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", 0), handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def hang_up(self) -> None:
        """End the connections that clients keep open."""
        for connection in self._connections:
            with contextlib.suppress(OSError):  # ended already
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    place: str
    server: _Server

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        raise NotImplementedError

    def send(self, status: int, body: bytes = b"", **headers: str | int) -> None:
        """Send an answer; of a file, the part that was asked for."""
        asked = self.headers.get("Range")
        whole = len(body)
        if status == 200 and asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), int(end or whole - 1)
            if first >= whole:
                status, body = 416, b""
                headers["Content_Range"] = f"bytes */{whole}"
            else:
                status, body = 206, body[first : last + 1]
                headers["Content_Range"] = f"bytes {first}-{last}/{whole}"
        own = {name.lower(): value for name, value in self.headers.items()}
        self.server.hub.requests.append(Request(self.place, self.command, self.path, own, status))
        self.send_response(status)
        for name, value in {"Content_Length": len(body), "Accept_Ranges": "bytes", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(body)

    def send_body(self, body: bytes) -> None:
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing to the test's output."""


class _HubHandler(_Handler):
    place = "hub"

    def answer(self) -> None:
        cached = "/api/resolve-cache/models/"
        path = unquote(urlsplit(self.path).path)
        if path.startswith(cached):
            *names, commit, file = path.removeprefix(cached).split("/")
            self._answer_file("/".join(names), commit, file, direct=True)
            return
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        self._answer_file(name, revision, file, direct=False)

    def _answer_file(self, name: str, revision: str, file: str, *, direct: bool) -> None:
        hub, key = self.server.hub, self.headers.get("Authorization", "").removeprefix("Bearer ")
        if key and key not in hub.keys:
            # as it is there: a key that the hub does not know is refused for public models, too
            self._refuse(401, None, "Invalid credentials in Authorization header")
            return
        repository = hub.repositories.get(name)
        if repository is None or (repository.private and key not in repository.readers):
            self._refuse(404 if key else 401, "RepoNotFound", "Repository not found")
            return
        if repository.gated and key not in repository.readers:
            self._refuse(
                403 if key else 401,
                "GatedRepo",
                f"Access to model {name} is restricted and you are not in the authorized list."
                if key
                else f"Access to model {name} is restricted. You must be authenticated to access it.",
            )
            return
        commit = repository.commit_of(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        body = repository.commits[commit].get(file)
        if body is None:
            self._refuse(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
            return
        common: dict[str, Any] = {
            "X_Repo_Commit": commit,
            "X_Request_Id": "Root=1-00000000-000000000000000000000000",
            # what no cassette may hold: sessions, and the key come back
            "Set_Cookie": f"session={_sha256(key.encode())}; Path=/; HttpOnly",
        }
        if hub.echoes_keys:
            common["X_Echo"] = f"Bearer {key}"
        if file.endswith(_LARGE):
            where = f"{hub.cdn_url}/{_sha256(body)}?Signature={_sha256(body + b'signed')}&Expires=4102444800"
            linked = {"X_Linked_Etag": f'"{_sha256(body)}"', "X_Linked_Size": len(body)}
            self.send(302, Location=where, ETag=f'"{_sha256(body)[:32]}"', **linked, **common)
        elif direct:
            named = {"Content_Type": "text/plain; charset=utf-8", "Content_Disposition": _disposition(file)}
            self.send(200, body, ETag=f'"{_git_sha(body)}"', **named, **common)
        else:
            where = f"/api/resolve-cache/models/{name}/{commit}/{file}"
            self.send(307, Location=where, **common)

    def _refuse(self, status: int, code: str | None, message: str, **headers: str) -> None:
        coded = {} if code is None else {"X_Error_Code": code}
        self.send(status, message.encode(), X_Error_Message=message, Content_Type="text/plain", **coded, **headers)


class _CdnHandler(_Handler):
    place = "cdn"

    def answer(self) -> None:
        digest = urlsplit(self.path).path.removeprefix("/")
        for repository in self.server.hub.repositories.values():
            for files in repository.commits.values():
                for file, body in files.items():
                    if _sha256(body) == digest:
                        named = {"Content_Type": "application/octet-stream", "Content_Disposition": _disposition(file)}
                        self.send(200, body, ETag=f'"{digest}"', **named)
                        return
        self.send(403, b"AccessDenied")

    def send_body(self, body: bytes) -> None:
        if self.server.hub.interruptions:
            self.server.hub.interruptions -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(body)


def _disposition(file: str) -> str:
    """Return the header from which huggingface_hub takes the name that it shows at a bar."""
    name = file.rpartition("/")[2]
    return f"inline; filename*=UTF-8''{name}; filename=\"{name}\";"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_sha(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
