"""Published weights are used with the architecture that they were trained in, or not at all."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import world

from brewline.config.backbones import BackbonesParams
from brewline.core.errors import BrewlineError
from brewline.models import weights


def test_weights_that_are_there_are_not_fetched_again(tmp_path: Path) -> None:
    """A variant that changed makes the stage stale, and its check is all that has to be done."""
    world.make_whisper(tmp_path / "whisper.pt")
    world.make_clip(tmp_path / "clip")
    asked = BackbonesParams.model_validate(
        {
            role: {"name": role, "source": str(tmp_path / source), "sha256": None}
            for role, source in (("whisper", "whisper.pt"), ("clip", "clip"))
        }
    )
    folder = tmp_path / "backbones"
    assert not weights.are_prepared(asked, folder)
    weights.prepare_backbones(asked, folder)
    assert weights.are_prepared(asked, folder)
    assert str(tmp_path) not in (folder / "sources.json").read_text()
    other = asked.whisper.model_copy(update={"source": "elsewhere.pt"})
    assert not weights.are_prepared(asked.model_copy(update={"whisper": other}), folder)
    (folder / "whisper.pt").write_bytes(b"damaged")
    assert not weights.are_prepared(asked, folder)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What open_clip was asked to download; nothing is."""
    asked: list[tuple[Any, ...]] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(open_clip, "create_model", refuse)
    return asked


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("ViT-L-14/openai", "ViT-L-14-quickgelu/openai"),
        ("ViT-B-32/laion400m_e32", "ViT-B-32-quickgelu/laion400m_e32"),
    ],
)
def test_weights_of_another_activation_are_refused(
    tmp_path: Any, downloads: list[Any], name: str, right: str
) -> None:
    with pytest.raises(BrewlineError, match=f"trained with QuickGELU.*use open_clip:{right}"):
        weights._download_clip(name, tmp_path)
    assert not downloads


def test_weights_of_the_right_activation_are_downloaded(
    tmp_path: Any, downloads: list[Any]
) -> None:
    for name in ("ViT-L-14-quickgelu/openai", "ViT-B-32/laion2b_s34b_b79k"):
        with pytest.raises(BrewlineError, match="cannot download CLIP"):
            weights._download_clip(name, tmp_path)
    assert [asked[0] for asked in downloads] == ["ViT-L-14-quickgelu", "ViT-B-32"]


def test_the_architecture_that_is_named_instead_is_one_that_open_clip_has() -> None:
    published = {tuple(pair) for pair in open_clip.list_pretrained()}
    refused = 0
    for architecture, tag in sorted(published):
        try:
            weights._refuse_other_activation(architecture, tag)
        except BrewlineError as error:
            refused += 1
            right = str(error).rpartition("open_clip:")[2]
            assert tuple(right.split("/")) in published, error
    assert refused >= 2
