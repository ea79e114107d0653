import pytest

from brewline.config.recipes import RecipeParams
from brewline.training.schedule import learning_rate


def settings(steps: int, warmup_steps: int) -> RecipeParams:
    return RecipeParams.model_construct(
        steps=steps, warmup_steps=warmup_steps, learning_rate=1e-4, schedule="linear"
    )


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 2e-8), (4999, 1e-4), (5000, 9.99989e-5), (50_000, 5.26353e-5), (99_999, 1e-8)],
)
def test_golden_values(step, expected):
    assert learning_rate(step, settings(100_000, 5_000)) == pytest.approx(expected, rel=1e-5)


def test_no_warm_up_starts_near_the_peak():
    rates = [learning_rate(step, settings(100, 0)) for step in range(100)]
    assert rates[0] == pytest.approx(0.99e-4, rel=1e-3)
    assert rates == sorted(rates, reverse=True)


def test_a_run_shorter_than_its_warm_up_only_rises():
    rates = [learning_rate(step, settings(5, 10)) for step in range(5)]
    assert rates == sorted(rates)
