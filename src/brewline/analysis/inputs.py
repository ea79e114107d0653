"""What the analyses of a table look at: its rows, their answers, and what is known of test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brewline.analysis.rates import RowRanks
from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.core.files import read_stage_output
from brewline.evaluation.examples import Texts
from brewline.evaluation.outputs import TEST_RANKS_FILE, read_test_ranks
from brewline.evaluation.scores import SELECTION_METRIC
from brewline.evaluation.texts import read_texts, read_word_errors
from brewline.evaluation.vectors import SplitEmbeddings, load_vectors
from brewline.media.archives import canonical_name
from brewline.models.card import load_card
from brewline.models.names import model_folder, model_names
from brewline.tables.parquet import read_table

SPLIT = "test"


@dataclass(frozen=True)
class TableRow:
    """A row of a table: its models (`<experiment>/<seed-n|frozen>`) and their channels.

    `text` is what the textual channel reads, as in `VariantParams`; `dev` the metric that is best
    in the best row. `says_keywords`: its acoustic channel hears words. Vectors of others have no
    model of ours, whose channels could be looked at.
    """

    models: Sequence[str]
    text: str | None
    has_acoustic: bool
    dev: float
    is_ours: bool = True
    says_keywords: bool = False

    @property
    def num_channels(self) -> int:
        """Of an utterance: one or two; of others' vectors none is known."""
        return (self.text is not None) + self.has_acoustic


@dataclass(frozen=True)
class TableInputs:
    """A table on a corpus, as stage `score` left it.

    Attributes:
        corpus: What it is measured on.
        rows: In its order.
        contenders: The rows of which one is the best: those that hear speech, or else all.
        pairs: Rows that are compared.
        ranks: By row, of each of its models: the rank of the right image by utterance of test.
        image_of: The image of each utterance of test.
        wer_of: The word error rate of those of them that have a caption.
        texts: What was heard and written.
        size_of: Width and height of each image of test in pixels.
        project: Where its files lie.
    """

    corpus: str
    rows: Mapping[str, TableRow]
    contenders: Sequence[str]
    pairs: Sequence[tuple[str, str]]
    ranks: RowRanks
    image_of: Mapping[str, str]
    wer_of: Mapping[str, float]
    texts: Mapping[str, Texts]
    size_of: Mapping[str, tuple[int, int]]
    project: Path

    def vectors(self, model: str, with_channels: bool = False) -> SplitEmbeddings:
        """The vectors of a model on test."""
        path = self.project / f"data/embeddings/{self.corpus}/{model}.safetensors"
        return load_vectors(path, with_channels)[SPLIT]

    @property
    def shown_row(self) -> str:
        """The contender that is best on dev."""
        return max(self.contenders, key=lambda row: self.rows[row].dev)

    @property
    def fullest_row(self) -> str | None:
        """The best on dev of our contenders, or of ours, by most channels; None: none is ours."""
        ours = [row for row, one in self.rows.items() if one.is_ours]
        return max(
            [row for row in ours if row in self.contenders] or ours,
            key=lambda row: (self.rows[row].num_channels, self.rows[row].dev),
            default=None,
        )

    @property
    def with_two_channels(self) -> list[str]:
        """The rows whose models have an acoustic and a text channel."""
        return [row for row, one in self.rows.items() if one.num_channels == 2]


def read_inputs(params: Params, name: str, project: Path = Path()) -> TableInputs:
    """Reads what the analyses of a table look at.

    Raises:
        BrewlineError: a file is missing or damaged, or belongs to another run.
    """
    table = params.tables[name]
    metrics = read_stage_output(project / f"metrics/{name}.json", "score")
    ranks = read_test_ranks(project / "reports/evaluation" / name / TEST_RANKS_FILE)
    rows, of_row = {}, {}
    for row, experiment in table.rows.items():
        names = model_names(params, experiment)
        models = [f"{experiment}/{one}" for one in names]
        missing = [one for one in models if one not in ranks]
        if missing or row not in metrics:
            raise BrewlineError(
                f"{name} was not scored with {missing or row}; run `dvc repro score`"
            )
        dev = metrics[row][SELECTION_METRIC]
        if experiment in params.external:
            rows[row] = TableRow(models, text=None, has_acoustic=False, dev=dev, is_ours=False)
        else:
            made_of = load_card(model_folder(experiment, names[0], project)).switches
            acoustic = made_of.acoustic
            says = acoustic is not None and acoustic.keywords is not None
            rows[row] = TableRow(
                models, made_of.text, acoustic is not None, dev, says_keywords=says
            )
        of_row[row] = [ranks[one] for one in models]
    known = read_word_errors(table.data, project)
    image_of, size_of = _read_images(table.data, project)
    asked = next(iter(ranks.values()))
    return TableInputs(
        corpus=table.data,
        rows=rows,
        contenders=params.contenders(name),
        pairs=table.pairs,
        ranks=of_row,
        image_of={utterance: image_of[utterance] for utterance in asked},
        wer_of={utterance: known[utterance].wer for utterance in asked if utterance in known},
        texts=read_texts(table.data, project),
        size_of=size_of,
        project=project,
    )


def _read_images(corpus: str, project: Path) -> tuple[dict[str, str], dict[str, tuple[int, int]]]:
    """The image of each utterance of test, and the size of each such image."""
    columns = ["utterance_id", "split", "image_id", "image_path"]
    rows = [
        row
        for row in read_table(project / f"data/manifest/{corpus}.parquet", columns)
        if row["split"] == SPLIT and row["image_id"] is not None
    ]
    facts = project / f"data/facts/{corpus}/pictures.parquet"
    # The facts have the name that is stored.
    size_at = {
        row["path"]: (row["width_px"], row["height_px"])
        for row in read_table(facts, ["path", "width_px", "height_px"])
    }
    return (
        {row["utterance_id"]: row["image_id"] for row in rows},
        {row["image_id"]: size_at[canonical_name(row["image_path"])] for row in rows},
    )
