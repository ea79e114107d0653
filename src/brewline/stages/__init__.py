"""One thin file per DVC stage: read the parameters, call the library, write the outputs.

Run one by hand as `python -m brewline.stages.<stage> [<corpus>]` from the project's folder.
"""
