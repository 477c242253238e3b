"""The evaluation of the model, and its card."""
