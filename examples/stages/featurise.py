"""Stems of each text's words, with the version of the stemmer that the features are defined by."""

import csv
import json
from importlib.metadata import version

import snowballstemmer

stemmer = snowballstemmer.stemmer("english")
with open("texts.csv", newline="") as file:
    rows = [
        {"split": row["split"], "label": row["label"], "stems": stemmer.stemWords(words)}
        for row in csv.DictReader(file)
        if (words := row["text"].lower().split())
    ]
with open("data/features.json", "w") as file:
    # JSON, and no pickle: the next stage has other versions
    json.dump({"made_with": version("snowballstemmer"), "rows": rows}, file)
print(f"{len(rows)} texts, stemmed by snowballstemmer {version('snowballstemmer')}")
