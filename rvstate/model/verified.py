"""What a full walk found of each thing that rvstate keeps on scratch."""

from __future__ import annotations

from dataclasses import dataclass

# Why a thing is what it is, as `remote/verify.sh` says it, in words.
REASONS = {
    "link": "the link leads to an environment that is gone",
    "stamp": "its stamp is gone, so it counts as unfinished",
    "interpreter": "its Python does not run",
    "torn": "its manifest is gone or cut",
    "digest": "it is not what rvstate wrote",
    "busy": "it is being built right now",
    "gone": "it went away during the walk",
    "unkept": "it has no manifest, for it was made by an earlier rvstate",
    "absent": "it is gone",
    "former": "it is not whole, is an earlier rvstate's, and no job needs it",
    "needed": "it is not whole, and a job that was submitted with an earlier rvstate needs it",
    "begun": "its job has begun, and may have changed files of its own",
}


@dataclass(frozen=True, slots=True)
class Verified:
    """One thing that was walked.

    Args:
        kind: `environment`, `snapshot`, `variables` or `scripts`.
        path: Where, on the cluster.
        state: `sound`, `damaged`, or `unknown` where nobody could tell.
        reason: A key of `REASONS`, or empty where the counts say it.
        missing: How many files are gone.
        changed: How many have another type, size or target.
        added: How many were not there when it was made: no damage.
        unreadable: How many directories may not be entered.
        examples: (word, path in the tree) of some of them.
    """

    kind: str
    path: str
    state: str
    reason: str = ""
    missing: int = 0
    changed: int = 0
    added: int = 0
    unreadable: int = 0
    examples: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """How output names it: project, branch, and which of them."""
        parts = self.path.split("/")
        if self.kind == "environment" and ".generations" in parts[-4:]:
            return f"{parts[-4]}/{parts[-2]} {parts[-1]}"
        if self.kind == "snapshot":
            return f"{parts[-4]}/{parts[-3]} {parts[-1]}"
        return "/".join(parts[-2:]) if self.kind == "environment" else parts[-1]

    @property
    def words(self) -> str:
        """What was found, in one clause."""
        counts = (
            (self.missing, "missing"),
            (self.changed, "changed"),
            (self.added, "added"),
            (self.unreadable, "unreadable"),
        )
        said = [f"{count} {word}" for count, word in counts if count]
        if self.reason and (said or self.reason != "begun"):
            said.append(REASONS.get(self.reason, self.reason))
        return ", ".join(said)

    @property
    def remedy(self) -> str:
        """What the user can do; empty where nothing has to be done."""
        if self.state == "unknown":
            return "make it readable: chmod -R u+rX" if self.unreadable else ""
        if self.state == "sound":
            return ""
        if self.kind == "snapshot":
            if self.reason == "begun":
                return "rvstate rerun, if its result is needed again"
            return "rvstate stop its job and rvstate rerun it"
        if self.reason == "needed":
            return "rvstate stop that job and rvstate rerun it"
        return "rvstate converge"
