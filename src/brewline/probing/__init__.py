"""What a linear classifier of emotions hears in vectors: protocols, the probe, what it is worth."""
