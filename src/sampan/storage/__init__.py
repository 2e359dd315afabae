"""Layers: unpack, stack, mount.  Returns mounts as data and detached trees, never mounts on the host."""
