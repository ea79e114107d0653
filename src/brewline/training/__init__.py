"""The training loop, its schedule, and how a run goes on where it was cut off."""
