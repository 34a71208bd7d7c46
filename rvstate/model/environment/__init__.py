"""A project's Python environment: what is declared, what decides what is in it, its own package."""
