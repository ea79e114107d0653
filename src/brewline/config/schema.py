"""Everything in `params.yaml`, section by section."""

from pydantic import Field

from brewline.config.asr import AsrParams
from brewline.config.backbones import BackbonesParams
from brewline.config.evaluate import EvaluateParams
from brewline.config.models import AcousticParams, ModelLists, VariantParams
from brewline.config.runtime import RuntimeParams, TrackingParams
from brewline.config.shard import ShardParams
from brewline.config.sources import SourceParams
from brewline.config.train import TrainParams
from brewline.config.types import Name, Section
from brewline.config.validate import ValidateParams


class Params(Section):
    """Everything in `params.yaml`."""

    corpora: list[Name]
    # The corpora with images; for each, the variants that are the rows of its results table.
    retrieval_corpora: dict[Name, list[Name]]
    sources: dict[Name, SourceParams]
    backbones: BackbonesParams
    # `validate` itself is taken: it is a method of every pydantic model.
    validation: ValidateParams = Field(alias="validate")
    asr: AsrParams
    shard: ShardParams
    variants: dict[Name, VariantParams]
    models: ModelLists
    acoustic: AcousticParams
    train: TrainParams
    evaluate: EvaluateParams
    runtime: RuntimeParams
    tracking: TrackingParams
