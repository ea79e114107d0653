"""Readers: one per published corpus, from what is published to one listing per utterance."""
