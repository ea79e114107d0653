"""Brewline: train, evaluate and serve models that match speech with images."""
