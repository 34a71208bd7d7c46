"""Tiers: which tests are which, and how many of each ran."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "cluster"))
from fixture import cluster  # noqa: F401 - the mini-cluster, one for each worker

# A shell that begins the tests in the background has them ignore Ctrl-C, and so would all that they
# start and interrupt.
for _number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(
            _number,
            signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL,
        )

TIERS = ("unit", "shell", "account", "cluster")
_HERE = Path(__file__).parent


def _tier(path: Path, markers: set[str]) -> str:
    if "cluster" in markers:
        return "cluster"
    folder = path.relative_to(_HERE).parts[0]
    return {"remote": "shell", "account": "account", "operations": "account"}.get(folder, "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test is told its tier."""
    for item in items:
        markers = {mark.name for mark in item.iter_markers()}
        item.user_properties.append(("tier", _tier(item.path, markers)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each tier."""
    counts: Counter[tuple[str, str]] = Counter()
    failed: set[tuple[str, str]] = set()
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            tier = dict(getattr(report, "user_properties", ())).get("tier")
            if tier is not None:
                counts[tier, "failed" if outcome == "error" else outcome] += 1
                if outcome in ("failed", "error"):
                    failed.add((str(tier), report.nodeid.partition("::")[0]))
    lines = []
    for tier in TIERS:
        words = [f"{name} {counts[tier, name]}" for name in ("passed", "failed", "skipped")]
        lines.append(f"{tier} {', '.join(words)}")
    terminalreporter.section("tiers")
    for line in lines:
        terminalreporter.write_line(line)
    report_path = os.environ.get("RVSTATE_TIER_REPORT")
    if report_path:
        lines.extend(f"failed {tier} {file}" for tier, file in sorted(failed))
        Path(report_path).write_text("\n".join(lines) + "\n")
