"""Images: a file per verb; `Images` in images.py is what the engine wires and the API asks."""
