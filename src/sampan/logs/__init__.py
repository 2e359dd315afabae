"""Log drivers and formats: written by keepers, read by the engine."""
