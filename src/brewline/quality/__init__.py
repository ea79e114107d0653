"""Is the data lawful? Checks on every utterance, and expectations on a whole corpus."""
