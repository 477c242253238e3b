"""Training data, drawn at random and repeatable."""
