"""The flows that people start from the Prefect UI; the only place that imports prefect.

Run them from the project's folder, as `python -m flows.pipeline`.
"""
