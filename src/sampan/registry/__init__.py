"""The distribution protocol: the client's half (pull, push, auth) and the server's."""
