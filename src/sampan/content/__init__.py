"""Blobs by digest, manifests, configs, tags, garbage collection."""
