"""rvstate: idempotent state manager for a researcher's account on a Slurm cluster."""

__version__ = "0.1.0"
