"""Encoders of layers, the weights of HuBERT, and the stage that keeps what they give."""

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import world
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from brewline.config import load_params
from brewline.config.backbones import BackbonesParams
from brewline.config.variants import LayeredEncoderName
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_tree
from brewline.models import weights
from brewline.models.card import load_backbone_hashes
from brewline.samples.shards import decode_states
from brewline.speech.layered_encoders import (
    Hubert,
    encode_recording,
    load_layered_encoder,
    pooled,
    shape_of_layers,
)
from brewline.tables.manifest import MANIFEST
from brewline.tables.parquet import write_table
from brewline.tables.transcripts import TRANSCRIPTS

PROJECT = Path(__file__).parents[2]
ASR = load_params(PROJECT / "params.yaml").asr
CPU = torch.device("cpu")
WIDTH, LAYERS = 16, 3


def hubert(norm: str = "layer") -> Any:
    """A tiny HuBERT with random weights: `group` as the base one, `layer` as the large one."""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    return HubertModel(
        HubertConfig(
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            intermediate_size=24,
            conv_dim=(8,) * 7,
            feat_extract_norm=norm,
            do_stable_layer_norm=norm == "layer",
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
        )
    ).eval()


def publish(folder: Path, norm: str = "layer", pickled: bool = False, **wants: Any) -> Path:
    """The folder that a repository on the Hub has."""
    model = hubert(norm)
    model.save_pretrained(folder)
    if pickled:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save({f"hubert.{n}": t for n, t in tensors.items()}, folder / "pytorch_model.bin")
    wants = {"sampling_rate": 16000, "do_normalize": True} | wants
    (folder / "preprocessor_config.json").write_text(json.dumps(wants))
    return folder


def sound(num_samples: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (0.1 + 0.2 * rng.standard_normal(num_samples)).astype(np.float32)


def asked(tmp_path: Path, source: Path, sha256: str | None = None) -> BackbonesParams:
    world.make_whisper(tmp_path / "whisper.pt")
    world.make_clip(tmp_path / "clip")
    sources = {"whisper": tmp_path / "whisper.pt", "clip": tmp_path / "clip", "hubert": source}
    hashes = {"hubert": sha256}
    return BackbonesParams.model_validate(
        {
            role: {"name": role, "source": str(path), "sha256": hashes.get(role)}
            for role, path in sources.items()
        }
    )


# Weights


@pytest.mark.parametrize("pickled", [False, True])
def test_a_hubert_gives_what_the_librarys_own_gives(tmp_path: Path, pickled: bool) -> None:
    """Of a head for recognition, and of older weights, what is pickled too."""
    backbones = asked(tmp_path, publish(tmp_path / "published", pickled=pickled))
    weights.prepare_backbones(backbones, tmp_path / "made")
    folder = tmp_path / "made/hubert"
    assert shape_of_layers("hubert", folder) == (LAYERS + 1, WIDTH)
    assert weights.are_prepared(backbones, tmp_path / "made")
    hashes = load_backbone_hashes(tmp_path / "made/backbones.json")
    assert hashes["hubert"] == sha256_tree(folder) and {*hashes} == {"whisper", "clip", "hubert"}
    # A HuBERT that is added makes nothing stale that hears by Whisper.
    assert "hubert" not in json.loads((tmp_path / "made/backbones.json").read_text())

    waveform = sound(8000)
    found = encode_recording(Hubert(folder, ASR, CPU), waveform, 1)
    normal = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
    with torch.no_grad():
        expected = hubert()(torch.from_numpy(normal)[None], output_hidden_states=True)
    for number, states in enumerate(expected.hidden_states):
        np.testing.assert_allclose(found[:, number], states[0].numpy(), atol=2e-3)


def test_equal_huberts_have_one_hash(tmp_path: Path) -> None:
    found = []
    for name, pickled in (("a", False), ("b", True)):
        backbones = asked(tmp_path, publish(tmp_path / name, pickled=pickled))
        weights.prepare_backbones(backbones, tmp_path / f"made-{name}")
        found.append(sha256_tree(tmp_path / f"made-{name}/hubert"))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("nothing there", "neither a folder nor a repository"),
        ("no weights", "has no model.safetensors or pytorch_model.bin"),
        ("no preprocessor", "has no preprocessor_config.json"),
        ("another model", "is of 'wav2vec2', not of 'hubert'"),
        ("another rate", "sampling_rate: 8000, and what we hear by it needs 16000"),
        ("cut", "weights are damaged"),
        ("a layer is missing", "its weights lack encoder.layers.2"),
        ("another hash", "expected SHA-256"),
    ],
)
def test_what_is_no_hubert_is_one_sentence(tmp_path: Path, damage: str, words: str) -> None:
    rate = 8000 if damage == "another rate" else 16000
    folder = publish(tmp_path / "published", sampling_rate=rate)
    config = json.loads((folder / "config.json").read_text())
    if damage == "nothing there":
        folder = tmp_path / "elsewhere"
    elif damage == "no weights":
        (folder / "model.safetensors").unlink()
    elif damage == "no preprocessor":
        (folder / "preprocessor_config.json").unlink()
    elif damage == "another model":
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "wav2vec2"}))
    elif damage == "cut":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif damage == "a layer is missing":
        from safetensors.torch import save_file

        tensors = load_file(folder / "model.safetensors")
        kept = {name: one for name, one in tensors.items() if "layers.2." not in name}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    backbones = asked(tmp_path, folder, "0" * 64 if damage == "another hash" else None)
    with pytest.raises(BrewlineError, match=words):
        weights.prepare_backbones(backbones, tmp_path / "made")


# Encoders


def encoder(tmp_path: Path, name: LayeredEncoderName, norm: str = "layer") -> Any:
    if name == "hubert":
        publish(tmp_path / "hubert", norm)
        return load_layered_encoder(name, tmp_path / "hubert", ASR, CPU)
    world.make_whisper(tmp_path / "whisper.pt")
    return load_layered_encoder(name, tmp_path / "whisper.pt", ASR, CPU)


def test_groups_of_frames_are_averaged() -> None:
    frames = np.array([[1, 10], [3, 20], [5, 60]], np.float32)
    np.testing.assert_array_equal(pooled(frames, 2), [[2, 15], [5, 60]])
    np.testing.assert_array_equal(pooled(frames, 1), frames)
    np.testing.assert_array_equal(pooled(frames, 9), [[3, 30]])


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("num_samples", [1, 400, 7999])
def test_a_recording_of_any_length_has_frames(tmp_path: Path, norm: str, num_samples: int) -> None:
    states = encode_recording(encoder(tmp_path, "hubert", norm), sound(num_samples), 1)
    assert states.dtype == np.float16
    frames = max(1, (num_samples - 400) // 320 + 1)
    assert states.shape == (frames, LAYERS + 1, WIDTH)


@pytest.mark.parametrize("name", ["hubert", "whisper_layers"])
def test_a_long_recording_is_heard_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: LayeredEncoderName
) -> None:
    """In windows, which are cut where it is quiet: its end changes no early state."""
    monkeypatch.setattr("brewline.speech.layered_encoders._HUBERT_WINDOW_S", 6)
    one = encoder(tmp_path, name)
    waveform = sound(9 * 16000)
    other = waveform.copy()
    other[-1600:] = 3 * sound(1600, 5)
    states, changed = (encode_recording(one, each, 4) for each in (waveform, other))
    assert len(states) == len(changed)
    assert abs(len(states) - 9 * 50 / 4) < 4
    differs = np.abs(states - changed).max(axis=(1, 2)) > 0.05
    assert differs[-1] and not differs[: len(differs) // 4].any()


def test_what_is_no_number_is_said(tmp_path: Path) -> None:
    one = encoder(tmp_path, "hubert")
    nn.init.constant_(one._model.encoder.layers[-1].final_layer_norm.bias, float("nan"))
    with pytest.raises(BrewlineError, match="no numbers"):
        encode_recording(one, sound(8000), 1)


# The stage


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Five recordings, of which transcription has dropped one, in shards of two."""
    values: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text())
    source = {"reader": "folder", "index": "index.csv", "licence": "ours", "files": {}}
    values |= {"corpora": ["own"], "sources": {"own": source}}
    values |= {"tables": {}, "sound_tables": {}, "probes": {}}
    values |= {"probed_corpora": [], "experiments": {}, "watched": []}
    values["shard"]["utterances_per_shard"] = 2
    values["backbones"]["hubert"] = {"name": "tiny", "source": "published", "sha256": None}
    values["encoded"] = {
        "own-hubert": {"data": "own", "encoder": "hubert", "pool_frames": 1},
        "own-layers": {"data": "own", "encoder": "whisper_layers", "pool_frames": 5},
    }
    values["runtime"] |= {"transcribe_workers": 1, "device": "cpu"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (tmp_path / "versions.yaml").write_text((PROJECT / "versions.yaml").read_text())
    nothing, rows, transcripts = dict.fromkeys(TRANSCRIPTS.names), [], []
    for number in range(5):
        name = f"u{number}"
        path = tmp_path / f"data/raw/own/{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(world.encode_audio(sound(4000 + 800 * number, number), "WAV", "FLOAT"))
        rows.append(
            dict.fromkeys(MANIFEST.names)
            | {"utterance_id": name, "split": "train", "audio_path": f"{name}.wav"}
            | {"duration_s": 0.3, "image_path": None}
        )
        status = "dropped" if number == 3 else "ok"
        facts = {"text": "", "num_windows": 1, "num_frames": 9, "asr_model": "tiny"}
        transcripts.append(
            nothing | facts | {"utterance_id": name, "split": "train", "status": status}
        )
    write_table(tmp_path / "data/manifest/own.parquet", MANIFEST, _filled(rows))
    write_table(tmp_path / "data/transcripts/own.parquet", TRANSCRIPTS, transcripts)
    publish(tmp_path / "published")
    weights.prepare_backbones(
        asked(tmp_path, tmp_path / "published"), tmp_path / "models/backbones"
    )
    return tmp_path


def _filled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives columns that may not be empty something."""
    stand_in = {"string": "x", "double": 1.0, "int64": 1, "bool": False}
    for field in MANIFEST:
        if not field.nullable:
            for row in rows:
                if row[field.name] is None:
                    row[field.name] = stand_in[str(field.type)]
    return rows


def run_stage(project: Path, name: str) -> None:
    """Runs the program in this process, as DVC would in another."""
    from brewline.stages import encode

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setattr(sys, "argv", ["encode", name])
        encode.main()


def test_the_stage_keeps_what_shards_hold_and_goes_on_after_a_kill(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(project, "own-hubert")
    assert f"5 utterances; {LAYERS + 1} layers of {WIDTH} numbers" in capsys.readouterr().out
    folder = project / "data/states/own-hubert"
    index = json.loads((folder / "index.json").read_text())
    counts = {entry["file"]: entry["num_utterances"] for entry in index}
    assert counts == {f"train-00000{n}.tar": c for n, c in enumerate((2, 1, 1))}
    one = Hubert(project / "models/backbones/hubert", ASR, CPU)
    with tarfile.open(folder / "train-000000.tar") as archive:
        assert archive.getnames() == ["u0.npy", "u1.npy"]
        file = archive.extractfile("u1.npy")
        assert file is not None
        states = decode_states({"__key__": "u1", "npy": file.read()}, folder)
    np.testing.assert_allclose(
        states, encode_recording(one, sound(4800, 1), 1), atol=5e-3, rtol=5e-3
    )
    whole = sha256_tree(folder)

    # Again, but it is killed before the second shard is written.
    from brewline.speech import encoding

    write, written = encoding.write_shard, []

    def die(path: Path, samples: Any) -> int:
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt
        return write(path, samples)

    monkeypatch.setattr(encoding, "write_shard", die)
    with pytest.raises((BrewlineError, RuntimeError, KeyboardInterrupt, SystemExit)):
        run_stage(project, "own-hubert")
    monkeypatch.setattr(encoding, "write_shard", write)
    done = list((project / "work/encode").rglob("*.tar"))
    assert len(done) == 1
    run_stage(project, "own-hubert")
    assert sha256_tree(folder) == whole
    assert not [path for path in (project / "work/encode").rglob("*") if path.is_file()]


def test_whispers_layers_are_kept_in_groups(project: Path) -> None:
    run_stage(project, "own-layers")
    index = json.loads((project / "data/states/own-layers/index.json").read_text())
    assert sum(entry["num_utterances"] for entry in index) == 4
