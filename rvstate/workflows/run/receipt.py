"""What is kept of a run."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Any

from rvstate.workflows.run.prepared import Prepared, log_parts
from rvstate.workflows.session import Session


def receipt(session: Session, prepared: Prepared, job: str | None) -> dict[str, Any]:
    """What ran, from what, where, with which script; no secret is in it."""
    project, spec, order = prepared.project, prepared.spec, prepared.order
    return {
        "schema": 1,
        "run_id": prepared.run_id,
        "job_id": job,
        "cluster": session.label,
        "name": spec.options.name,
        "project": project.name,
        "root": project.root,
        "branch": project.branch,
        "commit": project.commit,
        "dirty": project.dirty,
        "dirty_digest": prepared.tree.state if project.dirty else None,
        "tree": prepared.tree.state,
        "snapshot": spec.snapshot,
        "environment": spec.environment,
        "environment_digest": prepared.generation.name if prepared.generation else None,
        "script": spec.run_directory / "job.sh",
        "script_digest": _digest(prepared.text),
        "logs": prepared.layout.logs,
        "parts": log_parts(spec),
        "command": list(spec.command),
        "order": {
            "words": list(order.words),
            "request": asdict(order.request),
            "name": order.name,
            "keep": list(order.keep),
            "writable": order.writable,
            "environment": order.environment,
            "subdirectory": project.subdirectory,
            "start": order.start,
            # a name may mean another run tomorrow
            "after": [f"{d.run_id}:{d.when}" for d in spec.after],
        },
        "after": [asdict(d) for d in spec.after],
        "plan": [f"{c.action.word} {c.kind} {c.resource.name}" for c in prepared.plan.changes],
        "submitted_at": int(datetime.datetime.now(datetime.UTC).timestamp()),
    }


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
