"""Sessions: rows of tokens whose attention cache is on the servers, or in this process."""
