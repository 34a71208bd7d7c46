"""An address on loopback that events are sent to: it keeps what came, and answers as it is told."""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "an-ordinary-secret-0123456789"


class Address:
    """The stand-in; `answers` are given one after the other, then 200."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.delay = 0.0  # seconds for which a sender waits for its answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = outer.answers.pop(0) if outer.answers else 200
                outer.requests.append((headers, body))
                time.sleep(outer.delay)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/events?x=1&y=2"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def events(self) -> list[dict[str, Any]]:
        """What came, each with a signature that was checked here, past rvstate's own code."""
        found = []
        for headers, body in list(self.requests):
            signed = f"v1:{headers['rvstate-time']}:".encode() + body
            expected = hmac.new(SECRET.encode(), signed, "sha256").hexdigest()
            assert headers["rvstate-signature"] == f"v1={expected}"
            assert abs(int(headers["rvstate-time"]) - time.time()) < 600
            found.append(json.loads(body))
        return found

    def names(self, run_id: str = "") -> list[str]:
        """The names of the events that came, in order."""
        return [e["event"] for e in self.events if run_id in ("", e["run"])]

    def told(self, run_id: str) -> list[str]:
        """The same for one run, of one id the first, as receivers do.

        A sender that is killed with its job, or overtaken by its end, may have told already.
        """
        once: dict[str, str] = {}
        for event in self.events:
            if event["run"] == run_id:
                once.setdefault(event["id"], event["event"])
        return list(once.values())

    def until(self, what: Callable[[], bool], seconds: float = 180) -> None:
        """Wait until something came true."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.requests
            time.sleep(0.1)
