"""The user's own variables: kept on this machine, brought to the account by converge."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rvstate import envfile
from rvstate.errors import ConfigError
from rvstate.state import State
from rvstate.workflows import converge, observe
from rvstate.workflows.converge import Outcome
from rvstate.workflows.session import Session

# The environment file, and the private directory that it lies in.
KINDS = frozenset({"directory", "env"})


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit did, by name: new ones, ones with another value, ones that were so already."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    same: tuple[str, ...]


def put(state: State, wanted: Mapping[str, str]) -> Edited:
    """Set variables, all or none.

    Args:
        state: The local state.
        wanted: Name to value.

    Raises:
        ConfigError: A name that cannot be a variable's, or a value with NUL; nothing was changed.
    """
    envfile.render(wanted)
    before: dict[str, str] = {}

    def change(variables: dict[str, str]) -> None:
        before.update(variables)
        variables.update(wanted)

    state.change_variables(change)
    return Edited(
        tuple(n for n in wanted if n not in before),
        tuple(n for n in wanted if n in before and before[n] != wanted[n]),
        tuple(n for n in wanted if before.get(n) == wanted[n]),
    )


def remove(state: State, names: Sequence[str]) -> None:
    """Remove variables, all or none.

    Raises:
        ConfigError: There is none of a name; nothing was changed.
    """

    def change(variables: dict[str, str]) -> None:
        for name in names:
            if name not in variables:
                near = difflib.get_close_matches(name, variables, 1)
                raise ConfigError(
                    f"There is no variable {name}.",
                    f"Did you mean {near[0]}?" if near else "`rvstate env list` shows them.",
                )
        for name in names:
            variables.pop(name, None)

    state.change_variables(change)


def bring(session: Session, tell: Callable[[str], None]) -> Outcome:
    """Converge the environment file at once.

    Args:
        session: Which account.
        tell: Told what is being done.

    Raises:
        RvstateError: The account cannot be reached.
    """
    view = observe.account(session, KINDS)
    if not view.plan.may_be_applied:
        return converge.checked(session, view)
    (outcome,) = converge.apply(((session, view),), tell, kinds=KINDS)
    return outcome
