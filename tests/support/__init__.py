"""What tests of every tier share: the host's state, a daemon of their own."""
