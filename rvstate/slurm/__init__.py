"""Slurm's languages: text in, values out; no input or output."""
