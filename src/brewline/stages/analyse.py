"""Stage `analyse`: why the rows of a table find what they find, in `reports/analysis/<table>/`.

Recall against word errors, what each channel is and finds, maps of what is attended to, and
recordings that show it.
"""

from pathlib import Path

from brewline.analysis.inputs import read_inputs
from brewline.analysis.outputs import write_analysis
from brewline.analysis.table_analysis import analyse_table
from brewline.core.programs import exits_cleanly
from brewline.media.corpus_media import project_media
from brewline.models.backbones import load_clip
from brewline.stages.arguments import named_argument


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, name = named_argument(__doc__, "tables")
    inputs = read_inputs(params, name)
    media = project_media(inputs.corpus)
    analysis = analyse_table(inputs, load_clip(), media, params.analyse, params.evaluate)
    write_analysis(analysis, Path("reports/analysis") / name)
    print(f"{name}: {len(inputs.image_of):,} recordings of test, {len(inputs.rows)} rows")


if __name__ == "__main__":
    main()
