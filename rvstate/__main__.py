"""`python -m rvstate` is the same as `rvstate`."""

from rvstate.cli import main

if __name__ == "__main__":
    main()
