"""Fit a line through the features by gradient descent: train.py LEARNING_RATE EPOCHS."""

import csv
import json
import sys

rate, epochs = float(sys.argv[1]), int(sys.argv[2])
with open("features.csv", newline="") as file:
    rows = [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
train, test = rows[::2], rows[1::2]
weights = [0.0] * len(rows[0])


def predicted(row):
    """The solubility that the weights say; the last one stands alone."""
    return sum(w * x for w, x in zip(weights, [*row[:-1], 1.0], strict=True))


for epoch in range(epochs):
    slopes = [0.0] * len(weights)
    for row in train:
        error = predicted(row) - row[-1]
        for at, value in enumerate([*row[:-1], 1.0]):
            slopes[at] += error * value / len(train)
    weights = [w - rate * slope for w, slope in zip(weights, slopes, strict=True)]
    if epoch % 50 == 49:
        loss = sum((predicted(row) - row[-1]) ** 2 for row in train) / len(train)
        print(f"epoch {epoch + 1}: loss {loss:.4f}", flush=True)

rmse = (sum((predicted(row) - row[-1]) ** 2 for row in test) / len(test)) ** 0.5
with open("model.json", "w") as file:
    json.dump(weights, file)
with open("metrics.json", "w") as file:
    json.dump({"rmse": round(rmse, 4)}, file)
