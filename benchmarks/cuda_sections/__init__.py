"""The sections of `on_cuda.py`, by subject."""
