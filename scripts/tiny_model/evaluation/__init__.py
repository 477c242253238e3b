"""What is measured of the model, and its card."""
