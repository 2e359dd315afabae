"""Pure data: Docker JSON shapes and API versions."""
