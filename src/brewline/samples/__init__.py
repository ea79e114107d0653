"""What goes into a shard: writing, reading, and batches for a model."""
