"""Bring the files of a corpus here: `corpus` plans and runs it, `fetching` verifies one file,
`web`, `hub` and `object_store` each speak to one kind of source, `recordings` packs many small
files into archives.
"""
