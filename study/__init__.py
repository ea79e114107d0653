"""The study: claims of the papers, tested on larger corpora of the miniature world."""
