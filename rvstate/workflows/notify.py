"""Tell about runs: what is left to be told, and a test event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rvstate import notification
from rvstate.errors import (
    ConfigError,
    MissingToolError,
    RefusedError,
    RvstateError,
    UnsupportedError,
)
from rvstate.model.job import RunRecord
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.script import Script
from rvstate.slurm.states import FINISHED
from rvstate.workflows import jobs
from rvstate.workflows.session import Session

_SYMBOLIC = Layout(SYMBOLIC)


def deliver(session: Session, records: tuple[RunRecord, ...]) -> int:
    """Have the account send what was not told yet of runs that have ended; nobody waits for it.

    Args:
        session: Which account.
        records: Runs as they are known now.

    Returns:
        Of how many runs something was left; without one, nothing is asked of the account.
    """
    if not notification.by_webhook(session.config.settings):
        return 0
    left = [r for r in records if r.untold and r.job and r.state in FINISHED]
    if left:
        words = [word for record in left for word in _words(record)]
        session.transport.run(
            Script("notify", ("late", session.scratch, session.home, _SYMBOLIC.runs, *words))
        )
    return len(left)


def catch_up(session: Session) -> int:
    """Look at all runs and have the account send what was not told yet; see `deliver`.

    Without an address to tell, nothing is asked of the account.
    """
    if not notification.by_webhook(session.config.settings):
        return 0
    return deliver(session, jobs.runs(session))


def _words(record: RunRecord) -> tuple[str, ...]:
    code = "" if record.exit_code is None else str(record.exit_code)
    return (record.run_id, record.job or "", record.state.value, code, record.error_log)


@dataclass(frozen=True, slots=True)
class Tested:
    """What came of a test event: the address, and the HTTP status that it answered with."""

    url: str
    status: int


def test(session: Session) -> Tested:
    """Send one test event from the account, as its jobs do.

    Raises:
        ConfigError: The settings name no address.
        RefusedError: The account does not know it yet, or its receiver refused the event.
        UnsupportedError: Slurm sends the mail by itself, or nobody does.
        RvstateError: The address was not reached, or did not take it.
    """
    settings, site = session.config.settings, session.config.site
    if notification.by_mail(settings, site):
        raise UnsupportedError(
            f"Slurm itself mails {settings.notifications.email} when a job ends; there is nothing "
            "that rvstate could send.",
            "Run a short job, or set notifications.url for signed events.",
        )
    if not notification.by_webhook(settings):
        raise ConfigError(
            "Nobody is to be told: [notifications] has no url, or is not enabled.",
            "Run `rvstate init --notify-url ADDRESS`.",
        )
    url = settings.notifications.url or ""
    notification.secret(settings)
    known = notification.base(
        run_id="test",
        name="test",
        project="",
        cluster=session.label,
        user=settings.connection.user or "",
    )
    answer = session.transport.run(
        Script("notify", ("test", session.scratch, session.home, _SYMBOLIC.rv, known))
    )
    said = answer.body.decode("utf-8", "replace").split()
    status = said[-1] if len(said) == 2 and said[0] == "answer" else ""
    if status == "none":
        raise RefusedError(
            "The account does not know the address yet.", "Run `rvstate converge`, then this again."
        )
    if not status.isdigit() or status == "000":
        why = " ".join(answer.errors.split()) or "it gave no reason"
        raise RvstateError(
            f"{url} was not reached from {session.label}: {why}.",
            "Is the receiver running, and may the cluster reach that address?",
        )
    if status in ("401", "403"):
        raise RefusedError(
            f"{url} refused the event ({status}): it has another secret, or its clock differs.",
            "Give the receiver the token of [notifications], and compare the clocks.",
        )
    if not status.startswith("2"):
        raise RvstateError(
            f"{url} answered {status} instead of taking the event.", "See the receiver's own log."
        )
    return Tested(url, int(status))


def serve(session: Session, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Take events and pass them on, until interrupted.

    Args:
        session: Whose settings say what to do.
        host: The address to listen at.
        port: The port to listen at.
        tell: Told of each request, in a line without secrets.

    Raises:
        MissingToolError: What serves is not installed.
        ConfigError: The settings have no token, or nowhere to pass events on to.
    """
    try:
        from rvstate.receiver import app
    except ImportError as error:
        raise MissingToolError(
            f"`rvstate notify serve` needs {error.name}, which is not installed.",
            "pip install 'rvstate[notify]'",
        ) from error
    from rvstate.receiver.limits import Seen
    from rvstate.receiver.outlets import outlets

    settings = session.config.settings
    token, ways = notification.secret(settings), outlets(settings)
    seen = Seen(session.state.root / "notify" / "seen.sqlite")
    try:
        app.serve(app.Receiver(token, seen, ways, tell), host, port)
    finally:
        seen.close()
