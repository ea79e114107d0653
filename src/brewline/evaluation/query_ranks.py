"""How each query of a split was answered.

Kept beside a model, so that models which were measured at different times can be compared.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class QueryRanks:
    """The ranks of right answers, from 1, by image id.

    `of_image` has, for each utterance of the image, the rank of the image that it asks for;
    `of_utterances` the ranks of the utterances that the image asks for, best first.
    """

    of_image: dict[str, list[int]]
    of_utterances: dict[str, list[int]]

    def asks_the_same_as(self, other: "QueryRanks") -> bool:
        """Whether both are about the same images with as many utterances each."""
        return {one: len(ranks) for one, ranks in self.of_image.items()} == {
            one: len(ranks) for one, ranks in other.of_image.items()
        }
