"""Everything that is analysed about a table, in its order."""

from brewline.analysis.attention_queries import choose_queries, look_at_queries
from brewline.analysis.channels import ModelChannels, describe_channels, measure_channels
from brewline.analysis.crops import LOST_ENDS
from brewline.analysis.groups import choose_groups, show_groups
from brewline.analysis.inputs import TableInputs
from brewline.analysis.keywords import say_keywords
from brewline.analysis.outputs import Analysis
from brewline.analysis.rates import recall_between
from brewline.analysis.word_errors import recall_over_wer, select_queries
from brewline.config.analyse import AnalyseParams
from brewline.config.evaluate import EvaluateParams
from brewline.evaluation.bootstrap import Bootstrap
from brewline.media.corpus_media import CorpusMedia
from brewline.models.backbones import ClipBackbone
from brewline.models.crop_box import middle_square


def analyse_table(
    inputs: TableInputs,
    backbone: ClipBackbone,
    media: CorpusMedia,
    params: AnalyseParams,
    evaluate: EvaluateParams,
) -> Analysis:
    """Analyses a table that was scored.

    Args:
        inputs: Of the table.
        backbone: The CLIP that its models are put on.
        media: The recordings and pictures of its corpus.
        params: What is looked at.
        evaluate: How intervals are estimated, and how many images are few.

    Raises:
        BrewlineError: a file that belongs to the table cannot be read.
    """
    bootstrap = Bootstrap(evaluate.bootstrap_samples, evaluate.bootstrap_seed, evaluate.confidence)
    k, few = params.hit_at, evaluate.min_bucket_images
    queries = select_queries(inputs.wer_of, inputs.image_of)
    word_errors = recall_over_wer(inputs.ranks, queries, inputs.pairs, k, few, bootstrap)
    channels, described = {}, {}
    for row in inputs.with_two_channels:
        measured: list[ModelChannels] = []
        for model in inputs.rows[row].models:
            split = inputs.vectors(model, with_channels=True)
            measured.append(measure_channels(split))
        channels[row] = measured[0]
        described[row] = describe_channels(
            measured, split.utterance_image_ids, split.image_ids, k, bootstrap
        )
    boxes = {image: middle_square(*size) for image, size in inputs.size_of.items()}
    lost_of = {name: boxes[image].lost for name, image in inputs.image_of.items()}
    rates = recall_between(LOST_ENDS, lost_of, inputs.ranks, inputs.image_of, k, few, bootstrap)
    groups = choose_groups(inputs, queries, channels, boxes, params)
    number = params.attention_queries if backbone.can_be_watched else 0
    attended = choose_queries(inputs, groups, number, k, evaluate.bootstrap_seed)
    return Analysis(
        word_errors=word_errors,
        channels=described,
        crops={"k": k, "rates": list(rates)},
        examples=show_groups(inputs, groups),
        attention=list(look_at_queries(inputs, attended, backbone, media)),
        keywords=list(say_keywords(inputs, backbone, params.num_shown, evaluate.bootstrap_seed)),
    )
