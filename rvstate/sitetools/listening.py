"""/proc/net/tcp: which ports a node's programs listen on (proc(5))."""

from __future__ import annotations

# What runs in jobs and is looked at with a browser, by the port that it takes by itself.
KNOWN = {
    3000: "a web server",
    5000: "MLflow",
    6006: "TensorBoard",
    7860: "Gradio",
    8000: "vLLM",
    8080: "a web server",
    8265: "Ray",
    8501: "Streamlit",
    8787: "Dask",
    8888: "Jupyter",
}
COMMAND = "id -u; cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || :"
_LISTEN = "0A"


def parse(text: str) -> tuple[int, ...]:
    """The ports on which the user's own programs listen, in order.

    Args:
        text: The output of `COMMAND`.
    """
    uid, _, rows = text.partition("\n")
    found = set()
    for row in rows.splitlines():
        fields = row.split()
        if len(fields) < 8 or fields[3] != _LISTEN or fields[7] != uid.strip():
            continue
        port = fields[1].rpartition(":")[2]
        try:
            found.add(int(port, 16))
        except ValueError:
            continue  # a heading
    return tuple(sorted(found))
