"""Small packages for tests of environments, made here, and indexes of them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

NEEDS_HEADER = """#include <rv_site.h>
#define PY_SSIZE_T_CLEAN
#include <Python.h>
static struct PyModuleDef it = {PyModuleDef_HEAD_INIT, "needsheader", 0, -1, 0};
PyMODINIT_FUNC PyInit_needsheader(void) {
    PyObject *module = PyModule_Create(&it);
    PyModule_AddIntConstant(module, "SITE", RV_SITE);
    return module;
}
"""


def wheel(
    folder: Path, name: str, version: str = "1.0", body: str = "", needs: tuple[str, ...] = ()
) -> Path:
    """A pure wheel with one module."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in _files(name, version, body, needs).items():
            archive.writestr(member, text)
    return path


def unpacked(folder: Path, name: str, body: str = "") -> None:
    """The same as an installer leaves it."""
    for member, text in _files(name, "1.0", body).items():
        path = folder / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@contextlib.contextmanager
def index(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """An index of the packages in a directory: its address, and what it is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            name = self.path.strip("/").rpartition("/")[2]
            file = folder / name
            found = [p.name for p in folder.iterdir() if re.match(f"{name}-\\d", p.name)]
            body = "".join(f'<a href="/files/{n}">{n}</a>\n' for n in found).encode()
            if file.is_file():
                body = file.read_bytes()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that is called

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/simple/", asked
    finally:
        server.shutdown()
        server.server_close()


def _files(name: str, version: str, body: str, needs: tuple[str, ...] = ()) -> dict[str, str]:
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": f"VERSION = {version!r}\n{body}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {need}\n" for need in needs),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    return {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}


def sdist(folder: Path, name: str, files: dict[str, str], version: str = "1.0") -> Path:
    """A source distribution of these files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}.tar.gz"
    info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with tarfile.open(path, "w:gz") as archive:
        for member, text in {"PKG-INFO": info, **files}.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{member}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def header_package(folder: Path) -> Path:
    """A C extension whose header no login node has."""
    setup = (
        "from setuptools import Extension, setup\n"
        "setup(name='needsheader', version='1.0',"
        " ext_modules=[Extension('needsheader', ['needsheader.c'])])\n"
    )
    return sdist(folder, "needsheader", {"setup.py": setup, "needsheader.c": NEEDS_HEADER})


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
