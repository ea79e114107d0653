"""Why the models find what they find: word errors, channels, attention, and what a crop loses."""
