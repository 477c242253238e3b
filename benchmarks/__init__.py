"""Side-by-side measurements on local swarms; `python -m benchmarks` runs them and says what they show."""
