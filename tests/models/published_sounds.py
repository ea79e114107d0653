"""Tiny random encoders of sounds, in the formats in which they are published."""

import json
from pathlib import Path
from typing import Any

import torch
import whisper
from whisper.model import ModelDimensions

# Seconds that each of them hears.
LONGEST_S = {"whisper": 1.6, "ast": 1.6, "clap": 1.0}


def publish_whisper(path: Path) -> whisper.Whisper:
    torch.manual_seed(1)
    model = whisper.Whisper(ModelDimensions(80, 80, 16, 2, 2, 51865, 24, 16, 2, 1)).eval()
    torch.save({"dims": vars(model.dims), "model_state_dict": model.state_dict()}, path)
    return model


def publish_ast(folder: Path, **wants: Any) -> Any:
    """With a head for classes, as on the Hub."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    torch.manual_seed(2)
    config = ASTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        time_stride=8,
        frequency_stride=16,
        max_length=160,
        num_labels=3,
    )
    model = ASTForAudioClassification(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    ASTFeatureExtractor(max_length=160).save_pretrained(folder)
    _change(folder, wants)
    return model


def publish_clap(folder: Path, fused: bool = False, **wants: Any) -> Any:
    """With its tower for texts, as on the Hub."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    torch.manual_seed(3)
    audio = {
        "window_size": 4,
        "num_mel_bins": 16,
        "spec_size": 64,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "patch_embeds_hidden_size": 8,
        "enable_fusion": fused,
        "fusion_type": "aff_2d" if fused else None,
    }
    text = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "vocab_size": 16,
    }
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=8)
    model = ClapModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    norm = model.audio_model.audio_encoder.batch_norm
    norm.running_mean.fill_(-30)
    norm.running_var.fill_(200)
    model.save_pretrained(folder)
    truncation = "fusion" if fused else "rand_trunc"
    extractor = ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation=truncation)
    extractor.save_pretrained(folder)
    _change(folder, wants)
    return model


def _change(folder: Path, wants: dict[str, Any]) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wants))
