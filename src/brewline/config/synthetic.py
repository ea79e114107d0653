"""What to say where numbers of generated corpora are shown."""

from collections.abc import Iterable

from brewline.config.schema import Params


def synthetic_notice(params: Params, corpora: Iterable[str]) -> str:
    """What a page or a text says about those of the corpora that are generated, or nothing."""
    names = [corpus for corpus in corpora if params.sources[corpus].synthetic]
    if not names:
        return ""
    all_names = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return (
        f"A program made {all_names}: drawn pictures and synthetic voices, for very "
        "small models. Their numbers show that the pipeline works. They say nothing about real "
        "recordings and must not stand beside published ones."
    )
