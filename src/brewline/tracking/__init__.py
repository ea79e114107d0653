"""What models reached and which one is in use, in MLflow; the only room that imports it.

There is one run per trained model, and one per corpus that is being transcribed, under one parent
per pipeline run; `registered_models` says what becomes of the best model.

The files of a model are the source of truth; a run is a copy of them that people can compare and
search. `live` writes it while a model trains, `record` completes or makes it from the files, as
often as one likes. A tracking server that cannot be reached, or fails in any other way, never costs
the work: one sentence says so, `live` goes on once it is back, and the next `record` brings
everything in.

A run holds the parameters of its variant and its recipe (`recipe.steps`), the curves of
`history.jsonl`, and the evaluation of the finished model, logged one step after the last of the
curves: MLflow lists and filters by the latest value, and that must be the chosen checkpoint's.
`facts` says what all of it is called. MLflow refuses `@` in names, so recall is `recall_at_1`.

A parent run ends when its children do: it is RUNNING while a child trains, and the last child that
ends sets it to FINISHED, or to the worst status among its children.
"""
