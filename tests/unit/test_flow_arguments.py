"""What a flow is asked for on the command line is checked before anything is started."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from brewline.core.errors import BrewlineError
from flows.__main__ import main, start

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "names no values"),
        ("3", "names no values"),
        ("{variants.full.alpha: 1}", "is not JSON"),
        ("", "is not JSON"),
    ],
)
def test_overrides_are_an_object_of_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    monkeypatch.setattr("sys.argv", ["flows", "pipeline", "--overrides", text])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_experiments_and_corpora_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr("flows.__main__.start", lambda *arguments: started.append(arguments))
    chosen = [
        "--corpora",
        "mini-lncoco",
        "--experiments",
        "mini-lncoco-full",
        "mini-lncoco-prompted",
    ]
    monkeypatch.setattr("sys.argv", ["flows", "pipeline", *chosen])
    main()
    ((name, arguments),) = started
    assert name == "pipeline"
    assert arguments["corpora"] == ["mini-lncoco"]
    assert arguments["experiments"] == ["mini-lncoco-full", "mini-lncoco-prompted"]
    from flows.pipeline import pipeline

    assert pipeline.validate_parameters(arguments)["from_stage"] == ""


def test_a_misspelt_key_is_named_before_dvc_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC knows it only as one that is missing."""
    params = (PROJECT / "params.yaml").read_text().replace("  alpha:", "  alhpa:")
    (tmp_path / "params.yaml").write_text(params)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.__main__.let_dvc_run_without_git", lambda project: None)
    with pytest.raises(BrewlineError, match="alhpa: unknown key; did you mean 'alpha'"):
        start("pipeline", {})


@pytest.mark.parametrize("hours", [-1.0, 0.0])
def test_a_time_limit_that_is_over_before_it_begins_is_refused(hours: float) -> None:
    from flows.pipeline import pipeline

    assert pipeline.validate_parameters({"time_limit_h": 0.5})["time_limit_h"] == 0.5
    with pytest.raises(Exception, match="greater than 0"):
        pipeline.validate_parameters({"time_limit_h": hours})


@pytest.mark.parametrize(("promoted", "code"), [(True, None), (False, 3)])
def test_a_refused_promotion_has_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, promoted: bool, code: int | None
) -> None:
    started: list[tuple[str, dict[str, Any]]] = []

    def flow(name: str, arguments: dict[str, Any]) -> bool:
        started.append((name, arguments))
        return promoted

    monkeypatch.setattr("flows.__main__.start", flow)
    monkeypatch.setattr("sys.argv", ["flows", "promote", "mini-lncoco", "--version", "7"])
    ended = contextlib.nullcontext() if code is None else pytest.raises(SystemExit)
    with ended as caught:
        main()
    assert (caught.value.code if caught else None) == code
    assert started == [("promote", {"corpus": "mini-lncoco", "version": 7})]


def test_the_exit_codes_of_a_promotion_are_in_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["flows", "promote", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "0 where the version is the champion now, 3 where the policy or a person" in said
    assert "says no, 1 after an error" in said


def test_an_error_of_a_promotion_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def flow(name: str, arguments: dict[str, Any]) -> bool:
        raise BrewlineError("brewline-mini-lncoco has no version 7; it has 1")

    monkeypatch.setattr("flows.__main__.start", flow)
    monkeypatch.setattr("sys.argv", ["flows", "promote", "mini-lncoco", "--version", "7"])
    with pytest.raises(SystemExit) as ended:
        main()
    # Python prints a text on its standard error, and exits with 1.
    assert ended.value.code == "error: brewline-mini-lncoco has no version 7; it has 1"
