"""The layers that stages run in: where each lies, whether it is there, and building what is not."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rvstate import probe
from rvstate.errors import ConfigError, ConvergeError, RefusedError, RvstateError
from rvstate.model.environment.spec import EnvironmentSpec
from rvstate.model.layout import Layout
from rvstate.model.observed import ObservedState, Present
from rvstate.model.runtime_env import RuntimeEnv
from rvstate.paths import RemotePath
from rvstate.script import Script
from rvstate.workflows.session import Session

# A build over the same environment may hold the lock as long; its progress is told.
_PATIENCE = "3600"
# As much as is shown of what an installer said, in characters.
_MOST = 300
_PATTERN = re.compile(r"[a-z0-9*][a-z0-9*-]*")


@dataclass(frozen=True, slots=True)
class Layer:
    """What a stage's runtime_env comes to.

    Args:
        runtime_env: What it adds to the base.
        key: Over everything that decides what is in it; empty for the base itself.
        place: The directory whose `bin/python` the stage runs.
        base: The generation that it is laid over; None where rvstate builds none.
    """

    runtime_env: RuntimeEnv
    key: str
    place: RemotePath
    base: RemotePath | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """What building came to.

    Args:
        layers: Those that were built now; none where somebody else had built them meanwhile.
        notices: What the user should know.
    """

    layers: tuple[Layer, ...]
    notices: tuple[str, ...] = ()


def layers(
    session: Session,
    base: EnvironmentSpec | None,
    generation: RemotePath | None,
    runtime_envs: Iterable[RuntimeEnv],
) -> dict[RuntimeEnv, Layer]:
    """The layer of each, in order; equal ones are one, and one without packages is the base.

    Args:
        session: Which account.
        base: What the project declares as its environment; None where nothing is.
        generation: Where that lies, as far as rvstate builds it; its name is the base's key.
        runtime_envs: What stages add.

    Raises:
        ConfigError: Packages are to be added to what rvstate does not build, or a pattern of
            `pin_to_base` is none.
    """
    pins = pinned(session.config.settings.environment.pin_to_base)
    found: dict[RuntimeEnv, Layer] = {}
    for one in runtime_envs:
        if not one.layered:
            place = generation if generation is not None else RemotePath(base.path if base else "")
            found[one] = Layer(one, "", place, generation)
            continue
        if base is None or generation is None or not base.managed:
            raise ConfigError(
                "A stage adds packages, and the project has no environment that rvstate builds to "
                "add them to.",
                "Declare one ([environment]), or leave out uv and pip of that stage.",
            )
        key = one.key(generation.name, pins)
        found[one] = Layer(one, key, generation.parent / f"layer-{key}", generation)
    return found


def pinned(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Patterns of packages' names as all tools compare them, sorted.

    Raises:
        ConfigError: One is no name.
    """
    found = {re.sub(r"[-_.]+", "-", pattern).lower() for pattern in patterns}
    for pattern in found:
        if not _PATTERN.fullmatch(pattern):
            raise ConfigError(
                f"{pattern!r} in environment.pin_to_base is no name of a package.",
                'Write names, with * for any part: "nvidia-*".',
            )
    return tuple(sorted(found))


def questions(found: Iterable[Layer]) -> tuple[probe.Question, ...]:
    """What a look has to ask, so that `missing` can tell; nothing for the base itself."""
    return tuple(
        question
        for layer in _distinct(found)
        for question in (
            ("text", layer.place / ".rvstate-environment"),
            ("stat", layer.place / "bin" / "python"),
            ("text", layer.place / ".rvstate" / "verified"),
        )
    )


def missing(found: Iterable[Layer], observed: ObservedState) -> tuple[Layer, ...]:
    """Those that are not there, or are known to have lost files.

    Args:
        found: The layers.
        observed: The look, which asked `questions`.
    """
    return tuple(layer for layer in _distinct(found) if not _there(layer, observed))


def _distinct(found: Iterable[Layer]) -> tuple[Layer, ...]:
    return tuple({layer.key: layer for layer in found if layer.key}.values())


def _there(layer: Layer, observed: ObservedState) -> bool:
    stamp = observed.texts.get(layer.place / ".rvstate-environment", "").split("\n", 1)[0]
    python = observed.entry(layer.place / "bin" / "python")
    walked = observed.texts.get(layer.place / ".rvstate" / "verified", "").split()
    return (
        stamp == layer.place.name
        and isinstance(python, Present)
        and "f" in (python.type, python.leads_to)
        and walked[1:] != ["damaged"]
    )


def look(session: Session, found: Iterable[Layer]) -> tuple[Layer, ...]:
    """Those that are not there; one remote command, and none where no layer is wanted.

    Args:
        session: Which account.
        found: The layers, at their places on the account.
    """
    wanted = _distinct(found)
    if not wanted:
        return ()
    asked = questions(wanted)
    script = probe.script(session.scratch, session.home, asked)
    return missing(wanted, probe.read(session.transport.run(script), asked))


def build(
    session: Session,
    layout: Layout,
    uv: str,
    wanted: tuple[Layer, ...],
    token: str,
    tell: Callable[[str], None],
) -> Built:
    """Build layers whose base is there, one after the other with one remote command.

    Ctrl-C ends the build over there, too, and nothing half done is left.

    Args:
        session: Which account.
        layout: The account's paths.
        uv: The program there.
        wanted: What `missing` found; all over one base.
        token: Names this build, so that it can be ended.
        tell: Told what is being done, in a few words.

    Raises:
        RefusedError: A package of `pin_to_base` would be another one than in the base.
        ConvergeError: One could not be built.
    """
    if not wanted:
        return Built(())
    settings = session.config.settings.environment
    script = build_script(layout, uv, wanted, pinned(settings.pin_to_base), token)
    transport = session.transport
    tell(f"building {len(wanted)} layer{'s' if len(wanted) > 1 else ''} for stages")
    transport.heard = lambda line: tell(f"building layers: {line.strip()[:60]}")
    try:
        answer = transport.run(script)
    except KeyboardInterrupt:
        # ours may have gone while the build goes on over there
        with contextlib.suppress(RvstateError):
            transport.run(Script("build_environment", ("cancel", script.args[0], token)))
        raise
    finally:
        transport.heard = None
    lines = answer.body.decode("utf-8", "replace").splitlines()
    refused = next((x.removeprefix("refused ") for x in lines if x.startswith("refused ")), "")
    named = [x.removeprefix("at ") for x in lines if x.startswith("at ")]
    which = next((x.runtime_env.words for x in wanted if named[-1:] == [x.place.name]), "a stage")
    if refused:
        raise RefusedError(
            f"The layer of {which}: {refused}.",
            "Change the base environment instead, or take it out of pin_to_base in [environment].",
        )
    if answer.status != 0:
        raise ConvergeError(
            _reason(which, answer.errors), "Mend runtime_env of that stage, then repeat."
        )
    built = {x.removeprefix("built ") for x in lines if x.startswith("built ")}
    return Built(tuple(one for one in wanted if one.place in built), tuple(_notices(lines)))


def build_script(
    layout: Layout, uv: str, wanted: tuple[Layer, ...], pins: tuple[str, ...], token: str
) -> Script:
    """What builds layers over the environment beside them.

    Args:
        layout: The account's paths.
        uv: The program there.
        wanted: The layers; their recipes name the base by its key.
        pins: As `pinned` gives them.
        token: Names this build.
    """
    # what packs is needed only where something is built
    from rvstate import archive, assets

    base = wanted[0].base
    assert base is not None
    files = {f"{one.place.name}/recipe": _recipe(one, base, pins) for one in wanted}
    files["check.py"] = assets.program("check_environment")
    return Script(
        "layers",
        (
            *(base.parent / "lock", _PATIENCE, base, uv, layout.scratch_caches / "uv", token),
            *(one.place.name for one in wanted),
        ),
        archive.bundle(files, {}),
    )


def _recipe(layer: Layer, base: RemotePath, pins: tuple[str, ...]) -> str:
    told = (("digest", layer.key), *layer.runtime_env.recipe(base.name, pins))
    return "".join(f"{key} {value}\n" for key, value in told)


def _notices(lines: list[str]) -> Iterable[str]:
    from rvstate.size import human_bytes

    for line in lines:
        word, _, value = line.partition(" ")
        if word == "note":
            yield value
        elif word == "deferred":
            yield f"{value} is built by the stage's first job, on its compute node"
        elif word == "size":
            files, size, new = map(int, value.split())
            yield (
                f"a layer has {files} files, {human_bytes(size)}, of which {human_bytes(new)} "
                "are its own"
            )


def _reason(which: str, errors: str) -> str:
    """Why, with the installer's own last words in front of ours."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    said = lines[-1].removeprefix("rvstate: ") if lines else "the cluster gave no reason"
    words = re.match(r"(?:error|cause)s?: (.*)", lines[-2], re.I) if len(lines) > 1 else None
    own = f" ({words[1][:_MOST].rstrip('.')})" if words else ""
    return f"The layer of {which} could not be built: {said}{own}."
