"""What is declared, made by the real scripts in a real shell, is what the look then finds."""

from __future__ import annotations

import shutil
import string
import subprocess
from pathlib import Path

import pytest
from harness import Account
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rvstate import desired, diff, probe, steps
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Plan
from rvstate.model.resources import DesiredState
from rvstate.model.settings import Caches, Settings, Shared
from rvstate.model.site import Site

SITE = Site("s", "s", scheduler="process")  # where rvstate makes home and scratch itself


def wanted(settings_: Settings, who: object, variables: dict[str, str]) -> DesiredState:
    found = desired.account(settings_, SITE, who, variables)  # type: ignore[arg-type]
    # installing uv needs a network
    return DesiredState(tuple(r for r in found.resources if r.kind != "tool"))


def look(
    account: Account, config: Settings, variables: dict[str, str]
) -> tuple[ObservedState, Plan]:
    asked = probe.questions(wanted(config, SYMBOLIC, variables))
    script = probe.script(str(account.scratch), str(account.home), asked)
    observed = probe.read(account.finish(account.start(script), script.nonce), asked)
    return observed, diff.plan(wanted(config, observed.account, variables), observed)


def converge(account: Account, config: Settings, variables: dict[str, str]) -> Plan:
    """One converge without transport and pyinfra; the plan that it made."""
    observed, plan = look(account, config, variables)
    assert plan.refusals == ()
    for kind, changes in plan.by_kind():
        script = steps.script(kind, changes, Layout(observed.account))
        answer = account.finish(account.start(script), script.nonce)
        body = answer.body.decode("utf-8", "replace")
        found = steps.results(kind, changes, body, answer.errors)
        assert [r.error for r in found] == [""] * len(changes)
    return plan


ODD = " \t'\"\\$`;&|<>(){}[]*?!#~-=%^,.:@+é字\udcff"
names = st.text(st.sampled_from(ODD.replace("\t", "").replace("\udcff", "") + "ab"), min_size=1,
                max_size=12).filter(lambda x: x not in (".", ".."))  # fmt: skip
values = st.text(st.sampled_from(ODD + "\n\rab\x01"), max_size=30)
variables_ = st.dictionaries(
    st.text(string.ascii_uppercase + "_", max_size=6).map(lambda name: f"V_{name}"),
    values,
    max_size=3,
)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    root=names, caches=st.lists(names, min_size=1, max_size=3, unique=True), variables=variables_
)
@example(root="-rf", caches=["-n", "a b", "{home}"], variables={"A": "it's\n$(touch x)\\"})
def test_any_names_and_values(
    account: Account, root: str, caches: list[str], variables: dict[str, str]
) -> None:
    """Homes, caches and values of any kind: one converge, and the next look finds nothing to do."""
    top = account.root / "each" / root
    shutil.rmtree(account.root / "each", ignore_errors=True)
    each = Account(top, account.shell, account.path)
    each.home.joinpath(".cache", caches[0]).mkdir(parents=True)
    each.home.joinpath(".cache", caches[0], "file").write_text("x")
    config = Settings(caches=Caches((), tuple(caches)), shared=Shared())
    plan = converge(each, config, variables)
    assert plan.changes
    assert look(each, config, variables)[1].empty
    assert Path(each.home, ".cache", caches[0], "file").read_text() == "x"
    assert Path(each.home, ".cache", caches[0]).is_symlink()
    read = each.rv / "env" / "user.env"
    for name, value in variables.items():
        shown = account.root / "value"
        script = '. "$1" && printf %s "$' + name + '" >"$2"'
        subprocess.run([account.shell, "-c", script, "sh", read, shown], check=True)
        assert shown.read_bytes() == value.encode("utf-8", "surrogateescape")


def test_a_group_s_cache(account: Account) -> None:
    """A shared Hugging Face cache with one of our own to move: converged by one converge."""
    hf = account.home / ".cache" / "huggingface"
    (hf / "hub" / "m").mkdir(parents=True)
    (hf / "hub" / "m" / "blob").write_text("x")
    (hf / "token").write_text("hf_x")
    shared = account.root / "shared"
    config = Settings(shared=Shared(str(shared)))
    converge(account, config, {})
    assert look(account, config, {})[1].empty
    assert (shared / "hub" / "m" / "blob").read_text() == "x"
    assert list(shared.rglob("token")) == []
    assert (hf / "token").read_text() == "hf_x"


@pytest.mark.parametrize("part", ["hub", "datasets"])
def test_a_group_s_cache_that_comes_later(account: Account, part: str) -> None:
    """Sharing that is switched on later moves what is on scratch already."""
    converge(account, Settings(), {})
    own = account.scratch / ".cache" / "huggingface" / part
    own.mkdir()
    (own / "file").write_text("x")
    shared = account.root / "shared"
    config = Settings(shared=Shared(str(shared)))
    plan = converge(account, config, {})
    assert "migrate" in [c.action.word for c in plan.changes]
    assert look(account, config, {})[1].empty
    assert (shared / part / "file").read_text() == "x"
