"""The study: claims of the papers, tested on generated corpora that are larger than those of `sample`."""
