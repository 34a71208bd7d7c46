"""Names from a language model: what leaves the machine, to whom, and how long that takes."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rvstate import naming
from tests.runkit import Laptop, repository

KEYS = {"anthropic": "sk-ant-api03-thekey0123456789", "openai": "sk-proj-thekey0123456789"}


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("train.py", "--lr", "1e-3"), "train.py --lr 1e-3"),
        (("python", "-m", "pkg.train", "seed=3"), "python -m pkg.train seed=3"),
        (("train.py", "--token", "abc"), "train.py --token …"),
        (("train.py", "--token=abc"), "train.py --token=…"),
        (("train.py", "--api-key", "--lr", "1"), "train.py --api-key --lr 1"),
        (("WANDB_API_KEY=abc", "python", "x.py"), "WANDB_API_KEY=… python x.py"),
        (("mysql", "-p", "hunter2"), "mysql -p …"),
        (("x.py", "hf_abcdefgh"), "x.py …"),
        (("x.py", "sk-ant-abc"), "x.py …"),
        (("x.py", "AKIAIOSFODNN7EXAMPLE"), "x.py …"),
        (("x.py", "d41d8cd98f00b204e9800998ecf8427e"), "x.py …"),
        (("x.py", "https://me:pw@host/x"), "x.py …"),
        (("x.py", "me@example.org"), "x.py …"),
        (("/home/me/secret-project/x.py",), "x.py"),
        (("x.py", "--data=/home/me/d"), "x.py --data=d"),
        (('curl -H "Authorization: Bearer abc" x',), "curl -H … x"),
        (("echo 'unclosed token abc",), "…"),
        (("x.py", "Bearer", "abc"), "x.py Bearer …"),
        (("x.py", "pa$$w0rd!"), "x.py …"),
    ],
)
def test_what_looks_like_a_secret_stays_here(words: tuple[str, ...], shown: str) -> None:
    """Dots stand for it; what a name can be made from is left."""
    assert naming.outline(words) == shown


@given(
    option=st.sampled_from(
        ["--token", "--hf-token", "--password", "API_KEY", "--auth", "-p", "-u"]
    ),
    secret=st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=6).filter(
        lambda text: not text.startswith("-")
    ),
    together=st.booleans(),
)
def test_the_value_of_a_secret_option_is_never_sent(
    option: str, secret: str, together: bool
) -> None:
    """Whatever it is, in one word or in two."""
    words = (f"{option}={secret}",) if together and option[:2] in ("--", "AP") else (option, secret)
    assume(secret not in f"train.py {option}=… --lr 1")
    assert secret not in naming.outline(("train.py", *words, "--lr", "1"))


@given(st.text(st.sampled_from("abcdef0123456789"), min_size=32))
def test_hashes_and_keys_are_never_sent(key: str) -> None:
    """Long hexadecimal, wherever it stands."""
    for words in (("x.py", key), ("x.py", f"--run={key}"), (f"x.py {key}",), ("x.py", f"a/{key}")):
        assert key not in naming.outline(words)


class Model:
    """A local stand-in that answers as both providers do."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.says: str = "Tune Learning Rate"
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {k.lower(): v for k, v in self.headers.items()}
                outer.requests.append((self.path, headers, body))
                outer.hold.wait(30)
                said: Any = {"choices": [{"message": {"content": outer.says}}]}
                if self.path.endswith("/messages"):
                    said = {"content": [{"type": "text", "text": outer.says}]}
                self.send_response(outer.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(json.dumps(said).encode())

            do_GET = do_POST  # noqa: N815 - the name that http.server calls

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    found = Model()
    monkeypatch.setenv("ANTHROPIC_BASE_URL", found.url)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{found.url}/v1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield found
    found.close()


def test_the_keys_prefix_chooses_the_provider(model: Model) -> None:
    """Each is asked as its own interface wants it."""
    assert naming.ask(KEYS["anthropic"], "train.py") == "rv-tune-learning-rate"
    assert naming.ask(KEYS["openai"], "train.py") == "rv-tune-learning-rate"
    (path, headers, body), (other, more, said) = model.requests
    assert (path, other) == ("/v1/messages", "/v1/chat/completions")
    assert headers["x-api-key"] == KEYS["anthropic"]
    assert headers["anthropic-version"] == "2023-06-01"
    assert more["authorization"] == f"Bearer {KEYS['openai']}"
    assert (body["model"], said["model"]) == ("claude-haiku-4-5-20251001", "gpt-4o-mini")
    assert body["messages"] == said["messages"]
    assert body["max_tokens"] == 20


@pytest.mark.parametrize(
    ("says", "status"),
    [
        ("", 200),
        ("???", 200),
        ("I am sorry, but I cannot name this job for you", 200),
        ("x", 500),
        ("x", 302),
    ],
)
def test_no_good_answer_is_no_name(model: Model, says: str, status: int) -> None:
    """An error, a sentence, nothing; and a key follows no redirect."""
    model.says, model.status = says, status
    assert naming.ask(KEYS["openai"], "train.py") is None
    assert len(model.requests) == 1


@given(st.text(min_size=1, max_size=80))
def test_any_answer_is_a_safe_name_or_none(said: str) -> None:
    """It becomes part of file names."""
    try:
        name = naming._name({"content": [{"text": said}]})
    except IndexError:
        name = None  # `_asked` takes that for no answer
    assert name is None or (name.startswith("rv-") and len(name) <= 40)
    assert name is None or all(c.isascii() and (c.isalnum() or c == "-") for c in name)


@pytest.mark.slow
def test_a_run_says_what_it_sends_and_does_not_wait(model: Model, tmp_path: Path) -> None:
    """Off by default; a dry run sends nothing; a provider that hangs costs the name only."""
    app = repository(tmp_path / "work/app", {"train.py": ""})
    here = Laptop(tmp_path / "off", f'[defaults]\nai_api_key = "{KEYS["openai"]}"\n')
    assert here.submit("train.py", cwd=app)["name"] == "rv-train"
    here = Laptop(
        tmp_path / "on", f'[defaults]\nai_naming = true\nai_api_key = "{KEYS["openai"]}"\n'
    )
    dry = here.run("run", "--dry-run", "train.py", "--token", "abc", cwd=app)
    assert "would be sent to 127.0.0.1" in dry.stderr
    assert model.requests == []
    found = here.submit("train.py", "--token", "abc", cwd=app)
    assert found["name"] == "rv-tune-learning-rate"
    assert "this was sent to 127.0.0.1" in found["said"]
    assert "train.py --token …" in found["said"]
    ((_, _, body),) = model.requests
    assert "abc" not in json.dumps(body)
    assert here.submit("--name", "mine", "train.py", cwd=app)["name"] == "mine"
    assert len(model.requests) == 1
    model.hold.clear()
    found = here.submit("train.py", cwd=app)
    assert found["name"] == "rv-train"
    assert "no good answer within a second" in found["said"]
    assert KEYS["openai"] not in found["said"]


def test_where_it_is_off_nothing_of_it_is_loaded() -> None:
    """No HTTP client on the way of a run."""
    import subprocess

    code = "import sys, rvstate.cli.run; print('rvstate.naming' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
