"""The results as tables, as text and as one page."""
