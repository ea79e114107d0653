"""What models are worth: embeddings, ranks, intervals, comparisons, examples."""
