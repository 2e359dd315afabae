"""REST: routes, versions, streams and hijacked connections, errors to status."""
