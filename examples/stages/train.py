"""A naive Bayes classifier: how often each stem stands in each label."""

import argparse
import json
import math
import os
from collections import Counter
from importlib.metadata import version

parser = argparse.ArgumentParser()
parser.add_argument("--smoothing", type=float, default=1.0)
smoothing = parser.parse_args().smoothing

with open("data/features.json") as file:
    rows = [row for row in json.load(file)["rows"] if row["split"] == "train"]
counts: dict[str, Counter[str]] = {}
for row in rows:
    counts.setdefault(row["label"], Counter()).update(row["stems"])
stems = sorted({stem for counted in counts.values() for stem in counted})
weights = {
    label: {
        stem: math.log((counted[stem] + smoothing) / (counted.total() + smoothing * len(stems)))
        for stem in stems
    }
    for label, counted in sorted(counts.items())
}
os.makedirs("model", exist_ok=True)
with open("model/weights.json", "w") as file:
    json.dump({"made_with": version("snowballstemmer"), "weights": weights}, file)
print(f"{len(stems)} stems, {len(weights)} labels")
