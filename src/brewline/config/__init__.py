"""The parameters of the pipeline: `params.yaml`, read strictly; a file per section.

Beside it `versions.yaml`, the versions of the expensive stages.

Every value that matters stands in `params.yaml`, so the classes here have no defaults, but for
keys that only some corpora have. An unknown key, a missing one or a wrong type is an error that
names the key, the value and the choices.
"""

from brewline.config.choices import choose
from brewline.config.loading import PARAMS_FILE, load_params, parse_params
from brewline.config.schema import Params
from brewline.config.versions import load_versions

__all__ = ["PARAMS_FILE", "Params", "choose", "load_params", "load_versions", "parse_params"]
