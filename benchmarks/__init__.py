"""Side-by-side measurements on local swarms; `python -m benchmarks` runs them and says what they show."""

import os

# Its advice about attention masks and padding would stand between the results.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
