"""What is well and what is not: one remote command, and a judgement of each thing it tells."""

from __future__ import annotations

import platform
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rvstate import probe
from rvstate.errors import RvstateError
from rvstate.model.site import Purge
from rvstate.notification import by_webhook
from rvstate.script import Answer, Script
from rvstate.transport import Finished, Ssh, ssh_version
from rvstate.workflows.check import FAIL, OK, WARN, Check
from rvstate.workflows.session import Session

# rsync moves caches and snapshots (remote/caches.sh); the batch script is bash.
_NEEDED = ("rsync", "bash", "uv")
_SLURM = ("sbatch", "squeue", "sacct", "scancel", "srun")
_OPTIONAL = ("scrontab", "crontab", "git")
# notify.sh sends with it, where signed events are wanted.
_SENDER = "curl"
_REMEDIES = {
    "curl": "Ask the site for curl: signed events of runs are sent with it.",
    "rsync": "Ask the site for rsync: without it caches cannot be moved to scratch.",
    "bash": "Ask the site for bash: batch scripts are written for it.",
    "uv": "`rvstate converge` installs it.",
}
# RemoteCommand, which must be switched off on our connection, came with this OpenSSH.
_OLDEST_SSH = (7, 6)
# Dates of files and our own records are compared across the two clocks.
_SKEW = 30
_NEARLY_FULL = 90
# How many damaged environments are named.
_SHOWN = 5
# With less than this nothing of use can be written: a few blocks always stay.
_FULL_KIB = 1024
_FULL_INODES = 10
_LEAST_HOME = 1 << 30
_LEAST_INODES = 5000


def examine(session: Session, *, job: bool = False, root: Path | None = None) -> tuple[Check, ...]:
    """Look at this machine, the connection and the account.

    Args:
        session: Which account.
        root: A project with DVC that is looked at, too, or None.
        job: Whether a job of a minute asks a compute node if it shares home and scratch.

    Returns:
        Every check, in the order of the way there; trouble with the connection is one of them.
    """
    checks = list(_this_machine(session))
    reused = session.transport.connected() if isinstance(session.transport, Ssh) else None
    programs = (*_needed(session), *_SLURM, *_OPTIONAL)
    project = None
    if root is not None:
        # loaded only where there is DVC
        from rvstate.workflows import doctor_dvc

        try:
            project = doctor_dvc.look(session, root)
        except RvstateError as error:
            checks.append(doctor_dvc.trouble(error))
    url, places = project.asked if project is not None else ("", "")
    script = Script("doctor", (session.scratch, session.home, url, places, *programs))
    try:
        # the raw output is wanted as well: what stands before our answer is noise
        begun = time.time()
        done = session.transport.begin(script).result()
        answer = session.transport.finish(script, Finished(done))
    except RvstateError as error:
        return (*checks, Check("connection", FAIL, error.message, error.remedy))
    now = (begun + time.time()) / 2
    noise = _noise(done.output, script.nonce)
    checks.append(_connection(session, reused))
    checks += _shell(answer, noise, done.errors)
    checks += _places(answer)
    checks += _quota(answer)
    checks += _environments(answer)
    checks += _programs(answer, session)
    checks += _slurm(answer, session)
    checks += _clock(answer, now)
    checks.append(_purge(session.config.site.purge))
    if project is not None:
        checks += doctor_dvc.checks(session, project, answer)
    checks += _node(session) if job else [_node_not_asked(session)]
    return tuple(checks)


def failed(checks: tuple[Check, ...]) -> bool:
    """Whether anything is broken, rather than merely worth knowing."""
    return any(check.status == FAIL for check in checks)


def _this_machine(session: Session) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("this machine", OK, f"{platform.system()} with Python {version}")
    path = session.config.path
    if path.is_file():
        mode = path.stat().st_mode & 0o777
        if session.config.holds_secret and mode & 0o077:
            yield Check(
                "config", WARN, f"{path} holds a secret and others can read it", f"chmod 600 {path}"
            )
        else:
            yield Check("config", OK, str(path))
    else:
        yield Check("config", WARN, f"there is no {path}", "`rvstate init` writes one.")
    if not isinstance(session.transport, Ssh):
        return
    text = ssh_version()
    found = re.match(r"OpenSSH_(?:for_Windows_)?(\d+)\.(\d+)", text)
    if not text:
        yield Check("ssh", FAIL, "there is no ssh here", "Install OpenSSH's client.")
    elif found is None:
        yield Check("ssh", WARN, f"{text} is not OpenSSH", "Put OpenSSH's ssh first on PATH.")
    elif (int(found[1]), int(found[2])) < _OLDEST_SSH:
        yield Check("ssh", WARN, f"{text} is old", "Update OpenSSH to 7.6 or later.")
    else:
        yield Check("ssh", OK, text)


def _connection(session: Session, reused: bool | None) -> Check:
    if reused is None:
        return Check("connection", OK, "no connection is needed: this machine is the account's")
    how = "the open connection was used" if reused else "logged in; later commands reuse it"
    return Check("connection", OK, f"{session.label} answers; {how}")


def _noise(output: bytes, nonce: str) -> str:
    before, mark, _ = output.partition(f"@@rvstate {nonce} begin".encode())
    return before.decode("utf-8", "replace").strip() if mark else ""


def _shell(answer: Answer, noise: str, errors: str) -> Iterator[Check]:
    account = _account(answer)
    name = account.get("shell", "").rsplit("/", 1)[-1]
    if name in ("bash", "zsh", "fish"):
        yield Check("login shell", OK, name)
    else:
        yield Check(
            "login shell",
            OK,
            f"{name}: jobs and commands work; its own start-up file gets no cache variables",
        )
    said = [*noise.splitlines(), *errors.strip().splitlines()]
    if not said:
        yield Check("start-up files", OK, "they print nothing")
        return
    yield Check(
        "start-up files",
        WARN,
        f"they print {len(said)} {'line' if len(said) == 1 else 'lines'} at every command, "
        f"first {said[0].strip()[:60]!r}",
        "rvstate copes, scp and rsync do not: let them print only in interactive shells.",
    )


def _account(answer: Answer) -> dict[str, str]:
    lines = answer.first("account").decode("utf-8", "replace").splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)


def _places(answer: Answer) -> Iterator[Check]:
    account = _account(answer)
    for name in ("home", "scratch"):
        path = account.get(name, "")
        first, *rest = answer.first(f"place {name}").decode("utf-8", "replace").splitlines() or [""]
        facts = dict(line.split(" ", 1) for line in rest if " " in line)
        if first != "writable":
            what = "does not exist" if first == "missing" else "cannot be written to"
            remedy = (
                "Set the right one: `rvstate config set paths.scratch /path`."
                if name == "scratch"
                else "Ask the site: nothing works without a home directory."
            )
            yield Check(name, FAIL, f"{path} {what}", remedy)
            continue
        yield _space(name, path, facts)


def _space(name: str, path: str, facts: dict[str, str]) -> Check:
    total, _, free = _numbers(facts.get("bytes", ""))
    inodes_total, _, inodes = _numbers(facts.get("inodes", ""))
    text = f"{path} ({facts.get('type', '').strip() or 'unknown file system'})"
    if total:
        text += f", {_human(free * 1024)} free"
    if inodes_total:
        text += f", {inodes} files more"
    remedy = (
        "`rvstate converge` moves caches to scratch; `du -sh ~/.[!.]* ~/*` shows what is large."
        if name == "home"
        else "Remove what is no longer needed there; jobs write to it."
    )
    if total and free < _FULL_KIB:
        return Check(name, FAIL, f"{text}: it is full", remedy)
    if inodes_total and inodes < _FULL_INODES:
        return Check(name, FAIL, f"{text}: it can hold no further file", remedy)
    if total and free * 1024 < _LEAST_HOME and free * 20 < total:
        return Check(name, WARN, f"{text}: nearly full", remedy)
    if inodes_total and inodes < _LEAST_INODES:
        return Check(name, WARN, f"{text}: nearly no further files", remedy)
    return Check(name, OK, text)


def _numbers(text: str) -> tuple[int, int, int]:
    found = [int(word) if word.isdigit() else 0 for word in text.split()]
    return (found[0], found[1], found[2]) if len(found) == 3 else (0, 0, 0)


def _human(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _quota(answer: Answer) -> Iterator[Check]:
    account = _account(answer)
    tools = [key.split(" ", 1)[1] for key, _ in answer.sections if key.startswith("quota ")]
    if not tools:
        yield Check("quota", OK, "the site has no quota tool that we know; see free space above")
        return
    full = []
    for tool in tools:
        for line in answer.first(f"quota {tool}").decode("utf-8", "replace").splitlines():
            places = (account.get("home", "\0"), account.get("scratch", "\0"))
            used = re.search(r"(\d+)(?:\.\d+)?\s*%", line)
            if used and any(f" {place} " in f" {line} " for place in places):
                full.append((int(used[1]), " ".join(line.split())))
    worst = max(full, default=(0, ""))
    if worst[0] >= _NEARLY_FULL:
        yield Check(
            "quota",
            FAIL if worst[0] >= 100 else WARN,
            f"{tools[0]} says {worst[1]}",
            "Free some space there before the next job.",
        )
    elif full:
        yield Check("quota", OK, "; ".join(line for _, line in full))
    else:
        yield Check("quota", OK, f"see `rvstate exec {tools[0]}`")


def _needed(session: Session) -> tuple[str, ...]:
    return (*_NEEDED, _SENDER) if by_webhook(session.config.settings) else _NEEDED


def _environments(answer: Answer) -> Iterator[Check]:
    text = answer.first("environments").decode("utf-8", "surrogateescape")
    found = probe.environments(text)
    bad = sorted("/".join(path.split("/")[-2:]) for path, one in found.items() if not one.whole)
    if bad:
        yield Check(
            "environments",
            FAIL,
            f"{len(bad)} of {len(found)} damaged: {', '.join(bad[:_SHOWN])}"
            + (" and more" if len(bad) > _SHOWN else ""),
            "`rvstate converge` mends them; `rvstate verify` names every file.",
        )
    elif found:
        walked = [one.walked for one in found.values() if one.walked is not None]
        never = len(found) - len(walked)
        text = f"{len(found)}, none known to be damaged"
        yield Check("environments", OK, text + (f"; {never} never walked" if never else ""))


def _programs(answer: Answer, session: Session) -> Iterator[Check]:
    def where(name: str) -> str:
        return answer.first(f"program {name}").decode("utf-8", "replace").strip()

    slurm = session.config.site.scheduler == "slurm"
    needed = _needed(session)
    missing = [name for name in needed if not where(name)]
    for name in missing:
        status = FAIL if slurm and name != "uv" else WARN
        yield Check(name, status, "it is not there", _REMEDIES[name])
    if slurm:
        lost = [name for name in _SLURM if not where(name)]
        if lost:
            yield Check(
                "Slurm's commands",
                FAIL,
                f"{', '.join(lost)} cannot be found",
                "Is this a login node? Otherwise the site's start-up files must put them on PATH.",
            )
    present = [name for name in (*needed, *(_SLURM if slurm else ())) if where(name)]
    yield Check("programs", OK, ", ".join(present))
    extra = [name for name in _OPTIONAL if where(name)]
    none = [name for name in _OPTIONAL if not where(name)]
    text = f"there: {', '.join(extra) or 'none'}; not there: {', '.join(none) or 'none'}"
    yield Check("optional programs", OK, text)
    modules = session.config.settings.modules
    if where("module"):
        yield Check("modules", OK, "`module` works")
    elif modules.python or modules.cuda or modules.compiler:
        yield Check(
            "modules",
            WARN,
            "`module` is not there, yet settings or site profile name modules",
            "Check `rvstate exec 'bash -lc \"module avail\"'`, or empty [modules].",
        )


def _slurm(answer: Answer, session: Session) -> Iterator[Check]:
    text = answer.first("controller").decode("utf-8", "replace").strip()
    if not text:
        return
    if " is UP" not in text and "is up" not in text.lower():
        yield Check(
            "Slurm",
            FAIL,
            f"the controller does not answer: {text.splitlines()[0]}",
            "Wait, and look at the site's status page.",
        )
        return
    yield Check("Slurm", OK, text.splitlines()[0])
    accounts = answer.first("accounts").decode("utf-8", "replace").split()
    wanted = session.config.settings.defaults.account
    known = ", ".join(dict.fromkeys(accounts))
    if wanted and accounts and wanted not in accounts:
        yield Check(
            "allocation",
            FAIL,
            f"Slurm knows no account {wanted!r} of yours",
            f"`rvstate config set defaults.account NAME`; yours: {known}.",
        )
    elif not accounts:
        yield Check(
            "allocation",
            WARN,
            "Slurm lists no account that you may charge",
            "Without one, jobs are refused on most clusters: ask your group's manager.",
        )
    else:
        yield Check("allocation", OK, wanted or f"Slurm's default, of {known}")


def _clock(answer: Answer, now: float) -> Iterator[Check]:
    account = _account(answer)
    zone = account.get("zone", "")
    here = time.strftime("%z %Z")
    if not account.get("clock", "").isdigit():
        yield Check("clock", WARN, "the cluster did not tell its time", "Look at `date` there.")
        return
    skew = round(int(account["clock"]) - now)
    text = f"the cluster's zone is {zone}" + (f", here {here}" if zone[:5] != here[:5] else "")
    if abs(skew) > _SKEW:
        side = "ahead of" if skew > 0 else "behind"
        yield Check(
            "clock",
            WARN,
            f"the cluster is {abs(skew)} seconds {side} this machine; {text}",
            "Set this machine's clock (NTP): dates of files and runs are compared.",
        )
    else:
        yield Check("clock", OK, text)


def _purge(purge: Purge) -> Check:
    if purge.clock == "none":
        return Check("purge", OK, "nothing is purged")
    if purge.days is None:
        return Check(
            "purge",
            WARN,
            "the site profile does not say when scratch is purged",
            "Look it up on the site's pages and put it under [purge] of its profile.",
        )
    see = f"; see {purge.url}" if purge.url else ""
    return Check(
        "purge",
        OK,
        f"after {purge.days} days by {purge.clock}; touching is {_touch(purge.touch_policy)}{see}",
    )


def _touch(policy: str) -> str:
    return {"silent": "neither allowed nor forbidden in public"}.get(policy, policy)


def _node_not_asked(session: Session) -> Check:
    if session.config.site.scheduler != "slurm":
        return Check("compute nodes", OK, "jobs run on this machine")
    return Check(
        "compute nodes", OK, "whether they share home and scratch was not asked (--job does)"
    )


def _node(session: Session) -> Iterator[Check]:
    defaults = session.config.settings.defaults
    options = [f"--account={defaults.account}"] if defaults.account else []
    if defaults.partition and not defaults.gpu_type:
        options.append(f"--partition={defaults.partition}")
    try:
        script = Script("compute_node", (session.scratch, session.home, *options))
        answer = session.transport.run(script)
    except RvstateError as error:
        yield Check("compute nodes", FAIL, error.message, error.remedy)
        return
    words = answer.body.decode("utf-8", "replace").split()
    seen = [word for word in words if word in ("seen", "unseen")]
    if answer.status != 0 or len(seen) != 2:
        reason = (answer.errors.strip().splitlines() or ["no node was free within a minute"])[-1]
        yield Check(
            "compute nodes", WARN, f"none could be asked: {reason}", "Try again when one is idle."
        )
        return
    for name, word in zip(("home", "scratch"), seen, strict=True):
        if word == "seen":
            yield Check(f"{name} on a node", OK, f"a compute node sees the same {name}")
        else:
            yield Check(
                f"{name} on a node",
                FAIL,
                f"a compute node does not see {name}",
                "Set paths.scratch to a directory that all nodes share.",
            )
