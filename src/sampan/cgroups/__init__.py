"""v1, v2 and hybrid behind one face: limits by the runtime, numbers by the engine."""
