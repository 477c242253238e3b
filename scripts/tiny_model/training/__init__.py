"""The model's files, forward pass, optimiser and training loop."""
