"""A hub for tests: an HTTP server on this machine that answers huggingface_hub as the real one does, and counts."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 20_000
"""Bytes from which on a file comes by itself."""


@dataclass
class Hub:
    """Repositories by name: branches and commits, and the files of each commit."""

    url: str = ""
    refs: dict[str, dict[str, str]] = field(default_factory=dict)
    commits: dict[str, dict[str, Mapping[str, bytes]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    sent: list[tuple[str, int]] = field(default_factory=list)
    """Files that were sent, and how many bytes of each."""
    cut: int | None = None
    """Bytes of a file after which a connection breaks."""
    made: list[dict[str, Any]] = field(default_factory=list)
    """What was asked of it in making repositories."""
    large: dict[str, bytes] = field(default_factory=dict)
    """Files that came by themselves, by SHA-256, before the commit that names them."""
    token: str | None = None
    """What whoever writes must show."""

    def push(self, name: str, files: Mapping[str, bytes], ref: str = "main") -> str:
        """The new commit that this branch or tag leads to."""
        digest = hashlib.sha1(name.encode())
        for path, data in sorted(files.items()):
            digest.update(path.encode() + data)
        commit = digest.hexdigest()
        self.commits.setdefault(name, {})[commit] = dict(files)
        self.refs.setdefault(name, {})[ref] = commit
        return commit

    def push_folder(self, name: str, folder: Path, more: Mapping[str, bytes] | None = None) -> str:
        """The same with the files of a folder, and some more."""
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return self.push(name, {**files, **(more or {})})


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (_Answer,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answer(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] in (["api", "models"], ["api", "datasets"]):
            name, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            name = f"datasets/{name}" if parts[1] == "datasets" else name
        elif parts[3:4] == ["resolve"]:  # of a dataset
            name, revision, parts = "/".join(parts[:3]), parts[4], parts[1:]
        elif parts[2:3] == ["resolve"]:
            name, revision = "/".join(parts[:2]), parts[3]
        else:
            return self.refuse(404, "")
        if name not in self.hub.commits:
            return self.refuse(401, "RepoNotFound")
        commit = self.hub.refs[name].get(revision, revision)
        files = self.hub.commits[name].get(commit)
        if files is None:
            return self.refuse(404, "RevisionNotFound")
        if parts[0] == "api" and parts[4:5] == ["tree"]:
            about = [self.entry(path, data) for path, data in files.items()]
            return self.send(json.dumps(about).encode(), {"Content-Type": "application/json"})
        if parts[0] == "api":
            siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
            about = {"id": name, "sha": commit, "siblings": siblings, "private": False, "downloads": 0, "tags": []}
            return self.send(json.dumps(about).encode(), {"Content-Type": "application/json"})
        if name in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        path = "/".join(parts[4:])
        if path not in files:
            return self.refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        data = files[path]
        etag = hashlib.sha256(data).hexdigest()
        return self.send(data, {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}, path)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path.strip("/")
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.answer({"error": "Invalid username or password."}, 401)
        if path == "api/repos/create":
            asked = json.loads(body)
            self.hub.made.append(asked)
            name = f"{asked.get('organization')}/{asked['name']}" if asked.get("organization") else asked["name"]
            return self.answer({"url": f"{self.hub.url}/{name}", "name": name, "id": name})
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "lfs" if file["size"] > LARGE else "regular",
                      "shouldIgnore": False} for file in files]  # fmt: skip
            return self.answer({"files": modes})
        if path.endswith("info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}} for each in wanted
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if path.endswith("/commit/main"):
            name, files = "/".join(path.split("/")[2:4]), {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.hub.large[value["oid"]]
            commit = self.hub.push(name, files)
            return self.answer({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit,
                                "hookOutput": "", "success": True})  # fmt: skip
        if path == "api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        return self.refuse(404, "")

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.large[hashlib.sha256(data).hexdigest()] = data
        self.send(b"", {})

    def answer(self, value: object, code: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def entry(self, path: str, data: bytes) -> dict[str, object]:
        """A file as a listing of a dataset has it."""
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def send(self, data: bytes, headers: Mapping[str, str], path: str = "") -> None:
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self.send_response(206 if wanted else 200)
        for key, value in {**headers, "Content-Length": str(len(data) - start)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = data[start:]
        if path:
            self.hub.sent.append((path, len(body)))
        if path and self.hub.cut is not None and len(body) > self.hub.cut:
            self.wfile.write(body[: self.hub.cut])
            self.wfile.flush()
            time.sleep(0.2)
            self.close_connection = True
            return
        self.wfile.write(body)

    def refuse(self, code: int, word: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in {"X-Error-Code": word, "Content-Length": "0", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        del arguments
