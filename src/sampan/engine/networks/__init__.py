"""Networks as the API asks for them: a file per verb."""
