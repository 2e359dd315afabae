"""Pure data: OCI specs, digests, references."""
