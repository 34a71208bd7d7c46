"""The ASGI application of `rvstate notify serve` (the door to starlette and uvicorn)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rvstate.errors import RvstateError
from rvstate.receiver.check import MOST_BYTES, Event, Refusal, check
from rvstate.receiver.limits import Rate, Seen
from rvstate.receiver.outlets import Outlet

# Requests of anybody, and events of ours, in a minute.
MOST_REQUESTS, MOST_EVENTS = 600, 120
_MINUTE = 60.0


class Receiver:
    """Takes events: one at a time, each once."""

    def __init__(
        self, token: str, seen: Seen, outlets: tuple[Outlet, ...], tell: Callable[[str], None]
    ) -> None:
        self._token, self._seen, self._outlets, self._tell = token, seen, outlets, tell
        self._requests, self._events = Rate(MOST_REQUESTS, _MINUTE), Rate(MOST_EVENTS, _MINUTE)
        self._one = asyncio.Lock()

    async def take(self, request: Request) -> Response:
        """Answer one request."""
        if not self._requests.take(time.monotonic()):
            return _no(Refusal(429, "too many requests"))
        body = b""
        try:
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    break
        except ClientDisconnect:
            return _no(Refusal(400, "cut off"))
        found = check(request.headers, body, self._token, time.time())
        if isinstance(found, Refusal):
            self._tell(f"refused ({found.reason})")
            return _no(found)
        async with self._one:
            return await self._pass_on(found)

    async def _pass_on(self, event: Event) -> Response:
        if self._seen.has(event.id):
            self._tell(f"{event.event} {event.job}: had it already")
            return JSONResponse({"status": "repeated"})
        if not self._events.take(time.monotonic()):
            return _no(Refusal(429, "too many events"))
        try:
            for number, outlet in enumerate(self._outlets):
                # where the second outlet fails, the first does not get the event twice
                part = f"{event.id}#{number}"
                if not self._seen.has(part):
                    await run_in_threadpool(outlet, event)
                    self._seen.add(part, time.time())
        except RvstateError as error:
            self._tell(f"{event.event} {event.job}: {error.message}")
            return _no(Refusal(502, "not passed on; send it again"))
        self._seen.add(event.id, time.time())
        self._tell(f"{event.event} {event.job}: passed on")
        return JSONResponse({"status": "taken"})


def _no(refusal: Refusal) -> Response:
    headers = {"Retry-After": "60"} if refusal.status == 429 else None
    return JSONResponse({"error": refusal.reason}, refusal.status, headers)


def application(receiver: Receiver) -> Starlette:
    """One address that takes posts; everything else is not there."""
    return Starlette(routes=[Route("/", receiver.take, methods=["POST"])])


def serve(receiver: Receiver, host: str, port: int) -> None:
    """Serve until interrupted.

    Args:
        receiver: Takes the events.
        host: The address to listen at.
        port: The port to listen at.
    """
    uvicorn.run(
        application(receiver),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=64,
        timeout_keep_alive=5,
    )
