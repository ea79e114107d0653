"""Task `retrieval`: recordings and pictures find one another (BrewCLIP, section 3.4 and 4)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from torch import Tensor

from brewline.config.recipes import RecipeParams
from brewline.config.variants import VariantParams
from brewline.core.ranks import Ranks
from brewline.evaluation.device_ranks import count_on_device
from brewline.evaluation.embedding import embed_split
from brewline.evaluation.ranks import count_before
from brewline.evaluation.scores import SELECTION_METRIC, score_retrieval
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip
from brewline.models.cascaded import CascadedBranch
from brewline.models.inputs import Batch
from brewline.models.losses import brewclip_loss, contrastive_loss, pair_rows, sigmoid_loss
from brewline.models.pairing import ClipVectors, choice_of, pair_clips
from brewline.models.trained import TrainedModule
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator, FrozenFeatures
from brewline.samples.decoded_pictures import DecodedPictures
from brewline.samples.utterance import Utterance
from brewline.training.task import Rows, StepLoss
from brewline.training.tasks.frozen import features_of, frozen_features
from brewline.training.tasks.new_model import new_brewclip

# Selection reads recall@1; the other two are the paper's.
_RECALL_AT = (1, 5, 10)
# What is followed while a model learns; stage `score` has more.
_FOLLOWED = ("recall", "median_rank", "num_queries", "gallery_size")


class Retrieval:
    """Contrasts utterances with pictures, and the two channels with one another.

    Args:
        switches: The variant.
        recipe: Batch size, temperature, and what other takes of a picture are.
        backbone: The frozen CLIP.
        decoded: Keeps decoded images.
    """

    selection_metric = SELECTION_METRIC

    def __init__(
        self,
        switches: VariantParams,
        recipe: RecipeParams,
        backbone: ClipBackbone,
        decoded: DecodedPictures | None = None,
    ) -> None:
        self.memory: dict[str, Tensor] = {}
        self._switches = switches
        self._recipe = recipe
        self._backbone = backbone
        self._transforms = input_transforms(backbone, switches)
        self._collator = Collator(self._transforms, switches, decoded)
        self._train_collator = self._collator
        # Of splits that were measured before, where towers have no prompts.
        self._known_collators: dict[str, Collator] = {}

    def make_model(self, sample: Utterance) -> BrewClip:
        """A new model; see `Task`."""
        return new_brewclip(self._backbone, self._switches, self._recipe, sample)

    def begin(self, model: TrainedModule, read_train: Callable[[], Iterable[Utterance]]) -> None:
        """Runs towers without prompts over the training split, once; see `Task`."""
        if self._switches.prompts:
            return
        brewclip, heard = _brewclip(model), set[str]()
        frozen = frozen_features(
            brewclip, self._collator, _listening(read_train(), heard), self._recipe.batch_size
        )
        if isinstance(brewclip.acoustic, CascadedBranch):
            brewclip.acoustic.set_vocabulary(heard)
        self._train_collator = self._collator_with(frozen)

    def collate(self, utterances: Sequence[Utterance]) -> Batch:
        """Makes a batch; see `Task`."""
        return self._train_collator.collate(utterances)

    def forward(self, model: TrainedModule, batch: Batch) -> Rows:
        """Embeddings of utterances and of their images, and each channel's features; see `Task`."""
        brewclip = _brewclip(model)
        features = brewclip.encode_utterances(batch.utterances)
        images = batch.image_embeddings
        if images is None:
            assert batch.pictures is not None
            images = brewclip.encode_images(batch.pictures)
        rows = {
            "utterances": features.embeddings,
            "images": images[batch.image_index],
            "square_mask": None
            if batch.square_mask is None
            else batch.square_mask[batch.image_index],
            "image_ids": batch.image_ids,
            "text": features.text,
            "acoustic": features.acoustic,
        }
        return {name: row for name, row in rows.items() if row is not None}

    def loss(self, model: TrainedModule, rows: Rows, ranks: Ranks, step: int) -> StepLoss:
        """Weighs outer and inner loss; see `Task`."""
        text, acoustic = rows.get("text"), rows.get("acoustic")
        brewclip = _brewclip(model)
        scale, bias = brewclip.logit_scale, brewclip.logit_bias
        pairs = pair_rows(rows["image_ids"], self._recipe.same_image, ranks)
        contrast = partial(contrastive_loss, logit_scale=scale, pairs=pairs, ranks=ranks)
        if bias is not None:
            contrast = partial(
                sigmoid_loss, logit_scale=scale, logit_bias=bias, pairs=pairs, ranks=ranks
            )
        row: dict[str, Tensor | float] = {}
        if self._switches.pairing is None:
            outer = contrast(rows["utterances"], rows["images"])
        else:
            outer = self._loss_of_squares(brewclip, rows, ranks, step, row)
        losses = brewclip_loss(
            outer,
            None if text is None or acoustic is None else (acoustic, text),
            self._switches.alpha or 0.0,
            contrast,
        )
        row["outer_loss"] = losses.outer
        if losses.inner is not None:
            row["inner_loss"] = losses.inner
        for name, one in (("text_norm", text), ("acoustic_norm", acoustic)):
            if one is not None:
                row[name] = one.detach().norm(dim=-1).mean()
        row["logit_scale"] = scale.detach().clone()
        if bias is not None:
            row["logit_bias"] = bias.detach().clone()
        return StepLoss(losses.total, row)

    def _loss_of_squares(
        self,
        model: BrewClip,
        rows: Rows,
        ranks: Ranks,
        step: int,
        row: dict[str, Tensor | float],
    ) -> Tensor:
        """InfoNCE of recordings with the squares that a rule pairs; tells `row` of the choice."""
        params = self._switches.pairing
        assert params is not None
        vectors = ClipVectors(
            rows["utterances"], None, rows["images"], rows["square_mask"], rows["image_ids"]
        )
        paired = pair_clips(vectors, params, step >= params.warm_steps(self._recipe.steps), ranks)
        row |= choice_of(vectors, paired, ranks)
        return contrastive_loss(
            paired.sounds, paired.frames, model.logit_scale, paired.pairs, ranks
        )

    def measure(
        self, model: TrainedModule, utterances: Iterable[Utterance], split: str
    ) -> dict[str, float]:
        """Recall both ways; see `Task`."""
        brewclip = _brewclip(model)
        collator = self._known_collators.get(split, self._collator)
        keep = not self._switches.prompts
        embeddings = embed_split(
            brewclip, collator, utterances, self._recipe.batch_size, keep_channels=keep
        )
        if keep and split not in self._known_collators:
            self._known_collators[split] = self._collator_with(features_of(embeddings))
        device = brewclip.log_logit_scale.device
        count = partial(count_on_device, device=device) if device.type == "cuda" else count_before
        metrics = score_retrieval(embeddings, split, _RECALL_AT, count).metrics
        return {
            name: value
            for name, value in metrics.items()
            if any(one in name.rpartition("/")[2] for one in _FOLLOWED)
        }

    def _collator_with(self, frozen: FrozenFeatures) -> Collator:
        return Collator(self._transforms, self._switches, frozen=frozen)


def _listening(utterances: Iterable[Utterance], heard: set[str]) -> Iterator[Utterance]:
    """Yields them, and notes what was heard in them."""
    for utterance in utterances:
        heard.add(utterance.transcript)
        yield utterance


def _brewclip(model: TrainedModule) -> BrewClip:
    """The model that `make_model` gave, as what it is."""
    assert isinstance(model, BrewClip)
    return model
