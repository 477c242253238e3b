"""The servers of a swarm: which hold which blocks, and the wire to them."""
