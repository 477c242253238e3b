"""`langchain-petals status`, `swarm` and `doctor`: look at a swarm, start one, and find out what is wrong."""
