"""What may be done against the purge of scratch, and the script that does it; pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from rvstate.errors import ProbeError, RefusedError
from rvstate.model.settings import Settings
from rvstate.model.site import Purge, Site
from rvstate.script import Answer, Script
from rvstate.shell import join
from rvstate.slurm import squeue

# What remains where dates may not be renewed.
WAYS = (
    'set mode = "heal" in [scratch_keepalive]: what was purged is found and built again',
    "keep what must last in a place that is not purged (home, project storage)",
    "ask the site for an exemption",
)
# The parts of an account beside its caches, as remote/keepalive.sh names them.
PLACES = ("account", "environments", "workspaces")
_YEAR = 365


@dataclass(frozen=True, slots=True)
class Policy:
    """What keepalive does on a site.

    Args:
        mode: `touch`, `report`, `heal` or `off`.
        purge: The site's clock and limit.
        note: What a person should know of it, one clause with the page to read; may be empty.
        refusal: Why `mode` may not be done; empty where it may.
    """

    mode: str
    purge: Purge
    note: str = ""
    refusal: str = ""

    @property
    def measurable(self) -> bool:
        """Whether the profile says enough to tell a file's days left."""
        return self.purge.days is not None and self.purge.clock not in ("unknown", "none", "data")

    def allowed(self) -> Policy:
        """This policy, if its mode may be done.

        Raises:
            RefusedError: It may not.
        """
        if self.refusal:
            raise RefusedError(self.refusal, f"{'; or '.join(WAYS)}.")
        return self


def policy(settings: Settings, site: Site) -> Policy:
    """What `[scratch_keepalive]` and the site profile together say.

    Args:
        settings: The user's settings, all layers.
        site: The site profile.
    """
    wanted, purge = settings.scratch_keepalive, site.purge
    if not wanted.enabled or wanted.mode == "off":
        return Policy("off", purge, "switched off in [scratch_keepalive]")
    if purge.clock == "none":
        return Policy("off", purge, "nothing is purged here")
    mode = wanted.mode or purge.mode
    see = f" (read {purge.url})" if purge.url else ""
    if mode != "touch":
        return Policy(mode, purge, f"touching is {purge.touch_policy} on {site.name}{see}")
    reason = _against(purge)
    if reason is not None:
        return Policy(mode, purge, "", f"Touching files is {reason} on {site.name}{see}.")
    if purge.touch_policy in ("forbidden", "unknown"):
        if not wanted.permission:
            said = "forbidden" if purge.touch_policy == "forbidden" else "not known to be allowed"
            text = f"Touching files is {said} on {site.name}{see}, and [scratch_keepalive] names "
            return Policy(mode, purge, "", f"{text}no permission.")
        note = f"touching is {purge.touch_policy} on {site.name}{see}, by your permission "
        return Policy(mode, purge, f"{note}{wanted.permission!r}")
    if purge.touch_policy == "silent":
        note = f"the policy of {site.name} is silent on touching{see}"
        return Policy(mode, purge, note)
    return Policy(mode, purge, f"touching is allowed on {site.name}{see}")


def _against(purge: Purge) -> str | None:
    """Why touching cannot work, whoever allows it."""
    if purge.touch_policy == "ineffective" or purge.clock == "data":
        return "without effect"
    if purge.days is None or purge.clock == "unknown":
        return "impossible without a known limit and clock ([purge] days, clock)"
    return None


def outdated(site: Site, today: date) -> str:
    """One sentence where nobody compared the profile with the site's pages for a year, else ""."""
    if site.checked is None:
        return ""
    try:
        age = (today - date.fromisoformat(site.checked)).days
    except ValueError:
        return f"The site profile {site.name} was checked on {site.checked!r}, which is no date."
    if age <= _YEAR:
        return ""
    see = f" with {site.purge.url}" if site.purge.url else " with the site's pages"
    return (
        f"The site profile {site.name} was last checked {age} days ago: compare it{see}, "
        "then write the date under `checked`."
    )


def notices(settings: Settings, site: Site, today: date) -> tuple[str, ...]:
    """What a person should know of keepalive on this site, one sentence each.

    Args:
        settings: The user's settings, all layers.
        site: The site profile.
        today: The date here.
    """
    found = policy(settings, site)
    said = [f"Keepalive touches files: {found.note}."] if found.mode == "touch" else []
    if found.refusal:
        said = [f"{found.refusal} Keepalive does nothing; {'; or '.join(WAYS)}."]
    return tuple(filter(None, (*said, outdated(site, today))))


def arguments(
    action: str, found: Policy, scratch: str, home: str, caches: tuple[str, ...], *, queued: bool
) -> tuple[str, ...]:
    """What `remote/keepalive.sh` is given.

    Args:
        action: `touch`, `report`, `count` or `recall`.
        found: The policy; it must be measurable, but for `recall`.
        scratch: The scratch directory, or its template.
        home: The home directory; empty for the login's own.
        caches: Names of the managed caches.
        queued: Whether there is a queue that knows the user's jobs.
    """
    queue = join(squeue.command(finished=False)) + ' --user="$rv_user"' if queued else ""
    purge = found.purge
    fixed = (action, scratch, home, purge.clock, str(purge.days), queue, purge.victims or "")
    return (*fixed, *caches)


def script(arguments: tuple[str, ...]) -> Script:
    """The one remote command of `rvstate keepalive run` and `status`."""
    return Script("keepalive", arguments, public=True)


@dataclass(frozen=True, slots=True)
class Place:
    """One declared path: how much is there, and how near to being purged.

    Args:
        name: `account`, `environments`, `workspaces`, or a cache's name.
        files: How many files and links of the user's own.
        size: Their bytes.
        risk: How many are past half of the limit.
        days_left: Until the oldest may be purged; below 0 where it could be already; None where
            there is nothing.
        victims: How many the site's own list names; None where there is no such list.
    """

    name: str
    files: int
    size: int
    risk: int
    days_left: int | None
    victims: int | None = None


@dataclass(frozen=True, slots=True)
class Last:
    """How the last run on the cluster went; dates in seconds since 1970."""

    ended: int
    action: str
    troubles: int
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """What runs keepalive on the cluster; dates in seconds since 1970, None where unknown.

    Args:
        how: The kind of schedule.
        node: Where it was put there.
        time: `HH:MM` by the cluster's clock.
        next: When it runs next.
        ended: When its last run ended.
        status: That run's exit status.
        text: What went wrong in it, one sentence; empty where nothing did.
    """

    how: str
    node: str
    time: str
    next: int | None = None
    ended: int | None = None
    status: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What keepalive knows of an account; dates are the cluster's, in seconds since 1970."""

    now: int
    places: tuple[Place, ...]
    success: int | None = None
    last: Last | None = None
    victims: int | None = None
    troubles: tuple[str, ...] = ()
    trouble_count: int = 0
    planned: Planned | None = None


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run did.

    Args:
        touched: How many files' dates were renewed.
        trouble_count: How many things went wrong.
        troubles: The first of them, as the programs there said it.
        busy: Who is at work already, "process N on HOST"; empty where this run did the work.
    """

    touched: int
    trouble_count: int = 0
    troubles: tuple[str, ...] = ()
    busy: str = ""


def _lines(answer: Answer) -> list[tuple[str, str]]:
    if answer.status != 0:
        said = [x for x in answer.errors.splitlines() if x.startswith("rvstate: ")]
        reason = (said or [answer.errors.strip() or "no reason given"])[-1].removeprefix(
            "rvstate: "
        )
        raise ProbeError(
            f"Keepalive did not succeed: {reason}.",
            "Mend that, then run it again: what is done already is not done twice.",
        )
    text = answer.body.decode("utf-8", "replace")
    return [(word, rest) for word, _, rest in (x.partition(" ") for x in text.splitlines())]


def _int(text: str) -> int:
    return int(text) if text.lstrip("-").isdigit() else 0


def ran(answer: Answer) -> Ran:
    """What a touching run said.

    Raises:
        ProbeError: It did not succeed.
    """
    lines = _lines(answer)
    said = dict(lines)
    if "busy" in said:
        host, _, process = said["busy"].partition(" ")
        return Ran(0, busy=f"process {process} on {host}")
    if "found" not in said or "troubles" not in said:
        raise ProbeError("Keepalive was interrupted.", "Run it again: it goes on where it was.")
    touched = max(_int(said["found"]) - _int(said.get("failed", "0")), 0)
    return Ran(touched, _int(said["troubles"]), tuple(r for w, r in lines if w == "trouble"))


def report(answer: Answer, found: Policy) -> Report:
    """What a reporting run said.

    Args:
        answer: Its answer.
        found: The policy, for the limit and whether there is a list of victims.

    Raises:
        ProbeError: It did not succeed.
    """
    lines = _lines(answer)
    said = dict(lines)
    now = _int(said.get("now", "0"))
    last = {w: r for w, _, r in (rest.partition(" ") for word, rest in lines if word == "last")}
    listed = "victims" in said
    return Report(
        now,
        tuple(_place(rest, now, found, listed) for word, rest in lines if word == "place"),
        _int(said["success"]) if "success" in said else None,
        Last(
            _int(last["ended"]),
            last.get("action", ""),
            _int(last.get("troubles", "0")),
            last.get("trouble", ""),
        )
        if "ended" in last
        else None,
        _int(said["victims"]) if listed else None,
        tuple(r for w, r in lines if w == "trouble"),
        _int(said.get("troubles", "0")),
        _planned(lines),
    )


def _planned(lines: list[tuple[str, str]]) -> Planned | None:
    said = dict(lines)
    if "schedule" not in said:
        return None
    how, node, time = (*said["schedule"].split(), "", "", "")[:3]
    kept = {
        w: r for w, _, r in (rest.partition(" ") for word, rest in lines if word == "scheduled")
    }
    damaged = _int(kept.get("damaged", "0"))
    text = kept.get("said", "")
    if damaged:
        text = f"{damaged} things are damaged; `rvstate converge` mends what can be mended"
    return Planned(
        how,
        node,
        time,
        _int(said["next"]) if said.get("next", "").isdigit() else None,
        _int(kept["ended"]) if "ended" in kept else None,
        _int(kept["status"]) if "status" in kept else None,
        text,
    )


def _place(row: str, now: int, found: Policy, listed: bool) -> Place:
    files, size, risk, oldest, victims, name = row.split(" ", 5)
    left = None
    if int(files):
        left = (found.purge.days or 0) - (now - int(oldest)) // 86400
    return Place(name, int(files), int(size), int(risk), left, int(victims) if listed else None)
