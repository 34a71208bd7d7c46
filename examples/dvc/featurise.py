"""Molecules to numbers: how many carbons, oxygens, nitrogens and rings each has."""

import csv

with open("molecules.csv", newline="") as source, open("features.csv", "w", newline="") as target:
    writer = csv.writer(target)
    writer.writerow(["carbons", "oxygens", "nitrogens", "rings", "log_solubility"])
    for row in csv.DictReader(source):
        smiles = row["smiles"]
        rings = sum(letter.isdigit() for letter in smiles) // 2
        counts = [smiles.count(letter) for letter in "CON"]
        writer.writerow([*counts, rings, row["log_solubility"]])
