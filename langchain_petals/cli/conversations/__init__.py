"""`langchain-petals chat` and `ask`: talk to a model from a terminal or a script."""
