"""A model's files, and the client made of them."""
