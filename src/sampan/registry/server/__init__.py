"""A registry of our own: the server's half of the distribution protocol."""
