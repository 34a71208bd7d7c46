"""The account's directories, cache links and shell block with stock pyinfra operations."""

from pyinfra import host
from pyinfra.operations import files

home = host.data.get("home")
scratch = host.data.get("scratch")
caches = ("huggingface", "uv", "pip", "wandb", "triton", "torch")

for name in (
    ".rv",
    ".rv/logs",
    ".rv/outputs",
    ".rv/checkpoints",
    ".rv/env",
    ".rv/envs",
    "rv-workspaces",
):
    files.directory(name=f"directory {name}", path=f"{scratch}/{name}")
for name in caches:
    files.directory(name=f"cache {name}", path=f"{scratch}/.cache/{name}")
files.directory(name="home cache", path=f"{home}/.cache")
for name in caches:
    files.link(name=f"link {name}", path=f"{home}/.cache/{name}", target=f"{scratch}/.cache/{name}")
files.block(
    name="shell block",
    path=f"{home}/.bashrc",
    content=f"export UV_CACHE_DIR={scratch}/.cache/uv",
    marker="# {mark} rvstate",
)
