"""Speech to text: openai-whisper's models over a corpus, in batches.

`windows` cuts recordings, an `Engine` encodes and decodes windows, and `recogniser` doubts what it
hears and joins it. `brewline.speech.transcriber` runs it over a corpus.
"""
