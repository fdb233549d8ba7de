"""An object store that lies in a local folder: for fsspec, and for TensorStore over HTTP.

It behaves as stores do: no folders, no appending, and an object is there once it was written whole.
"""

import contextlib
import functools
import importlib
import io
import json
import os
import pathlib
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
from fsspec.spec import AbstractFileSystem

ROOT = "TEST_STORE_ROOT"  # environment variable: the folder


def file_of(key):
  return pathlib.Path(os.environ[ROOT]) / urllib.parse.quote(key, safe="")


def keys(prefix=""):
  names = map(urllib.parse.unquote, os.listdir(os.environ[ROOT]))
  return sorted(name for name in names if name.startswith(prefix) and not name.startswith("~"))


def size(key):
  return file_of(key).stat().st_size


def read(key):
  """The content of an object; None if there is none."""
  try:
    return file_of(key).read_bytes()
  except FileNotFoundError:
    return None


def write(key, content):
  partial = file_of(f"~{threading.get_ident()}{os.getpid()}")
  partial.write_bytes(content)
  partial.replace(file_of(key))


class _Writing(io.BytesIO):
  def __init__(self, key):
    super().__init__()
    self.key = key

  def close(self):
    if not self.closed:
      write(self.key, self.getvalue())
    super().close()


class Store(AbstractFileSystem):
  protocol = ("gcs", "gs", "s3")
  cachable = False

  def ls(self, path, detail=True, **_):
    key = self._strip_protocol(path).strip("/")
    if key and file_of(key).exists():
      found = {key: self._row(key)}
    else:
      found = {}
      for name in keys(f"{key}/" if key else ""):
        rest = name[len(key) + 1 if key else 0 :].split("/")
        child = "/".join([*([key] if key else []), rest[0]])
        folder = {"name": child, "size": 0, "type": "directory"}
        found[child] = folder if len(rest) > 1 else self._row(child)
      if not found:
        raise FileNotFoundError(path)
    return list(found.values()) if detail else list(found)

  def _row(self, key):
    return {"name": key, "size": size(key), "type": "file"}

  def open(self, path, mode="rb", **_):
    key = self._strip_protocol(path).strip("/")
    if "a" in mode or "+" in mode:
      raise NotImplementedError("an object cannot be appended to")
    file = _Writing(key) if "w" in mode else file_of(key).open("rb")
    return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8")

  def rm_file(self, path):
    file_of(self._strip_protocol(path).strip("/")).unlink(missing_ok=True)

  def mkdir(self, path, create_parents=True, **_):
    pass

  def makedirs(self, path, exist_ok=False):
    pass


class _Http(BaseHTTPRequestHandler):
  """The part of Google's JSON API that TensorStore calls."""

  protocol_version = "HTTP/1.1"

  def do_GET(self):
    url = urllib.parse.urlsplit(self.path)
    query, (bucket, name) = dict(urllib.parse.parse_qsl(url.query)), self._place(url.path)
    if name is None:
      found = [key[len(bucket) + 1 :] for key in keys(f"{bucket}/{query.get('prefix', '')}")]
      start, end = query.get("startOffset", ""), query.get("endOffset")
      found = [key for key in found if key >= start and (end is None or key < end)]
      return self._json({"items": [self._about(bucket, key) for key in found]})
    file = file_of(f"{bucket}/{name}")
    if not file.exists():
      return self._send(404, b"")
    if "alt" not in query:
      return self._json(self._about(bucket, name))
    content, status = file.read_bytes(), 200
    generation = str(file.stat().st_mtime_ns)
    if query.get("ifGenerationNotMatch") == generation:
      return self._send(304, b"")
    headers = {"x-goog-generation": generation}
    if (wanted := self.headers.get("Range")) and content:
      first, _, last = wanted.removeprefix("bytes=").partition("-")
      size = len(content)
      low = int(first) if first else size - int(last)
      high = min(int(last), size - 1) if first and last else size - 1
      headers["Content-Range"] = f"bytes {low}-{high}/{size}"
      content, status = content[low : high + 1], 206
    return self._send(status, content, headers)

  def do_POST(self):
    url = urllib.parse.urlsplit(self.path)
    query, (bucket, _) = dict(urllib.parse.parse_qsl(url.query)), self._place(url.path)
    content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
    key = f"{bucket}/{query['name']}"
    wanted = query.get("ifGenerationMatch")
    found = str(file_of(key).stat().st_mtime_ns) if file_of(key).exists() else "0"
    if wanted is not None and wanted != found:
      return self._send(412, b"")
    write(key, content)
    return self._json(self._about(bucket, query["name"]))

  def do_DELETE(self):
    bucket, name = self._place(urllib.parse.urlsplit(self.path).path)
    there = file_of(f"{bucket}/{name}").exists()
    file_of(f"{bucket}/{name}").unlink(missing_ok=True)
    return self._send(204 if there else 404, b"")

  def _place(self, path):
    """Bucket and object of /storage/v1/b/BUCKET/o/OBJECT."""
    parts = path.split("/b/", 1)[1].split("/o", 1)
    return parts[0], urllib.parse.unquote(parts[1].lstrip("/")) or None

  def _about(self, bucket, name):
    found = file_of(f"{bucket}/{name}").stat()
    return {"name": name, "size": str(found.st_size), "generation": str(found.st_mtime_ns)}

  def _json(self, content):
    self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

  def _send(self, status, content, headers=()):
    self.send_response(status)
    for name, value in dict(headers).items():
      self.send_header(name, value)
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    self.wfile.write(content)

  def log_message(self, *_):
    pass


def register():
  """Makes fsspec see the store under gs:// and s3://."""
  for protocol in Store.protocol:
    fsspec.register_implementation(protocol, Store, clobber=True)


@functools.cache
def address():
  """Of a server that runs as long as this process: TensorStore reads its address once."""
  server = ThreadingHTTPServer(("127.0.0.1", 0), _Http)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  return f"http://127.0.0.1:{server.server_port}"


@contextlib.contextmanager
def serve(root, patch):
  """Inside, gs:// and s3:// are the folder `root`, in this process and in its children that call
  `register`. `patch` is pytest's monkeypatch."""
  patch.setenv(ROOT, str(root))
  patch.setenv("TENSORSTORE_GCS_HTTP_URL", address())
  patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "test")
  register()
  try:
    yield
  finally:
    for protocol in Store.protocol:
      importlib.import_module("fsspec.registry")._registry.pop(protocol, None)
