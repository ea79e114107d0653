"""Encoder states of recordings as they are, and of the same changed a little, side by side.

`data/states/<corpus>-augmented/` has the shards of `data/states/<corpus>/`, in which a sample has
further members: `<key>.<augmentation>.npy`.
"""

# Each as likely as none at all.
AUGMENTATIONS = ("noise", "stretch", "pitch")


def member_of(augmentation: str) -> str:
    """The field of a sample that holds the states of an augmentation."""
    return f"{augmentation}.npy"
