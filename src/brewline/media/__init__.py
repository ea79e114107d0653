"""Recordings and pictures: read in place from whatever holds them, decoded by their content."""
