"""Runs a pipeline's stages on a Ray that `ray.sh` has started; `driver.py DIRECTORY` in its job.

The directory is that of `ray.sh`, which says what else lies in it.  `plan.json` has:

    backend   ray-data or ray-actors
    nodes     how many there are to be
    pins      patterns of packages whose version no stage may change
    chains    in order, each with
      reads     the file with the items of its first stage, or empty where the pipeline has them
      stages    each with name, command, after, runtime_env (as Ray reads it), cpus, gpus, memory
                (bytes), batch_size, num_workers, items (where what comes out of the last is kept)

A stage whose command is `python -m rvstate.stages run FILE:NAME STAGE` is one of Python, and a
chain of several has only such: they pass batches to each other.  Any other is a command, which one
actor runs once, on whichever node has room, with its environment's interpreter and packages.

Only Ray and the standard library are needed; `rvstate.stages` has come along with the run.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

PATIENCE = 300  # seconds for Ray to start on all nodes
BUFFERED = 4  # batches for each worker that wait in front of a stage
RUNNER = ["python", "-m", "rvstate.stages", "run"]


class StageError(Exception):
    """A stage failed; the message says which and why."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def say(text: str) -> None:
    """Tell the reader of the job's log."""
    print(f"rvstate: {text}", file=sys.stderr, flush=True)


# ------------------------------------------------------------ Ray's start
def watch(place: Path) -> None:
    """End this program when a node says that Ray cannot go on."""

    def look() -> None:
        while not (place / "failed").exists():
            time.sleep(0.5)
        say((place / "failed").read_text().strip())
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def connect(ray: Any, place: Path, nodes: int) -> str:
    """Wait for the first node's Ray, and until all the others have joined it."""
    end = time.monotonic() + PATIENCE
    while not (place / "address").exists():
        wait(end, "Ray did not start on the first node")
    address = (place / "address").read_text().split()[0]
    ray.init(
        address=address,
        _node_ip_address=address.rpartition(":")[0],
        namespace="rvstate",
        logging_level="WARNING",
    )
    while len(alive := [node for node in ray.nodes() if node["Alive"]]) < nodes:
        wait(end, f"Ray has {len(alive)} of {nodes} nodes")
    return ", ".join(sorted(str(node["NodeManagerHostname"]) for node in alive))


def wait(end: float, why: str) -> None:
    """Wait a moment; past the end that is a failure."""
    if time.monotonic() > end:
        raise StageError(f"{why} within {PATIENCE} s; see the files of {sys.argv[1]}")
    time.sleep(0.2)


# ------------------------------------------------------------ what runs on the nodes
def versions(patterns: list[str]) -> dict[str, str]:
    """The versions of the packages here whose names fit."""
    found: dict[str, str] = {}
    for one in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", one.metadata["Name"] or "").lower()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            # of two on the way the first is imported
            found.setdefault(name, one.version)
    return found


def check_pins(stage: str, pins: dict[str, str]) -> None:
    """See that a stage's environment has the base's version of what must not change."""
    for name, version in versions(list(pins)).items():
        if version != pins[name]:
            raise RuntimeError(
                f"stage {stage} gets {name} {version}, the base environment has {pins[name]}, and "
                "pin_to_base names it"
            )


class Worker:
    """A worker of one Python stage."""

    def __init__(self, place: str, stage: dict[str, Any], pins: dict[str, str]) -> None:
        """Import the pipeline in the stage's environment, and prepare the stage."""
        check_pins(stage["name"], pins)
        os.chdir(stage["directory"])
        from rvstate import stages  # type: ignore[attr-defined,unused-ignore] # has come along

        self.apply = stages.apply
        spec, name = stage["command"][len(RUNNER) :]
        self.stage = stages.load(spec).stage(name)
        self.stage.setup()

    def work(self, batch: list[str]) -> list[str]:
        """A batch of items as JSON, and what becomes of it."""
        return [json.dumps(one) for one in self.apply(self.stage, [json.loads(x) for x in batch])]

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """The same for Ray Data."""
        return {"item": self.work([str(one) for one in batch["item"]])}


class Command:
    """Runs the command of one stage."""

    def __init__(self, place: str, stage: dict[str, Any], pins: dict[str, str]) -> None:
        """Take up a stage, in its environment."""
        check_pins(stage["name"], pins)
        self.place, self.stage = place, stage

    def where(self) -> str:
        """The node's name."""
        return socket.gethostname()

    def run(self) -> int:
        """Its exit code; what it prints goes to the stage's log."""
        words = self.stage["command"]
        if len(words) == 1:
            words = ["bash", "-c", words[0]]
        # of `python` there may be several on the way; the stage's is the one that runs this
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with Path(self.place, f"{self.stage['name']}.log").open("ab") as log:
            return subprocess.run(
                words,
                cwd=self.stage["directory"],
                env={**os.environ, "PATH": path, "RV_STAGE": self.stage["name"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode


# ------------------------------------------------------------ the driver
class Driver:
    """Runs the stages of a plan, in order or beside each other."""

    def __init__(self, ray: Any, place: Path, plan: dict[str, Any]) -> None:
        self.ray, self.place, self.plan = ray, place, plan
        self.pins = versions(plan["pins"])
        self.chains = plan["chains"]
        for chain in self.chains:
            for stage in chain["stages"]:
                stage["directory"] = str(Path.cwd())

    def run(self) -> None:
        """Run all of them, each when those that it follows are done.

        Raises:
            StageError: One failed; those that do not need it have gone on.
        """
        left = list(self.chains)
        running: dict[Any, Commanded] = {}
        done: set[str] = set()
        failed: list[StageError] = []
        while (ready := [chain for chain in left if follows(chain) <= done]) or running:
            for chain in ready:
                left.remove(chain)
                try:
                    self.begin(chain)
                    if is_python(chain["stages"][0]):
                        self.stream(chain)
                        done |= self.end(chain)
                    else:
                        started = Commanded(self, chain)
                        running[started.ref] = started
                except StageError as error:
                    failed.append(error)
                    say(str(error))
            ended, _ = self.ray.wait(list(running), timeout=0.5) if running else ([], [])
            for one in running.values():
                one.tell()
            for ref in ended:
                try:
                    done |= running.pop(ref).finish()
                except StageError as error:
                    failed.append(error)
                    say(str(error))
        if failed:
            names = [stage["name"] for chain in left for stage in chain["stages"]]
            raise StageError(f"not run: {', '.join(names)}" if names else "", failed[0].status)

    def begin(self, chain: dict[str, Any]) -> None:
        """Note what goes into the stages of a chain."""
        for stage in chain["stages"]:
            self.note("begin", stage["name"])
            say(f"stage {stage['name']} begins")

    def end(self, chain: dict[str, Any]) -> set[str]:
        """Note what has come out of the stages of a chain, which are done then."""
        for stage in chain["stages"]:
            self.note("end", stage["name"])
            say(f"stage {stage['name']} is done")
        return {stage["name"] for stage in chain["stages"]}

    def note(self, what: str, name: str) -> None:
        """Have `ray.sh` keep the records of stages, where somebody wants them."""
        if (self.place / "stages.sh").exists():
            command = ["bash", str(self.place / "ray.sh"), what, name]
            if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
                raise StageError(f"stage {name} failed")

    def actor(self, kind: type, stage: dict[str, Any]) -> Any:
        """One worker of a stage, on any node that has room."""
        wanted = self.options(stage)
        made = self.ray.remote(kind).options(**wanted, max_restarts=0, scheduling_strategy="SPREAD")
        return made.remote(str(self.place), stage, self.pins)

    def options(self, stage: dict[str, Any]) -> dict[str, Any]:
        """What a stage's workers ask of Ray; without an environment of its own nothing of it."""
        wanted = {"num_cpus": stage["cpus"], "num_gpus": stage["gpus"]}
        if stage["memory"]:
            wanted["memory"] = stage["memory"]
        if stage["runtime_env"]:
            wanted["runtime_env"] = stage["runtime_env"]
        return wanted

    def room(self, chain: list[dict[str, Any]]) -> None:
        """See that all workers of a chain fit at once; Ray would wait for ever."""
        total = self.ray.cluster_resources()
        for kind, name in (("cpus", "CPU"), ("gpus", "GPU")):
            wanted = sum(stage[kind] * stage["num_workers"] for stage in chain)
            if wanted > total.get(name, 0):
                names = ", ".join(stage["name"] for stage in chain)
                raise StageError(
                    f"stage {names} needs {wanted:g} {name}s at once and the job has "
                    f"{total.get(name, 0):g}: ask for more in [pipeline.resources], or lower "
                    "num_workers"
                )

    def stream(self, given: dict[str, Any]) -> None:
        """Pass the items through Python stages in a row, and keep what comes out of the last."""
        chain = given["stages"]
        from rvstate import stages  # type: ignore[attr-defined,unused-ignore] # has come along

        self.room(chain)
        names = ", ".join(stage["name"] for stage in chain)
        first = chain[0]["command"][len(RUNNER)]
        if given["reads"]:
            items = stages.read_items(given["reads"])
        else:
            items = stages.source(stages.load(first))
        texts = [json.dumps(item) for item in items]
        passed = self.by_data if self.plan["backend"] == "ray-data" else self.by_actors
        try:
            made = passed(chain, texts) if texts else []
        except Exception as error:
            raise StageError(f"stage {names} failed: {cause(error)}") from error
        stages.write_items(chain[-1]["items"], map(json.loads, made))
        say(f"{len(made)} items are in {chain[-1]['items']}")

    def by_data(self, chain: list[dict[str, Any]], texts: list[str]) -> list[str]:
        """By Ray Data: one `map_batches` for each stage."""
        import logging

        import ray.data  # type: ignore[import-not-found,unused-ignore]

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        # an error is one, and not a batch that is left out
        context.max_errored_blocks = 0
        # a batch each, so that several workers have something to do
        size = chain[0]["batch_size"]
        blocks = max(1, min(-(-len(texts) // size), 1000))
        rows = ray.data.from_items([{"item": one} for one in texts], override_num_blocks=blocks)
        for stage in chain:
            rows = rows.map_batches(
                Worker,
                fn_constructor_args=(str(self.place), stage, self.pins),
                batch_size=stage["batch_size"],
                compute=ray.data.ActorPoolStrategy(size=stage["num_workers"]),
                **self.options(stage),
            )
        return [str(row["item"]) for row in rows.iter_rows()]

    def by_actors(self, chain: list[dict[str, Any]], texts: list[str]) -> list[str]:
        """By pools of actors."""
        pools = [Pool(self, stage) for stage in chain]
        pools[0].waiting.extend(texts)
        pools[0].over = True
        while not pools[-1].finished:
            for at, pool in enumerate(pools):
                following = pools[at + 1] if at + 1 < len(pools) else None
                if following is None or not following.full:
                    pool.begin()
                if following is not None:
                    following.waiting.extend(pool.take())
                    following.over = pool.finished
            busy = [ref for pool in pools for ref in pool.busy]
            if not busy:
                continue
            ready, _ = self.ray.wait(busy, timeout=1)
            for pool in pools:
                pool.end([ref for ref in ready if ref in pool.busy])
        return pools[-1].take()


class Pool:
    """The workers of one stage, what waits for them, and what they have made, in order."""

    def __init__(self, driver: Driver, stage: dict[str, Any]) -> None:
        self.ray = driver.ray
        self.size: int = stage["batch_size"]
        self.idle: list[Any] = [driver.actor(Worker, stage) for _ in range(stage["num_workers"])]
        self.limit: int = BUFFERED * self.size * len(self.idle)
        self.waiting: deque[str] = deque()
        self.over: bool = False
        self.busy: dict[Any, tuple[int, Any]] = {}
        self.made: dict[int, list[str]] = {}
        self.begun = self.taken = 0

    @property
    def full(self) -> bool:
        """Whether enough waits already."""
        return len(self.waiting) >= self.limit

    @property
    def finished(self) -> bool:
        """Whether nothing more will come out than `take` gives."""
        return bool(self.over and not self.waiting and not self.busy)

    def begin(self) -> None:
        """Give batches to workers that have none; a small one only where no more comes."""
        while self.idle and (len(self.waiting) >= self.size or (self.over and self.waiting)):
            batch = [self.waiting.popleft() for _ in range(min(self.size, len(self.waiting)))]
            actor = self.idle.pop()
            self.busy[actor.work.remote(batch)] = (self.begun, actor)
            self.begun += 1

    def end(self, ready: list[Any]) -> None:
        """Take what workers have made."""
        for ref in ready:
            number, actor = self.busy.pop(ref)
            self.made[number] = self.ray.get(ref)
            self.idle.append(actor)

    def take(self) -> list[str]:
        """What has come out, in the order in which it went in."""
        found: list[str] = []
        while self.taken in self.made:
            found += self.made.pop(self.taken)
            self.taken += 1
        return found


class Commanded:
    """A command that runs."""

    def __init__(self, driver: Driver, chain: dict[str, Any]) -> None:
        stage = chain["stages"][0]
        driver.room([{**stage, "num_workers": 1}])
        self.ray = driver.ray
        self.driver, self.chain = driver, chain
        self.name: str = stage["name"]
        self.log, self.read = driver.place / f"{self.name}.log", 0
        self.log.touch()
        self.actor = driver.actor(Command, stage)
        self.ref = self.actor.run.remote()

    def tell(self) -> None:
        """Pass on whole lines of its log, with its name in front."""
        with self.log.open("rb") as file:
            file.seek(self.read)
            found = file.read()
        whole = found[: found.rfind(b"\n") + 1]
        self.read += len(whole)
        for line in whole.splitlines():
            print(f"[{self.name}] {line.decode(errors='replace')}", flush=True)

    def finish(self) -> set[str]:
        """Its name, once it has ended well.

        Raises:
            StageError: It has not.
        """
        try:
            status = self.ray.get(self.ref)
        except Exception as error:
            raise StageError(f"stage {self.name} failed: {cause(error)}") from error
        self.tell()
        # without a line break at its end the last line is not told yet
        rest = self.log.read_bytes()[self.read :]
        if rest:
            print(f"[{self.name}] {rest.decode(errors='replace')}", flush=True)
        if status != 0:
            code = status if status > 0 else 128 - status
            raise StageError(f"stage {self.name} failed with exit code {code}", code)
        self.ray.kill(self.actor)
        return self.driver.end(self.chain)


def follows(chain: dict[str, Any]) -> set[str]:
    """The stages that must be done before a chain begins."""
    own = {stage["name"] for stage in chain["stages"]}
    return {name for stage in chain["stages"] for name in stage["after"]} - own


def is_python(stage: dict[str, Any]) -> bool:
    """Whether it is a stage of Python."""
    return list(stage["command"][: len(RUNNER)]) == RUNNER


def cause(error: BaseException) -> str:
    """What went wrong, without Ray's own frames."""
    found = getattr(error, "cause", None) or error
    return "".join(traceback.format_exception_only(type(found), found)).strip()


def main(place: Path) -> int:
    """Run the plan; the exit code is that of the stage that failed, or 0."""
    plan = json.loads((place / "plan.json").read_text())
    watch(place)
    import ray  # type: ignore[import-not-found,unused-ignore]

    try:
        names = connect(ray, place, plan["nodes"])
        say(f"Ray {ray.__version__} on {names}")
        Driver(ray, place, plan).run()
    except StageError as error:
        if str(error):
            say(str(error))
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
