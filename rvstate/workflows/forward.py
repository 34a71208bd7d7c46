"""Services in running jobs, reached from this machine."""

from __future__ import annotations

import contextlib
import json
import secrets
from dataclasses import dataclass, replace

from rvstate import tunnel
from rvstate.errors import ConfigError, ConvergeError, RvstateError
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.script import Script
from rvstate.shell import join
from rvstate.sitetools import listening
from rvstate.transport import Ssh
from rvstate.transport.places import LASTING_SESSIONS
from rvstate.tunnel import Tunnel
from rvstate.workflows import enter
from rvstate.workflows.enter import Door, Place
from rvstate.workflows.session import Session

_JUPYTER = 8888


@dataclass(frozen=True, slots=True)
class Served:
    """A tunnel, and the whole address of what is behind it where that has a token."""

    tunnel: Tunnel
    address: str


def forward(session: Session, place: Place, port: int, remote: int) -> Served:
    """Forward one port.

    Raises:
        RefusedError: The port of this machine is taken.
        UnreachableError: The tunnel did not come up.
    """
    folder = session.state.tunnels
    if not tunnel.is_free(port):
        raise tunnel.taken(folder, port, remote)
    return _served(_start(session, place, enter.door(session, place), port, remote))


def found(session: Session, place: Place) -> tuple[Served, ...]:
    """Forward every service that is known by its port, each to the next free port here.

    Returns:
        Their tunnels, those that were there before among them.

    Raises:
        RvstateError: Nothing is known to listen there.
    """
    said = bytearray()
    status = enter.command(session, place, listening.COMMAND, said.extend)
    if status != 0:
        raise RvstateError(
            f"{place.node} did not say what listens there.", "Name the port, or try again."
        )
    ports = listening.parse(said.decode("utf-8", "replace"))
    wanted = [port for port in ports if port in listening.KNOWN]
    if not wanted:
        others = ", ".join(str(p) for p in ports[:10]) or "no port at all"
        raise RvstateError(
            f"No service that is known by its port waits to be forwarded on {place.node}.",
            f"Your programs listen there on: {others}. Name the port.",
        )
    have = {port: _known(session, place, port) for port in wanted}
    door = enter.door(session, place) if None in have.values() else None
    made = []
    for remote, there in have.items():
        if there is None:
            assert door is not None
            there = _start(session, place, door, _free(remote), remote, listening.KNOWN[remote])
        made.append(_served(there))
    return tuple(made)


def jupyter(session: Session, place: Place, port: int | None) -> Served:
    """Start a Jupyter server in the job, or find the one that is there, and forward it.

    Raises:
        RefusedError: The port of this machine is taken.
        ConvergeError: The server did not come up; its own words are in the message.
        UnsupportedError: Jobs run on this machine.
    """
    if port is not None and not tunnel.is_free(port):
        raise tunnel.taken(session.state.tunnels, port, port)
    enter.check(session)
    run = Layout(SYMBOLIC).run(place.run.run_id)
    own = secrets.token_hex(24)
    fixed = (session.scratch, session.home, run, place.run.job or "", own)
    try:
        answer = session.transport.run(Script("jupyter", ("start", *fixed, place.node)))
        if answer.status != 0:
            lines = [x.removeprefix("rvstate: ") for x in answer.errors.splitlines() if x.strip()]
            raise ConvergeError(
                f"Jupyter did not start: {lines[-1] if lines else 'no reason given'}.",
                "`rvstate ssh` shows the environment that it would start in.",
            )
        server = json.loads(answer.first("server"))
        remote, token = int(server["port"]), str(server["token"])
        # one that was there before may be on another node of the job
        place = replace(place, node=answer.first("node").decode().strip())
        known = _known(session, place, remote)
        if known is not None and port is None:
            return Served(known, _with_token(known, token))
        after: tuple[str, ...] = ()
        if isinstance(session.transport, Ssh) and answer.all("begun"):
            step = answer.first("step").decode().strip()
            after = tuple(session.transport.guest(join(("scancel", step))))
        local = port if port is not None else _free(remote)
        door = enter.door(session, place)
        made = _start(session, place, door, local, remote, "Jupyter", after)
    except BaseException:
        # whoever gave up waiting wants no server that nobody looks at
        with contextlib.suppress(RvstateError):
            session.transport.run(Script("jupyter", ("undo", *fixed)))
        raise
    return Served(made, _with_token(made, token))


def _with_token(made: Tunnel, token: str) -> str:
    return f"http://{tunnel.HERE}:{made.port}/?token={token}"


def _known(session: Session, place: Place, remote: int) -> Tunnel | None:
    """The tunnel that leads there already."""
    there = (place.run.job, place.node, remote)
    living = tunnel.tunnels(session.state.tunnels)
    return next((t for t in living if (t.job, t.node, t.remote) == there), None)


def _free(wanted: int) -> int:
    port = tunnel.next_free(wanted)
    if port is None:
        raise ConfigError("No port of this machine is free.", "Close something.")
    return port


def _start(
    session: Session,
    place: Place,
    door: Door,
    port: int,
    remote: int,
    what: str = "",
    after: tuple[str, ...] = (),
) -> Tunnel:
    new = Tunnel(
        port=port,
        remote=remote,
        node=place.node,
        job=place.run.job or "",
        name=place.run.name,
        account=session.label,
        what=what,
    )
    way = f"{tunnel.HERE}:{port}:localhost:{remote}"
    settings = (
        "ExitOnForwardFailure=yes",
        "BatchMode=yes",
        # run once ssh listens: that somebody listens on the port would not say that it is ssh
        "PermitLocalCommand=yes",
        f"LocalCommand=echo {tunnel.STANDS}",
    )
    argv = door.argv("-N", "-T", *(word for text in settings for word in ("-o", text)), "-L", way)
    name = "local"
    check: tuple[str, ...] = ()
    if isinstance(session.transport, Ssh):
        name, check = session.transport.slot_name, tuple(session.transport.argv("-O", "check"))
    slot = (name, LASTING_SESSIONS, session.label)
    return tunnel.start(session.state.tunnels, new, argv, slot, after, check)


def _served(made: Tunnel) -> Served:
    return Served(made, f"http://{tunnel.HERE}:{made.port}")
