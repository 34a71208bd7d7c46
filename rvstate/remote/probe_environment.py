"""Says what a job's Python is and what it can import; run by `rvstate run --probe`.

Any Python from 3.6 on can read it, for the one that runs it may be the wrong one.
"""

import importlib
import os
import sys


def main(names):  # type: ignore[no-untyped-def] # also for Pythons without modern annotations
    """Print interpreter, version, CUDA and imports; the exit status says whether all is well."""
    place = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX") or ""
    print("python     " + sys.executable)
    print("version    " + sys.version.split()[0])
    print("in         " + sys.prefix)
    failed = bool(place) and os.path.realpath(sys.prefix) != os.path.realpath(place)
    if failed:
        print("WRONG      the environment is " + place)
    for name in names:
        try:
            found = importlib.import_module(name)
        except Exception as error:  # whatever a module raises
            failed = True
            print("NO         " + name + ": " + type(error).__name__ + ": " + str(error))
        else:
            print("import     " + name + " " + str(getattr(found, "__version__", "")))
    torch = sys.modules.get("torch")
    if torch is not None:
        print(
            "cuda       "
            + str(torch.version.cuda)
            + ", available: "
            + str(torch.cuda.is_available())
        )
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))  # type: ignore[no-untyped-call]
