"""The tasks: what is special to each kind of learning problem; see `brewline.training.task`."""
