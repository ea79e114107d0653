"""What the values of `params.yaml` are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Seed = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Bounds = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)]
Splits = Annotated[str, Field(pattern=r"^(train|dev|test)(\+(train|dev|test))*$")]
# What Whisper calls a language: two letters of ISO 639-1, or three where it has no two.
LANGUAGE_CODE = "[a-z]{2,3}"


class Section(BaseModel):
    """A part of `params.yaml`: no unknown keys, no conversions, no NaN, no changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
