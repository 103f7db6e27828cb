"""Flags of `lpe-eval speed` for models that take no time."""

SMALL = ["--width", "16", "--layers", "1", "--heads", "2", "--batch-tokens", "32", "--quiet"]
