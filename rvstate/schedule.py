"""What runs keepalive day by day: which kinds may, which is taken, and what must change; pure."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rvstate import cron, units
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Action, Change, refuse, same
from rvstate.model.resources import Schedule
from rvstate.model.settings import CHAIN, SCHEDULES
from rvstate.model.site import Site
from rvstate.rcblock import Broken
from rvstate.script import Script
from rvstate.shell import join, sbatch_line

# The kinds that live on this machine; the others live on the cluster.
HERE = ("local-cron", "systemd-user", "launchd", "first-command")
TABLES = {"local-cron": "crontab", "remote-cron": "crontab", "scrontab": "scrontab"}
# By these a chain's job is known (remote/lib.sh, rv_chain).
_JOB = (f"--job-name={CHAIN}", "--comment=rvstate-keepalive")
# Slurm puts this before the lines of an entry whose job was cancelled.
_DISABLED = "\n#DISABLED: "
_LIMIT = "01:00:00"
_OWN = "this machine is the login node itself, whose cron is remote-cron"
_ANOTHER = "set schedule in [scratch_keepalive] to another kind"


@dataclass(frozen=True, slots=True)
class Option:
    """One kind, and whether it may run.

    Args:
        how: One of `SCHEDULES`.
        policy: What the site says: `allowed`, `forbidden` or `unknown`.
        lack: Why it cannot be although it may; empty where it can, or nobody looked.
    """

    how: str
    policy: str
    lack: str = ""

    @property
    def why_not(self) -> str:
        """One clause; empty where it is possible."""
        if self.policy == "forbidden":
            return "the site does not allow it" if self.how not in HERE else _OWN
        return self.lack

    @property
    def automatic(self) -> bool:
        """Whether `auto` may take it."""
        return self.policy == "allowed" and not self.lack


@dataclass(frozen=True, slots=True)
class Plain:
    """What a schedule is made of, before it is known which.

    Args:
        account: How this machine's tables name the account.
        command: The command on this machine, its program first.
        variables: That command's environment.
        log: The file on this machine that its output replaces.
        script: What keepalive is to do on the cluster.
        paying: What pays on the cluster, as options of sbatch.
        time: `HH:MM`, or empty for one that is made from the account's name.
    """

    account: str
    command: tuple[str, ...]
    variables: Mapping[str, str]
    log: str
    script: Script
    paying: tuple[str, ...]
    time: str = ""


def options(site: Site, *, alone: bool) -> tuple[Option, ...]:
    """Every kind and what the site says of it, in the order in which `auto` tries them.

    Args:
        site: The site profile.
        alone: Whether this machine is the login node itself.
    """
    policies = {
        "remote-cron": site.scheduling.remote_cron,
        "scrontab": site.scheduling.scrontab,
        "sbatch-chain": site.scheduling.sbatch_chain,
        "first-command": "allowed",
    }
    own = "forbidden" if alone else "allowed"
    return tuple(Option(how, policies.get(how, own)) for how in SCHEDULES)


def lacking(found: Sequence[Option], lacks: Mapping[str, str]) -> tuple[Option, ...]:
    """The options with what a look found against them."""
    return tuple(replace(o, lack=lacks.get(o.how, o.lack)) for o in found)


def choose(wanted: str, found: Sequence[Option]) -> tuple[str, str]:
    """The kind that is to run, and why it may not.

    Args:
        wanted: `auto`, a kind, or empty for none.
        found: Every kind, with what is known of it.
    """
    if wanted == "auto":
        return next((o.how for o in found if o.automatic), ""), ""
    option = next((o for o in found if o.how == wanted), None)
    if option is None:
        return "", ""
    return wanted, option.why_not


def usual_time(how: str, account: str) -> str:
    """`HH:MM`: at night on the cluster, in working hours on this machine, others at other minutes.

    A machine of one's own sleeps at night, and nobody is logged in then.
    """
    first, span = (10 * 60, 6 * 60) if how in HERE else (60, 5 * 60)
    minutes = first + zlib.crc32(account.encode("utf-8", "surrogateescape")) % span
    return f"{minutes // 60:02}:{minutes % 60:02}"


def program(script: Script, time: str, paying: Sequence[str]) -> str:
    """What the cluster runs: the script with its arguments, and what keeps how it went.

    Args:
        script: What keepalive is to do there.
        time: When the next job of a chain begins, `HH:MM`.
        paying: Options of sbatch.
    """
    return script.shipped("scheduled", {"rv_submit": _submission(time, paying)})


def _submission(time: str, paying: Sequence[str]) -> tuple[str, ...]:
    limits = (f"--begin={time}", f"--time={_LIMIT}", "--cpus-per-task=1", "--no-requeue")
    return ("sbatch", "--parsable", *_JOB, *limits, "--output=/dev/null", *paying)


def resource(how: str, refusal: str, plain: Plain, path: str, asks: tuple[str, ...]) -> Schedule:
    """The schedule of one kind.

    Args:
        how: The kind; empty for none.
        refusal: Why it may not be.
        plain: What it is made of.
        path: Its directory on the cluster.
        asks: Of which kinds on the cluster the look asks.
    """
    here = how in HERE
    account = plain.account if here else ""
    time = "" if how in ("", "first-command") else plain.time or usual_time(how, account or path)
    found = Schedule(how, here, account, path, time, asks, refusal=refusal)
    if not how or refusal:
        return found
    body = "" if here else program(plain.script, time, plain.paying)
    return replace(found, lines=lines(how, time, plain, path), program=body)


def lines(how: str, time: str, plain: Plain, path: str) -> str:
    """What stands in a table or unit for a kind, or submits its job; else empty."""
    title = f"rvstate keepalive for {plain.account}"
    words = ("sh", f"{path}/run", how, path)
    match how:
        case "local-cron":
            settings = [f"{k}={v}" for k, v in sorted(plain.variables.items())]
            command = (*(("env", *settings) if settings else ()), *plain.command)
            return cron.daily(time, command, log=plain.log)
        case "systemd-user":
            service = units.service(title, plain.command, plain.variables)
            return service + units.timer(title, time)
        case "launchd":
            label = unit_name(plain.account)
            return units.agent(label, time, plain.command, plain.variables, plain.log)
        case "remote-cron":
            return cron.daily(time, words)
        case "scrontab":
            fixed = (f"--job-name={CHAIN}", f"--time={_LIMIT}", "--output=/dev/null")
            given = [option.removeprefix("--").split("=", 1) for option in fixed + plain.paying]
            head = "".join(f"{sbatch_line(k, v, word='SCRON')}\n" for k, v in given)
            return head + cron.daily(time, words)
        case "sbatch-chain":
            return f"{join((*_submission(time, plain.paying), words[1], how, path))}\n"
        case _:
            return ""


def unit_name(account: str) -> str:
    """The name of an account's units and agent on this machine."""
    return f"rvstate-keepalive-{zlib.crc32(account.encode('utf-8', 'surrogateescape')):08x}"


def lacks(said: Mapping[str, str]) -> dict[str, str]:
    """Why kinds cannot be, from what a look said of them; empty for those that can."""
    return {how: _state(how, said).lack for how in SCHEDULES if f"{how}-end" in said}


@dataclass(frozen=True, slots=True)
class _State:
    """What is there of one kind: its text, or why nobody knows."""

    text: str = ""
    lack: str = ""


def _state(how: str, said: Mapping[str, str]) -> _State:
    end = said.get(f"{how}-end")
    if end is None:
        return _State(lack="nobody looked at it")
    status, _, errors = end.partition("\n")
    text = said.get(how, "")
    if not status.isdigit():
        return _State(lack=f"the answer about it was {end!r}")
    if status == "127":
        return _State(lack=errors.strip() or "it is not there")
    if how in TABLES:
        found = cron.table(int(status), text, errors)
        if isinstance(found, Broken):
            return _State(lack=f"`{TABLES[how]} -l` failed: {found.reason}")
        return _State(found)
    if status != "0":
        return _State(lack=errors.strip() or f"asking for it ended with {status}")
    return _State(text)


def record(said: Mapping[str, str]) -> tuple[str, str, str]:
    """What was put there: kind, node and time; empty where nothing was."""
    how, node, time = (*said.get("record", "").split(), "", "", "")[:3]
    return how, node, "" if time == "-" else time


def waiting(said: Mapping[str, str]) -> tuple[str, ...]:
    """The jobs of the chain."""
    rows = [line.split() for line in said.get("sbatch-chain", "").splitlines()]
    return tuple(row[0] for row in rows if row)


def change(wanted: Schedule, observed: ObservedState) -> Change:
    """A schedule: put there, brought up to date, taken out; what is not ours stays as it is."""
    if wanted.refusal:
        return refuse(wanted, wanted.refusal, _ANOTHER, "rvstate keepalive schedule")
    said = observed.schedules[wanted.here]
    how, node, time = record(said)
    words: list[str] = []
    before = ""
    for kind in dict.fromkeys(k for k in (how, wanted.how) if k):
        state = _state(kind, said)
        if state.lack:
            return _unknown(wanted, kind, state)
        if kind in TABLES:
            ours = cron.entry(state.text, wanted.owner)
            if isinstance(ours, Broken):
                return refuse(
                    wanted,
                    f"our block in the {TABLES[kind]} is damaged: {ours.reason}",
                    f"remove the lines of the block with `{TABLES[kind]} -e`",
                )
            if ours is None and _elsewhere(kind, node, observed):
                if kind == wanted.how and time == wanted.time:
                    return same(wanted, f"daily at {time}, in the crontab of {node}")
                return refuse(
                    wanted,
                    f"its line is in the crontab of {node}, which is another node",
                    f"take the line out with `crontab -e` on {node}, and remove {wanted.path}",
                    "set [connection] host to that node",
                )
            before += ours or ""
            after = cron.put(state.text, wanted.owner, wanted.lines * (kind == wanted.how))
            stale = after != state.text
        elif kind == "sbatch-chain":
            stale = len(waiting(said)) != 1
            after, before = "", before + f"{len(waiting(said))} jobs of the chain"
        else:
            after = wanted.lines * (kind == wanted.how)
            stale, before = after != state.text, before + state.text
        if kind != wanted.how:
            words += ("remove", kind, _digest(state.text), after)
        elif stale or not _current(wanted, observed, (how, time)):
            if kind == "sbatch-chain" and waiting(said):
                words += ("remove", kind, "", "")
            words += ("install", kind, _digest(state.text), after)
    if not words:
        return same(wanted, _sentence(wanted))
    action, reason = _why(wanted, how, said)
    shown = wanted.lines or _sentence(wanted)
    return Change(wanted, action, reason, (), before, shown if wanted.how else "", tuple(words))


def _unknown(wanted: Schedule, kind: str, state: _State) -> Change:
    place = "here" if wanted.here else "there"
    return refuse(
        wanted,
        f"{kind}: {state.lack}; nothing is written while nobody knows what is {place}",
        "mend that, then run converge again",
        _ANOTHER,
    )


def _elsewhere(kind: str, node: str, observed: ObservedState) -> bool:
    return kind == "remote-cron" and node not in ("", observed.account.node)


def _current(wanted: Schedule, observed: ObservedState, installed: tuple[str, str]) -> bool:
    whole = not wanted.program or (
        observed.digests.get(f"{wanted.path}/run") == _digest(wanted.program)
    )
    return whole and installed == (wanted.how, wanted.time)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _sentence(wanted: Schedule) -> str:
    if not wanted.how:
        return "nothing is scheduled"
    if wanted.how == "first-command":
        return "in the background of the first command of a day"
    return f"daily at {wanted.time}"


def _why(wanted: Schedule, how: str, said: Mapping[str, str]) -> tuple[Action, str]:
    if not wanted.how:
        return Action.REMOVE, f"{how} runs keepalive, and no schedule is declared here"
    if not how:
        return Action.CREATE, f"nothing runs keepalive; {_sentence(wanted)} from now on"
    if how != wanted.how:
        return Action.UPDATE, f"{how} runs keepalive; {wanted.how} takes its place"
    if how == "scrontab" and _DISABLED in said[how]:
        return Action.UPDATE, "its job was cancelled, which makes Slurm disable the entry"
    if how == "sbatch-chain" and len(waiting(said)) != 1:
        count = len(waiting(said))
        return Action.UPDATE, "the chain has ended" if not count else f"{count} chains run"
    return Action.UPDATE, f"it is not as declared; {_sentence(wanted)} from now on"
