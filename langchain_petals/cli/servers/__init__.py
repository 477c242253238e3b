"""`langchain-petals server` and `demo`: Petals' servers on this machine, and the environment in which they run."""
