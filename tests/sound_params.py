"""A variant that hears sounds, as `params.yaml` has it, for tests of parameters and of models."""

from typing import Any

# With a warm phase of no steps, and other takes of a clip as neither.
RULES: dict[str, dict[str, Any]] = {
    "random_frame": {},
    "nearest": {"warm_phase": 0},
    "multiframe_segment": {"same_clip": "mask"},
    "multiframe_clip": {},
}


def sound_params(rule: str = "random_frame", **options: Any) -> dict[str, Any]:
    """Its section `sound`; `options` are its own, or those of the pairing."""
    own = {key: options.pop(key) for key in ("warm_phase", "same_clip") if key in options}
    return {
        "encoder": "clip",
        "patch": [32, 8],
        "stride": [32, 8],
        "max_duration_s": 1.0,
        "frequency_mask": 0,
        "time_mask": 0,
        "segments": 4,
        "pairing": {"rule": rule, **RULES[rule], **own},
        **options,
    }
