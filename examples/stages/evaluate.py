"""How many texts of the test split get their label, and which version each stage had."""

import json
from importlib.metadata import version

with open("data/features.json") as file:
    features = json.load(file)
with open("model/weights.json") as file:
    model = json.load(file)


def guess(stems: list[str]) -> str:
    """The label whose texts have these stems most often."""
    return max(
        model["weights"],
        key=lambda label: sum(model["weights"][label].get(stem, 0.0) for stem in stems),
    )


rows = [row for row in features["rows"] if row["split"] == "test"]
right = sum(guess(row["stems"]) == row["label"] for row in rows)
report = {
    "accuracy": right / len(rows),
    "versions": {
        "featurise": features["made_with"],
        "train": model["made_with"],
        "evaluate": version("snowballstemmer"),
    },
}
with open("report.json", "w") as file:
    json.dump(report, file, indent=2)
print(json.dumps(report))
