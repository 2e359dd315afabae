"""What Docker promises: jobs, containers, images, networks, execs, records, events, supervision."""
