"""OCI runtime: plan a root file system, namespaces and privileges from an OCI config, and walk the plan."""
