"""A job small enough for a laptop, with one real dependency."""

import os
import sys

from packaging.version import Version

print(f"python {sys.version.split()[0]} at {sys.executable}")
print(f"packaging says 1.10 > 1.9: {Version('1.10') > Version('1.9')}")
for epoch in range(1, 4):
    print(f"epoch {epoch}: loss {1 / epoch:.3f}")
with open(os.path.join(os.environ["RV_OUTPUT_DIR"], "loss.txt"), "w") as file:
    file.write("0.333\n")
print(f"kept: {file.name}")
