"""The local state directory: the user's variables, receipts, what was learned (the disk door)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvstate.errors import ConfigError

if TYPE_CHECKING:
    from rvstate.model.project import Seen, Tree


# commits whose history was walked: those of some branches of some projects
_FIRSTS = 100


def write_private(path: Path, text: str, errors: str = "strict") -> None:
    """Put a file (0600) in a private directory in place, at once or not at all.

    Args:
        path: Where; a link is replaced, not followed.
        text: Its contents, written as UTF-8.
        errors: What becomes of text that is none, as `open` takes it.

    Raises:
        ConfigError: It cannot be written; what was there is still there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8", errors=errors) as file:
            os.fchmod(fd, 0o600)
            file.write(text)
            file.flush()
            os.fsync(fd)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}.", "Mend that, then run this again."
        ) from error


def _keep(path: Path, text: str) -> None:
    # names of files and variables may hold any bytes
    write_private(path, text, "surrogateescape")


@dataclass(frozen=True, slots=True)
class State:
    """What rvstate keeps on this machine; the directory is made private when first written to."""

    root: Path

    @property
    def tunnels(self) -> Path:
        """Where the records of tunnels are."""
        return self.root / "tunnels"

    @property
    def _variables(self) -> Path:
        return self.root / "env.json"

    def variables(self) -> dict[str, str]:
        """The user's own variables, name to value.

        Raises:
            ConfigError: The file is damaged; it is never taken for empty.
        """
        try:
            found = json.loads(self._variables.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self._variables} cannot be read ({type(error).__name__}); "
                "your variables are in it.",
                "Mend it (JSON, one object `vars`), or move it away and set the variables again.",
            ) from error
        variables = found.get("vars") if isinstance(found, dict) else None
        if not isinstance(variables, dict) or not all(
            isinstance(v, str) for v in variables.values()
        ):
            raise ConfigError(
                f"{self._variables} does not hold an object `vars` of texts.",
                "Mend it, or move it away and set the variables again.",
            )
        return variables

    def change_variables(self, change: Callable[[dict[str, str]], None]) -> dict[str, str]:
        """Change the variables under a lock, so that no concurrent edit is lost."""
        with self._locked("env.lock"):
            variables = self.variables()
            change(variables)
            _keep(self._variables, json.dumps({"vars": variables}, indent=2) + "\n")
            return variables

    def keep_receipt(self, run_id: str, receipt: dict[str, Any]) -> None:
        """Keep what a run was made of."""
        _keep(self.root / "runs" / f"{run_id}.json", json.dumps(receipt, indent=2) + "\n")

    def keep_tree(self, key: str, tree: Tree) -> None:
        """Remember which files a workspace holds, so that the next push is only the difference."""
        rows = [[f.path, f.kind, f.digest, f.size] for f in tree.files]
        _keep(self._tree(key), json.dumps(rows))

    def tree(self, key: str) -> Tree | None:
        """What was remembered; None where nothing was, or not readably."""
        from rvstate.model.project import File, Tree

        try:
            rows = json.loads(self._tree(key).read_text("utf-8", "surrogateescape"))
            return Tree(tuple(File(*row) for row in rows))
        except (OSError, ValueError, TypeError):
            # the whole tree is sent then, which is always right
            return None

    def _tree(self, key: str) -> Path:
        return self.root / "trees" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"

    def seen(self, root: str) -> Seen:
        """What the last scan of a project saw; nothing where it is not readably kept."""
        try:
            rows = json.loads(self._seen(root).read_text("utf-8", "surrogateescape"))
            return {str(name): tuple(look) for name, look in rows.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            # every file is read then, which is always right
            return {}

    def keep_seen(self, root: str, seen: Seen) -> None:
        """Remember what a scan saw."""
        _keep(self._seen(root), json.dumps(seen))

    def _seen(self, root: str) -> Path:
        name = hashlib.sha256(root.encode("utf-8", "surrogateescape")).hexdigest()[:24]
        return self.root / "trees" / f"{name}.seen.json"

    def firsts(self) -> dict[str, str]:
        """For commits the first one of their history; nothing where it is not readably kept."""
        try:
            found = json.loads((self.root / "trees" / "firsts.json").read_text("utf-8"))
            return {str(commit): str(first) for commit, first in found.items()}
        except (OSError, ValueError, AttributeError):
            # git is asked then
            return {}

    def keep_firsts(self, firsts: dict[str, str]) -> None:
        """Remember the newest of them."""
        newest = dict([*firsts.items()][-_FIRSTS:])
        _keep(self.root / "trees" / "firsts.json", json.dumps(newest))

    def keep_converged(self, account: str, when: int, changes: int) -> None:
        """Remember when an account was last made as declared.

        Args:
            account: How output names it.
            when: Seconds since 1970.
            changes: How many changes that took.
        """
        _keep(self._account(account), json.dumps({"converged": when, "changes": changes}))

    def converged(self, account: str) -> tuple[int, int] | None:
        """When, and with how many changes; None where this machine never did it."""
        try:
            found = json.loads(self._account(account).read_text("utf-8"))
            return int(found["converged"]), int(found["changes"])
        except (OSError, ValueError, TypeError, KeyError):
            # it is shown to people and decides nothing
            return None

    def _account(self, account: str) -> Path:
        return self.root / "accounts" / f"{hashlib.sha256(account.encode()).hexdigest()[:24]}.json"

    def keep_attempt(self, account: str, attempt: tuple[int, int, str]) -> None:
        """Keep how a scheduled run of keepalive went: when, its exit status, one sentence."""
        _keep(self._attempt(account), json.dumps(attempt))

    def attempt(self, account: str) -> tuple[int, int, str] | None:
        """How the last scheduled run from this machine went; None where there was none."""
        try:
            when, status, text = json.loads(self._attempt(account).read_text("utf-8"))
            return int(when), int(status), str(text)
        except (OSError, ValueError, TypeError):
            # a notice of the past: the next run writes it again
            return None

    def _attempt(self, account: str) -> Path:
        name = hashlib.sha256(account.encode("utf-8", "surrogateescape")).hexdigest()[:24]
        return self.root / "state" / f"keepalive-{name}.json"

    def keep_schedule(self, account: str, record: str) -> None:
        """Keep what runs keepalive from this machine: kind, node and time; empty for nothing."""
        path = self._schedule(account)
        if record:
            _keep(path, record)
        else:
            path.unlink(missing_ok=True)

    def schedule(self, account: str) -> str:
        """What was kept of it; empty where nothing runs it from here."""
        try:
            return self._schedule(account).read_text("utf-8").strip()
        except FileNotFoundError:
            return ""

    def _schedule(self, account: str) -> Path:
        return self._attempt(account).with_suffix(".schedule")

    def receipts(self) -> Iterator[dict[str, Any]]:
        """Every kept receipt, newest first; a damaged one is passed over."""
        folder = self.root / "runs"
        for path in sorted(folder.glob("*.json"), reverse=True) if folder.is_dir() else ():
            with contextlib.suppress(OSError, ValueError):
                yield json.loads(path.read_text("utf-8"))

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.root / name).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
