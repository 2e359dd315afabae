"""Spawner (the zygote), keeper (one per container), container init."""
