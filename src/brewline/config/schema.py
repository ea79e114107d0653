"""Everything in `params.yaml`, section by section."""

from pydantic import Field

from brewline.config.analyse import AnalyseParams
from brewline.config.asr import AsrParams
from brewline.config.backbones import BackbonesParams
from brewline.config.evaluate import EvaluateParams
from brewline.config.experiments import (
    EncodedParams,
    ExperimentParams,
    ExternalParams,
    TableParams,
)
from brewline.config.inspect import InspectParams
from brewline.config.probes import ProbeParams
from brewline.config.recipes import NONE, RecipeParams
from brewline.config.runtime import RuntimeParams, TrackingParams
from brewline.config.shard import ShardParams
from brewline.config.sources import SourceParams
from brewline.config.types import Name, Section
from brewline.config.validate import CorpusLimits, ValidateParams
from brewline.config.variants import VariantParams


class Params(Section):
    """Everything in `params.yaml`."""

    corpora: list[Name]
    # Those whose files lie on this machine and may change; every `dvc repro` looks.
    watched: list[Name]
    # Those whose recordings get the layers of Whisper, which `probes` look at.
    probed_corpora: list[Name]
    # Those whose recordings are encoded with small changes too, for `fine_tuning.augment`.
    augmented_corpora: list[Name]
    sources: dict[Name, SourceParams]
    backbones: BackbonesParams
    inspect: InspectParams
    # `validate` itself is taken: it is a method of every pydantic model.
    validation: ValidateParams = Field(alias="validate")
    # Not under `sources`, on which stages depend that a limit does not change.
    validate_of: dict[Name, CorpusLimits]
    asr: AsrParams
    shard: ShardParams
    variants: dict[Name, VariantParams]
    # `none` is null; every other one is a recipe.
    recipes: dict[Name, RecipeParams | None]
    # What `states` of an experiment names, beside corpora.
    encoded: dict[Name, EncodedParams]
    experiments: dict[Name, ExperimentParams]
    external: dict[Name, ExternalParams]
    tables: dict[Name, TableParams]
    # Of clips: what is measured together of sounds, frames and captions.
    sound_tables: dict[Name, TableParams]
    probes: dict[Name, ProbeParams]
    evaluate: EvaluateParams
    analyse: AnalyseParams
    runtime: RuntimeParams
    tracking: TrackingParams

    @property
    def measured_corpora(self) -> list[str]:
        """The corpora that tables measure on, in their order."""
        return list(dict.fromkeys(table.data for table in self.tables.values()))

    def tables_on(self, corpus: str) -> dict[str, TableParams]:
        """The tables that measure on a corpus."""
        return {name: table for name, table in self.tables.items() if table.data == corpus}

    def row_of(self, experiment: str) -> tuple[str, str] | None:
        """The first table that shows an experiment, and its row there; None where none does."""
        for name, table in self.tables.items():
            for row, shown in table.rows.items():
                if shown == experiment:
                    return name, row
        return None

    def is_trained(self, name: str) -> bool:
        """Whether a row's models are trained by their own experiment, and not taken over."""
        return name not in self.external and self.experiments[name].recipe != NONE

    def hears(self, name: str) -> bool:
        """Whether a row takes recordings; what reads captions alone does not, and is a ceiling."""
        if name in self.external:
            return self.external[name].reads == "speech"
        return self.variant_of(name).hears

    def trained_rows(self, corpus: str) -> list[str]:
        """The experiments in tables that were trained on a corpus and hear speech."""
        shown = [one for table in self.tables_on(corpus).values() for one in table.rows.values()]
        return [one for one in dict.fromkeys(shown) if self.is_trained(one) and self.hears(one)]

    def contenders(self, table: str) -> list[str]:
        """The rows of a table of which one is the best: those that hear speech, or else all."""
        rows = self.tables[table].rows
        return [row for row in rows if self.hears(rows[row])] or [*rows]

    def limits_of(self, corpus: str) -> ValidateParams:
        """The limits that a corpus has to keep."""
        own = self.validate_of.get(corpus, CorpusLimits())
        return self.validation.model_copy(update=own.model_dump(exclude_none=True))

    def variant_of(self, experiment: str) -> VariantParams:
        """What the models of an experiment are made of."""
        return self.variants[self.experiments[experiment].variant]

    def origin_of(self, experiment: str) -> str | None:
        """The experiment that trained the models of one, or itself; None: nothing is trained."""
        if experiment in self.external:
            return None
        one = self.experiments[experiment]
        if one.recipe != NONE:
            return experiment
        return None if one.init == NONE else self.origin_of(one.init)

    def trained_on(self, experiment: str) -> str | None:
        """The corpus that models saw last in training; None: nothing is trained."""
        origin = self.origin_of(experiment)
        return None if origin is None else self.experiments[origin].data

    def seeds_of(self, experiment: str) -> list[int] | None:
        """The seeds of an experiment's models; None where there is one, and nothing was trained."""
        origin = self.origin_of(experiment)
        return None if origin is None else self.seeds_of_recipe(self.experiments[origin].recipe)

    def seeds_of_recipe(self, recipe: str) -> list[int]:
        """The seeds that a recipe names; none where it trains nothing."""
        found = self.recipes[recipe]
        return found.seeds if found else []
