"""Which files of a folder, or of a repository, are those of a model."""

from collections.abc import Collection, Sequence

from brewline.core.errors import BrewlineError


def weights_among(
    names: Collection[str],
    where: str,
    title: str,
    needed: Sequence[str],
    weights: Sequence[str],
    advice: str = "",
) -> str:
    """The file that holds the weights, where what is needed beside it is there too.

    Args:
        names: Of all the files.
        where: What an error calls their place.
        title: What kind of model it should be.
        needed: Names of files without which it is none.
        weights: Names for its weights; the first that is there counts.
        advice: What somebody could do who has none.

    Raises:
        BrewlineError: some are missing.
    """
    found = next((name for name in weights if name in names), None)
    missing = [name for name in needed if name not in names]
    if found is None:
        missing.append(" or ".join(weights))
    if found is None or missing:
        raise BrewlineError(
            f"{where} is no {title}: it has no {', no '.join(missing)}{advice}", "settings"
        )
    return found
