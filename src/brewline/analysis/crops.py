"""What a crop loses of pictures that are not square, and who misses them."""

from collections.abc import Mapping

# Upper ends of shares of a picture that lie outside of the crop. A picture of 4 to 3 loses a
# quarter, one of 3 to 2 a third.
LOST_ENDS = (0.02, 0.26, 0.34, 1.0)


def crop_failures(
    lost_of: Mapping[str, float],
    rank_of: Mapping[str, int],
    image_of: Mapping[str, str],
    k: int,
    min_lost: float,
) -> list[str]:
    """The recordings that miss a picture of which much lies outside of the crop.

    That is the whole rule: what they name need not stand where nothing is seen.

    Args:
        lost_of: The share of each recording's picture that is lost.
        rank_of: The rank of the right image by utterance id.
        image_of: The image of each recording.
        k: How many ranks are a hit.
        min_lost: How much is much.

    Returns:
        Their ids, those farthest off first; of an image the first one alone.
    """
    found = [name for name in lost_of if lost_of[name] >= min_lost and rank_of[name] > k]
    first: dict[str, str] = {}
    for name in sorted(found, key=lambda one: (-rank_of[one], one)):
        first.setdefault(image_of[name], name)
    return list(first.values())
