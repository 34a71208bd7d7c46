"""What programs read: one JSON document for each command, schema 1."""

from __future__ import annotations

import json
from typing import Any

from rvstate.model.job import RunRecord
from rvstate.model.plan import Change
from rvstate.workflows.converge import Outcome
from rvstate.workflows.run import Submitted


def converge(*outcomes: Outcome, check: bool) -> str:
    """The document of `rvstate converge --json`."""
    return json.dumps(
        {
            "schema": 1,
            "command": "converge",
            "mode": "check" if check else "apply",
            "hosts": [_host(outcome) for outcome in outcomes],
        }
    )


def _host(outcome: Outcome) -> dict[str, Any]:
    planned = (*outcome.plan.changes, *outcome.plan.refusals)
    return {
        "host": outcome.label,
        "changes": [_change(change, outcome) for change in planned],
        "recap": {
            "ok": outcome.plan.unchanged,
            "changed": len(outcome.results) - len(outcome.failed),
            "failed": len(outcome.failed),
            "refused": len(outcome.plan.refusals),
        },
        "remote_commands": outcome.remote_commands,
        "verified": outcome.verified,
        "originals": [
            {"path": o.path, "target": o.target, "bytes": o.size, "entries": o.entries}
            for o in outcome.originals
        ],
    }


def _change(change: Change, outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": change.kind,
        "name": change.resource.name,
        "path": getattr(change.resource, "path", None),
        "action": change.action.word,
        "reason": change.reason,
    }
    if change.ways_out:
        found["ways_out"] = list(change.ways_out)
    error = next((r.error for r in outcome.failed if r.change is change), "")
    if error:
        found["error"] = error
    return found


def run(submitted: Submitted) -> str:
    """The document of `rvstate run --json`."""
    prepared = submitted.prepared
    project, spec = prepared.project, prepared.spec
    return json.dumps(
        {
            "schema": 1,
            "command": "run",
            "run_id": prepared.run_id,
            "job_id": submitted.job,
            "name": spec.options.name,
            "project": project.name,
            "branch": project.branch,
            "commit": project.commit,
            "dirty": project.dirty,
            "snapshot": spec.snapshot,
            "environment": spec.environment,
            "script": spec.run_directory / "job.sh",
            "log": submitted.log,
            "error_log": submitted.error_log,
            "submitted": submitted.new,
            "remote_commands": submitted.remote_commands,
        }
    )


def ps(records: tuple[RunRecord, ...]) -> str:
    """The document of `rvstate ps --json`."""
    return json.dumps({"schema": 1, "command": "ps", "runs": [_run(r) for r in records]})


def stop(records: tuple[RunRecord, ...]) -> str:
    """The document of `rvstate stop --json`."""
    return json.dumps({"schema": 1, "command": "stop", "ended": [_run(r) for r in records]})


def _run(record: RunRecord) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "job_id": record.job,
        "name": record.name,
        "state": record.state.value,
        "reason": record.reason,
        "exit_code": record.exit_code,
        "elapsed_seconds": record.elapsed,
        "project": record.project,
        "branch": record.branch,
        "commit": record.commit,
        "dirty": record.dirty,
        "submitted_at": record.submitted,
        "log": record.log,
        "error_log": record.error_log,
        "command": list(record.command),
    }


def document(command: str, **fields: Any) -> str:
    """The document of a command whose values are plain already."""
    return json.dumps({"schema": 1, "command": command, **fields})
