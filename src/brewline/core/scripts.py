"""Words of texts in any script: some scripts put no space between them.

In those of Chinese and Japanese (Han, kana, Bopomofo), of Thai, Lao, Burmese and Khmer every sign
stands for a word here, with the marks above and below it, as the character error rates published
for these languages count; in all other scripts a word ends at a space. The script decides, not the
language: a Japanese text may hold words in Latin letters.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

# Of the blocks of Unicode that hold these scripts, and their punctuation, in this order: Han with
# its radicals, CJK punctuation, kana, Bopomofo; Han; Han for compatibility; fullwidth punctuation
# and halfwidth kana; Han of later planes; Thai and Lao; Burmese; Khmer; more of Burmese.
_SPACELESS = re.compile(
    "[\u2e80-\u312f\u3190-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U00020000-\U0003ffff"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f\ua9e0-\ua9ff]"
)


def is_spaceless(text: str) -> bool:
    """Whether a text holds a sign, a mark or punctuation of a script without spaces."""
    return _SPACELESS.search(text) is not None


def has_word(text: str) -> bool:
    """Whether a text says something: it holds a letter or a digit of any script."""
    return any(map(str.isalnum, text))


def split_words(text: str) -> list[str]:
    """Splits at spaces, and around each sign of a script without them.

    Punctuation stays with what stands before it.
    """
    if not is_spaceless(text):
        return text.split()
    return [word for chunk in text.split() for word in _pieces(chunk)]


def _pieces(chunk: str) -> Iterator[str]:
    start, after_sign, has_begun = 0, False, False
    for index, letter in enumerate(chunk):
        # Marks, and punctuation, go with what they follow.
        if unicodedata.category(letter)[0] not in "LN":
            continue
        is_sign = is_spaceless(letter) and not letter.isdecimal()
        if has_begun and (is_sign or after_sign):
            yield chunk[start:index]
            start = index
        after_sign, has_begun = is_sign, True
    yield chunk[start:]


def join_texts(texts: Iterable[str]) -> str:
    """Joins parts of a text with spaces, but for where a script without them begins or ends."""
    joined: list[str] = []
    for text in texts:
        if joined and text and not (is_spaceless(joined[-1][-1]) or is_spaceless(text[0])):
            joined.append(" ")
        joined += [text] if text else []
    return "".join(joined)
