"""A project's stages as one pipeline: planned, submitted, listed."""
