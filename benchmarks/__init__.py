"""Measurements side by side on local swarms; `python -m benchmarks` runs them."""

import os

# Hides transformers' advice about attention masks and padding.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
