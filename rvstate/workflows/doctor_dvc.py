"""What a project with DVC needs of the account: a way to its Git remote, and to its data."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rvstate import git, history
from rvstate.dvcconfig import DataRemote, data_remote
from rvstate.errors import RvstateError
from rvstate.experiment import public_url
from rvstate.script import Answer
from rvstate.workflows.check import FAIL, OK, WARN, Check
from rvstate.workflows.session import Session

# Where programs that log in to a kind of remote keep what they log in with, and the variables that
# say it instead (pages "Supported storage types" of DVC's documentation).
_KEYS = ("{home}/.ssh/id_ed25519", "{home}/.ssh/id_ecdsa", "{home}/.ssh/id_rsa")
_PLACES: dict[str, tuple[str, ...]] = {
    "s3": ("{home}/.aws/credentials", "{home}/.aws/config"),
    "gs": ("{home}/.config/gcloud/application_default_credentials.json",),
    "azure": ("{home}/.azure",),
    "ssh": _KEYS,
    "sftp": _KEYS,
}
_VARIABLES = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "azure": ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT"),
    "gdrive": ("GDRIVE_CREDENTIALS_DATA",),
    "oss": ("OSS_ACCESS_KEY_ID",),
}
_KEYLESS = frozenset({"http", "https", "webdav", "webdavs", "hdfs", "webhdfs"})
_WAYS = (
    (
        r"Permission denied|access denied",
        "Make a key on the login node (`ssh-keygen -t ed25519`) and tell the Git server its public "
        "half; a deploy key of this repository that may write is enough.",
    ),
    (
        r"Host key verification failed|host key",
        "Connect there once by hand (`ssh -T` to the Git server from the login node) and compare "
        "the key with the one that the server publishes.",
    ),
    (
        r"could not read Username|Authentication failed|terminal prompts disabled|403|401",
        "Use the repository's ssh URL, or keep a credential helper in the account's ~/.gitconfig.",
    ),
    (
        r"resolve host|timed out|unreachable|refused",
        "Where the account reaches no Git server, use snapshot mode: experiments stay in its own "
        "repository there until you fetch them.",
    ),
    (
        r"not appear to be a git repository|not found|does not exist",
        "Is it a path of this machine? The account needs a URL that it can reach.",
    ),
)


@dataclass(frozen=True, slots=True)
class Project:
    """What this machine knows of a project with DVC.

    Args:
        root: Its root.
        remote: The name of the Git remote.
        url: Its URL without a password; empty where there is none.
        data: Where DVC's data goes, or None.
    """

    root: Path
    remote: str
    url: str
    data: DataRemote | None

    @property
    def asked(self) -> tuple[str, str]:
        """What `doctor.sh` is asked: the URL, and places, one a line."""
        places = _PLACES.get(self.data.scheme, ()) if self.data else ()
        if self.data is not None and self.data.scheme == "local":
            places = (self.data.url,)
        return self.url, "\n".join(("{home}", *places))


def look(session: Session, root: Path | None) -> Project | None:
    """The project that the user stands in, where it has DVC; connects to nothing.

    Args:
        session: Whose settings count.
        root: The project's root, or None.

    Raises:
        RvstateError: Its repository cannot be read.
    """
    found = _directory(root)
    if root is None or found is None:
        return None
    texts = (path.read_text("utf-8", "replace") for path in _files(found) if path.is_file())
    name = session.config.settings.dvc.remote
    repository = history.repository(git.inspect(root), name)
    url = public_url(repository.url) if repository.url else ""
    return Project(root, name, url, data_remote(texts, str(found)))


def has_dvc(root: Path | None) -> bool:
    """Whether a project has DVC."""
    return _directory(root) is not None


def _directory(root: Path | None) -> Path | None:
    above = () if root is None else (root, *root.parents)
    for folder in above:
        if (folder / ".dvc").is_dir():
            return folder / ".dvc"
        if (folder / ".git").exists():
            break
    return None


def _files(folder: Path) -> tuple[Path, ...]:
    return folder / "config", folder / "config.local"


def checks(session: Session, project: Project, answer: Answer) -> Iterator[Check]:
    """What is well with a project with DVC, on this machine and over there.

    Args:
        session: Which account.
        project: From `look`.
        answer: Of `doctor.sh`, which was asked about it.
    """
    yield _here()
    yield _git(session, project, answer)
    yield _agent(answer)
    if project.data is None:
        yield Check(
            "DVC remote",
            WARN,
            "DVC has no default remote, so results of experiments go nowhere",
            "`dvc remote add -d NAME URL`.",
        )
        return
    yield _data(session, project.data, answer)
    if project.data.secrets:
        yield Check(
            "DVC credentials",
            WARN,
            f"{', '.join(project.data.secrets)} of DVC remote {project.data.name} do not travel",
            "Give the account its own: `rvstate env set`, or the program's own file there.",
        )
    yield from _declared(session, project)


def _here() -> Check:
    if shutil.which("dvc"):
        return Check("dvc here", OK, "there, to show what comes back")
    return Check(
        "dvc here", WARN, "it is not on PATH", "Install dvc here to pull and compare experiments."
    )


def _git(session: Session, project: Project, answer: Answer) -> Check:
    name = f"Git remote {project.remote}"
    if not project.url:
        return Check(
            name,
            WARN,
            "the repository has none of that name",
            f"`git remote add {project.remote} URL`.",
        )
    # in snapshot mode only what comes out of it needs the remote
    broken = FAIL if session.config.settings.dvc.mode == "clone" else WARN
    status, _, said = answer.first("git-remote").decode("utf-8", "replace").partition("\n")
    if status.strip() == "0":
        return Check(name, OK, f"the account reaches {project.url} with its own key")
    if status.strip() == "none":
        return Check(name, broken, "there is no git over there", "Ask the site for git.")
    lines = [line.strip().rstrip(".") for line in said.splitlines() if line.strip()]
    why = "; ".join(lines[:2]) or "no answer within 20 seconds"
    remedy = next((way for words, way in _WAYS if re.search(words, why, re.I)), _WAYS[3][1])
    return Check(name, broken, f"the account does not reach {project.url}: {why}", remedy)


def _agent(answer: Answer) -> Check:
    if not answer.first("agent").strip():
        return Check("ssh agent", OK, "none is forwarded; jobs log in with the account's own keys")
    return Check(
        "ssh agent",
        WARN,
        "one answers in your sessions over there, and none in jobs",
        "What works in a shell there may fail in a job; give the account a key of its own.",
    )


def _data(session: Session, data: DataRemote, answer: Answer) -> Check:
    name = f"DVC remote {data.name}"
    places = answer.first("places").decode("utf-8", "replace").splitlines()
    found = [place.partition(" ") for place in places]
    if data.scheme == "local":
        state = next((word for word, _, path in found if path == data.url), "missing")
        if state == "writable":
            return Check(name, OK, f"the account can write to {data.url}")
        what = "cannot write to" if state == "there" else "does not see"
        return Check(
            name, FAIL, f"the account {what} {data.url}", "Use a remote that both machines reach."
        )
    known = (*_VARIABLES.get(data.scheme, ()),)
    variables = [v for v in known if v in session.state.variables()]
    homes = [path for word, _, path in found if word == "home"]
    files = [path for word, _, path in found if word != "home" and path not in homes]
    if variables or files:
        return Check(name, OK, f"{data.scheme}, with {', '.join((*variables, *files))}")
    if data.scheme in _KEYLESS:
        return Check(name, OK, f"{data.scheme}; whether it wants a login is not known")
    wanted = " or ".join((*_PLACES.get(data.scheme, ()), *known)) or "a login of its own"
    return Check(
        name,
        WARN,
        f"{data.scheme}, and the account has none of {wanted.replace('{home}', '~')}",
        "Make the file there, or keep the variables with `rvstate env set`.",
    )


def _declared(session: Session, project: Project) -> Iterator[Check]:
    """Whether what the project declares brings dvc, and what its remote needs."""
    if session.config.settings.dvc.script or session.config.settings.environment.path:
        return
    names = ("requirements.txt", "pyproject.toml", "pylock.toml", "uv.lock", "environment.yml")
    text = ""
    for name in names:
        try:
            text += (project.root / name).read_text("utf-8", "replace")
        except OSError:
            # not there, or not to be read: nothing is declared in it
            continue
    if not re.search(r"(?<![\w-])dvc(?![\w-])", text):
        yield Check(
            "dvc in jobs",
            WARN,
            "no requirement of the project names dvc",
            "Add it to the requirements, or name a `script` in [dvc].",
        )
        return
    scheme = project.data.scheme if project.data else "local"
    extra = {"s3", "gs", "azure", "ssh", "gdrive", "oss", "hdfs", "webdav", "webdavs"} & {scheme}
    kind = "webdav" if scheme == "webdavs" else scheme
    if extra and not re.search(rf"dvc\[[^\]]*\b{kind}\b|dvc[-_]{kind}\b", text):
        yield Check(
            "dvc in jobs",
            WARN,
            f"the DVC remote is {scheme}, and no requirement names dvc[{kind}]",
            f"Add dvc[{kind}] to the requirements.",
        )
        return
    yield Check("dvc in jobs", OK, "among the project's requirements")


def trouble(error: RvstateError) -> Check:
    """A repository that could not be read, as a check."""
    return Check("project", WARN, error.message, error.remedy)
