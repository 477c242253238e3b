"""The model's files, its forward pass and its optimiser."""
