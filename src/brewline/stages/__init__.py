"""One thin file per DVC stage: read the parameters, call the library, write the outputs.

Run one by hand as `python -m brewline.stages.<stage> [<corpus>]` from the project's folder.
"""

import os

from brewline.core.system import end_with_parent

# `dvc.yaml` hands over the id of the DVC that starts a stage. Here, before anything heavy is
# imported: DVC may be killed meanwhile, and a second stage would be set to the work of the first.
# Taken out, as it is not the parent of a stage's own children; not every shell knows the id.
_handed = os.environ.pop("BREWLINE_PARENT", None)
if _handed is not None:
    end_with_parent(int(_handed) if _handed else None)
