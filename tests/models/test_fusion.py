"""How two channels become one: which of them speaks louder, and whether that can be learned."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import FULL, STATE_WIDTH, make_world, variant, world_data

from brewline.models.brewclip import BrewClip
from brewline.models.fusion import ConfidenceGate
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator
from brewline.samples.utterance import confidence_in

GATED = variant(fusion="gate")


def make(backbone, switches):
    torch.manual_seed(1)
    model = BrewClip(backbone, switches, (STATE_WIDTH,))
    return model, Collator(input_transforms(backbone, switches), switches)


def test_a_loud_channel_outvotes_the_other_unless_each_has_unit_length(backbone):
    """The last layer of the branch a hundred times larger: the sum hears nothing else."""
    angles = {}
    for fusion in ("sum", "unit_sum"):
        model, collator = make(backbone, variant(fusion=fusion))
        with torch.no_grad():
            model.acoustic.project_out.weight *= 1000
            model.acoustic.project_out.bias *= 1000
        inputs = collator.utterance_inputs(make_world(3))
        found = model.encode_utterances(inputs)
        for name, one in (("text", found.text), ("acoustic", found.acoustic)):
            angles[fusion, name] = F.cosine_similarity(found.embeddings, one).mean().item()
    assert angles["sum", "acoustic"] > 0.9999
    assert angles["unit_sum", "acoustic"] == pytest.approx(angles["unit_sum", "text"], abs=1e-5)


def test_an_untrained_gate_is_the_sum_at_unit_length(backbone):
    found = {}
    for fusion in ("unit_sum", "gate"):
        model, collator = make(backbone, variant(fusion=fusion))
        inputs = collator.utterance_inputs(make_world(3))
        found[fusion] = model.encode_utterances(inputs).embeddings
    torch.testing.assert_close(found["gate"], found["unit_sum"])


def test_a_trained_gate_listens_where_the_text_is_unsure(backbone):
    model, collator = make(backbone, GATED)
    with torch.no_grad():
        model.gate.slope.fill_(40.0)
        model.gate.offset.fill_(-20.0)
    (one,) = make_world(1, takes=1)
    sure, unsure = (replace(one, confidence=value) for value in (0.9, 0.1))
    found = model.encode_utterances(collator.utterance_inputs([sure, unsure]))
    close = F.cosine_similarity
    assert close(found.embeddings[0], found.text[0], dim=0) > 0.9999
    assert close(found.embeddings[1], found.acoustic[1], dim=0) > 0.9999
    # A model without a gate does not ask.
    plain, collator = make(backbone, FULL)
    inputs = collator.utterance_inputs([sure, unsure])
    assert inputs.confidence is None
    same = plain.encode_utterances(inputs).embeddings
    torch.testing.assert_close(same[0], same[1])


def test_a_gate_learns_whom_to_believe():
    """Texts are right where the recogniser is sure, and noise where it is not; sounds are noisy."""
    torch.manual_seed(0)
    gate = ConfidenceGate()
    right = F.normalize(torch.randn(256, 16), dim=1)
    confidence = torch.rand(256)
    noise = F.normalize(torch.randn(256, 16), dim=1)
    text = torch.where(confidence[:, None] > 0.5, right, noise)
    acoustic = F.normalize(right + 0.2 * torch.randn(256, 16), dim=1)
    optimiser = torch.optim.Adam(gate.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        fused = F.normalize(gate(text, acoustic, confidence), dim=1)
        (1 - (fused * right).sum(dim=1)).mean().backward()
        optimiser.step()
    low, high = gate.text_weight(torch.tensor([0.1, 0.9])).tolist()
    assert low < 0.3 < 0.6 < high


@pytest.mark.parametrize(
    ("text", "avg_logprob", "expected"),
    [
        (" a dog", -0.7, math.exp(-0.7)),
        (" a dog", 0.0, 1.0),
        # A text that was given, and a recording in which nothing was recognised.
        (" a dog", None, 1.0),
        ("", None, 0.0),
    ],
)
def test_the_confidence_in_a_text(text, avg_logprob, expected):
    assert confidence_in(text, avg_logprob) == pytest.approx(expected)


def test_of_captions_a_probe_asks_for_no_confidence(backbone):
    """What was meant to be said is sure, whatever was heard of it."""
    captions = GATED.model_copy(update={"text": "caption"})
    world = [replace(one, confidence=0.2) for one in world_data().read_split("dev")]
    collator = Collator(input_transforms(backbone, captions), captions)
    assert (collator.utterance_inputs(world).confidence == 1).all()
    heard = Collator(input_transforms(backbone, GATED), GATED)
    assert (heard.utterance_inputs(world).confidence == 0.2).all()
