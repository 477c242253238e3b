"""Tools: their schemas, how models write calls, and how calls are read."""
