"""What programs read: one JSON document for each command, schema 1."""

from __future__ import annotations

import json
from typing import Any

from rvstate.model.plan import Change
from rvstate.workflows.converge import Outcome


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
    error = outcome.error
    return {
        "host": outcome.label,
        "changes": [_change(change, outcome) for change in planned],
        "recap": {
            "ok": outcome.plan.unchanged,
            "changed": len(outcome.results) - len(outcome.failed),
            "failed": len(outcome.failed) + (outcome.error is not None),
            "refused": len(outcome.plan.refusals),
        },
        "remote_commands": outcome.remote_commands,
        "verified": outcome.verified,
        **({"error": {"message": error.message, "remedy": error.remedy}} if error else {}),
        "notices": list(outcome.notices),
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
    note = next((r.note for r in outcome.results if r.change is change), "")
    if note:
        found["note"] = note
    return found


def document(command: str, **fields: Any) -> str:
    """The document of a command whose values are plain already."""
    return json.dumps({"schema": 1, "command": command, **fields})
