"""Dockerfile: parse, instructions, graph, cache, solve."""
