"""Layers on a real Slurm: jobs see what their stage adds, and nothing is built twice or half."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rvstate.errors import RefusedError
from rvstate.model.layout import Account, Layout
from rvstate.paths import RemotePath
from rvstate.workflows.run import layers
from rvstate.workflows.session import Session, open_session
from tests import envkit, layerkit
from tests.runkit import Laptop, repository, until

pytestmark = pytest.mark.cluster

SEEN = (
    "import packaging, six, sys; print('sees', packaging.__version__, six.__version__, sys.prefix)"
)
FILES = {
    "requirements.txt": "--find-links dist\npackaging\nsix\n",
    "see.py": "import needsheader, six, sys\nprint('site', needsheader.SITE, sys.prefix)\n",
    "rvstate.toml": '[stages.see]\ncommand = "see.py"\nruntime_env = { uv = ["needsheader"] }\n',
}
SCRATCH = "/scratch/abc1de"
UV = f"{SCRATCH}/.rv/tools/bin/uv"


class Story:
    """A project with an environment on the cluster."""

    def __init__(self, cluster: Any, root: Path) -> None:
        self.cluster = cluster
        self.laptop = Laptop(
            root / "laptop",
            f'[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
            f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
        )
        self.app = repository(root / "work/app", FILES)
        envkit.header_package(self.app / "dist")
        found = self.laptop.submit("--name", "base", "python", "-c", SEEN, cwd=self.app)
        self.base = found["environment"]
        self.jobs = {"base": found}

    def session(self, monkeypatch: pytest.MonkeyPatch) -> Session:
        monkeypatch.setenv("RVSTATE_HOME", str(self.laptop.home))
        return open_session(project=self.app)

    def sh(self, script: str) -> str:
        return str(self.cluster.run_as("abc1de", "sh", "-c", script).stdout)


@pytest.fixture(scope="module")
def story(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Story:
    cluster.reset()
    return Story(cluster, tmp_path_factory.mktemp("layers"))


def build(session: Session, *wanted: layers.Layer) -> layers.Built:
    place = RemotePath(SCRATCH)
    account = Account(user="abc1de", uid=0, home=RemotePath("/home/abc1de"), scratch=place)
    uv = session.transport.execute("command -v uv").output.decode().strip() or UV
    return layers.build(session, Layout(account), uv, wanted, "token", lambda _: None)


def test_a_stage_sees_what_it_adds(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three versions of one package in three jobs, by uv, by pip and in the base, which all have
    what only the base names; one remote command finds what is missing and one builds it.
    """
    session = story.session(monkeypatch)
    wanted = {
        "uv": layerkit.layer(story.base, {"uv": ["Packaging == 24.0"]}),
        "pip": layerkit.layer(story.base, {"pip": ["packaging==23.2"]}),
    }
    assert wanted["uv"].key == layerkit.layer(story.base, {"uv": ["packaging==24.0"]}).key
    assert layers.look(session, wanted.values()) == tuple(wanted.values())
    assert session.transport.commands == 1
    # the same layer for two stages is one
    built = build(session, *wanted.values())
    assert built.layers == tuple(wanted.values())
    before = session.transport.commands
    assert layers.look(session, wanted.values()) == ()
    assert session.transport.commands == before + 1
    for name, layer in wanted.items():
        words = ("--env", str(layer.place), "--name", name, "--", "python", "-c", SEEN)
        story.jobs[name] = story.laptop.submit(*words, cwd=story.app)
    said = {}
    for name, job in story.jobs.items():
        assert story.laptop.await_state(job["run_id"], "COMPLETED", "FAILED") == "COMPLETED"
        text = story.laptop.run("logs", job["job_id"]).stdout
        said[name] = next(x.split()[1:] for x in text.splitlines() if x.startswith("sees "))
    assert said["uv"][0::2] == ["24.0", str(wanted["uv"].place)]
    assert said["pip"][0::2] == ["23.2", str(wanted["pip"].place)]
    assert said["base"][2] == story.base
    assert len({one[0] for one in said.values()}) == 3
    assert len({one[1] for one in said.values()}) == 1
    # by far the most of the files have a second name in the base
    walk = "find {} -type f ! -path '*/.rvstate/*' ! -name '*.pyc' -printf '%i\\n' | sort -u"
    numbers = set(story.sh(walk.format(story.base)).split())
    for layer in wanted.values():
        mine = set(story.sh(walk.format(layer.place)).split())
        assert len(mine & numbers) > 0.9 * len(mine)


def test_two_at_once_build_one(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """From two machines: one builds, the other waits and finds it."""
    layer = layerkit.layer(story.base, {"uv": ["attrs"]})
    sessions = [story.session(monkeypatch) for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        built = list(pool.map(lambda session: build(session, layer), sessions))
    assert sorted(len(one.layers) for one in built) == [0, 1]
    assert story.sh(f"ls -A {layer.place.parent} | grep -e healing -e inputs || :") == ""


def test_what_is_pinned_is_refused(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both versions are named, and nothing is left of the try."""
    pins = ("packaging",)
    (story.app / "rvstate.toml").write_text('[environment]\npin_to_base = ["packaging"]\n')
    session = story.session(monkeypatch)
    (story.app / "rvstate.toml").write_text(FILES["rvstate.toml"])
    layer = layerkit.layer(story.base, {"uv": ["packaging==24.0"]}, pins=pins)
    with pytest.raises(RefusedError, match=r"packaging would be 24\.0 and is .* in the base"):
        build(session, layer)
    assert layers.look(session, [layer]) == (layer,)
    assert story.sh(f"ls -A {layer.place.parent} | grep -e healing -e inputs || :") == ""


def test_a_purged_layer_is_found_and_mended(story: Story) -> None:
    """The walk names the file, and converge makes the layer again under its name."""
    layer = layerkit.layer(story.base, {"uv": ["packaging==24.0"]})
    story.sh(f"rm {layer.place}/lib/python*/site-packages/six.py")
    things = json.loads(story.laptop.run("verify", "--json", status=1).stdout)["things"]
    (found,) = [t for t in things if t["state"] == "damaged"]
    assert (found["path"], found["missing"]) == (str(layer.place), 1)
    assert "it was built again" in story.laptop.run("converge", "-y").stdout
    story.laptop.run("verify")
    code = "import packaging, six; print(packaging.__version__)"
    assert story.sh(f"{layer.place}/bin/python -c '{code}'") == "24.0\n"


def test_ctrl_c_ends_a_build(story: Story, tmp_path: Path) -> None:
    """Over there, too; the next one builds it."""
    script = tmp_path / "build.py"
    script.write_text(
        "import sys\nsys.path[:0] = sys.argv[1:2]\n"
        "from tests.acceptance import test_layers as t\n"
        "from tests import layerkit\nfrom pathlib import Path\n"
        "from rvstate.workflows.session import open_session\n"
        "layer = layerkit.layer(sys.argv[2], {'uv': ['packaging==23.1', 'six==1.16.0']})\n"
        "t.build(open_session(project=Path(sys.argv[3])), layer)\n"
    )
    root = Path(__file__).parents[2]
    lock = f"{Path(story.base).parent}/lock"
    # somebody else is building, so this one waits
    story.sh(f"ln -s 'elsewhere b 1 1' {lock}")
    process = subprocess.Popen(
        [sys.executable, script, str(root), story.base, str(story.app)],
        env=story.laptop.env,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until(lambda: "token" in story.sh(f"ls -A {Path(story.base).parent}"))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=180)
    until(lambda: "token" not in story.sh(f"ls -A {Path(story.base).parent}"), 60)
    running = story.cluster.exec("ps", "-u", "abc1de", "-o", "args=").stdout
    assert "layers" not in running
    story.sh(f"rm {lock}")


def test_what_only_a_node_can_build_is_built_by_the_stages_job(story: Story) -> None:
    """A package that the stage adds and that needs the site's compiler; the base has none of it."""
    done = story.laptop.run("pipeline", "run", "--wait", "--json", cwd=story.app)
    (stage,) = json.loads(done.stdout)["stages"]
    said = story.laptop.run("logs", stage["job_id"])
    assert stage["state"] == "COMPLETED", said.stdout + said.stderr
    assert "building needsheader on" in said.stderr
    assert f"site 114 {stage['environment']}" in said.stdout
    assert stage["environment"].startswith(f"{Path(story.base).parent}/layer-")
