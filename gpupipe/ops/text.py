"""CLIP's text tokens: open_clip's ``ViT-B-16`` tokenizer, id for id, without torch.

Cleaning (open_clip's default, ``clean="lower"``): ftfy, HTML entities undone twice, white space
collapsed, lower case. Then the words: contractions, runs of letters, single digits, runs of anything
else. Then byte-level BPE with OpenAI's 48,894 merges, done by the ``tokenizers`` package.

Source: https://github.com/mlfoundations/open_clip ``src/open_clip/tokenizer.py`` and
https://github.com/openai/CLIP ``clip/simple_tokenizer.py``. The merges are OpenAI's (MIT, see NOTICE).
"""

from __future__ import annotations

import gzip
import hashlib
import html
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpupipe.errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START = 49406
"""Id of ``<start_of_text>``, first in every row."""

END = 49407
"""Id of ``<end_of_text>``; the highest id, so that CLIP finds it with argmax."""

VOCABULARY = 49408

_MERGES = Path(__file__).with_name("clip_merges.txt.gz")
_MERGES_SHA256 = "5f6c91a3727038ae46523c18c13e3275d6713eea9fd2ccfeb5139351419ee21f"

_SPECIAL = {"<start_of_text>": START, "<end_of_text>": END}
# The original matches case-blind, after lower-casing. Two characters notice: U+017F (long s) survives
# lower() and equals "s" when case is ignored; U+0345 (Greek iota below) is no letter, but its capital is,
# so it belongs to no word and is dropped. Letters newer than the package's Unicode count as signs.
_WORDS = (
    r"<[sſ]tart_of_text>|<end_of_text>"
    r"|'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"
)
_STRIDE = 16384  # characters of one BPE call


class ClipTokenizer:
    """Text to CLIP token ids. About 0.1 s to make; see :func:`clip_tokenizer` for one a process.

    Parameters
    ----------
    context_length : int
        L, ids a text, with the start and end marks.

    Raises
    ------
    UsageError
        A package or the vocabulary file is missing or damaged, or `context_length` is below 2.
    """

    def __init__(self, context_length: int = 77) -> None:
        if context_length < 2:
            raise UsageError(f"context_length is {context_length}; the start and end marks alone take 2.")
        self.context_length = context_length
        try:
            import ftfy
            from tokenizers import Regex, Tokenizer, models, pre_tokenizers
        except ImportError as error:
            raise UsageError(
                f"the CLIP tokenizer needs the packages ftfy and tokenizers: {error}. Run: pip install ftfy tokenizers"
            ) from error
        merges = _read_merges(_MERGES)
        split = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
        # The vocabulary's order is its definition: bytes, bytes that end a word, merges, the two marks.
        alphabet = _byte_alphabet()
        tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in merges), *_SPECIAL]
        vocabulary = {token: index for index, token in enumerate(tokens)}
        self._fix_text = ftfy.fix_text
        self._split = split
        self._tokenizer: Tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Ids of one text.

        Parameters
        ----------
        text : str
            Any string; lone surrogates become U+FFFD, control characters go.

        Returns
        -------
        ndarray, int64 [L]
            ``START``, the text's ids, ``END``, zeros. A text that is too long is cut and still ends in
            ``END``.

        Raises
        ------
        TypeError
            `text` is not a str.
        """
        row = np.zeros(self.context_length, dtype=np.int64)
        self._fill(row, text)
        return row

    def encode_all(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Ids of N texts, int64 [N, L]; a row is what :meth:`encode` gives.

        Raises
        ------
        TypeError
            A text is not a str, or `texts` is itself one.
        """
        if isinstance(texts, str):
            raise TypeError("encode_all takes a list of texts; encode takes one text")
        rows = np.zeros((len(texts), self.context_length), dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            self._fill(row, text)
        return rows

    def _fill(self, row: npt.NDArray[np.int64], text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"text is a {type(text).__name__}, expected str")
        cleaned, ids, start = self.clean(text), list[int](), 0
        # No word crosses a space, so a long text is worked in pieces, until the row is full.
        while start < len(cleaned) and len(ids) < self.context_length - 2:
            space = cleaned.find(" ", start + _STRIDE)
            stop = len(cleaned) if space < 0 else space
            ids.extend(self._ids(cleaned[start:stop]))
            start = stop + 1
        del ids[self.context_length - 2 :]
        row[0] = START
        row[1 : len(ids) + 1] = ids
        row[len(ids) + 1] = END

    def clean(self, text: str) -> str:
        """The text as the BPE sees it: mended, unescaped, one space between words, lower case."""
        text = html.unescape(html.unescape(self._fix_text(text)))
        return " ".join(text.split()).lower()

    def _ids(self, cleaned: str) -> list[int]:
        if not any(mark in cleaned for mark in _SPECIAL):
            return self._tokenizer.encode(cleaned).ids
        # A mark counts only where it is a word of its own: "!<end_of_text>" is punctuation and letters.
        # So it cannot be left to the package, which cuts its special tokens out before the words.
        ids: list[int] = []
        for word, _ in self._split.pre_tokenize_str(cleaned):
            ids.extend([_SPECIAL[word]] if word in _SPECIAL else self._tokenizer.encode(word).ids)
        return ids


@cache
def clip_tokenizer(context_length: int = 77) -> ClipTokenizer:
    """The tokenizer of this process, made at the first call."""
    return ClipTokenizer(context_length)


def identity() -> str:
    """What decides the ids, in words, for a plan's hash: vocabulary and package versions.

    Raises
    ------
    UsageError
        A package is missing.
    """
    try:
        packages = ", ".join(f"{name} {version(name)}" for name in ("ftfy", "tokenizers"))
    except ImportError as error:  # PackageNotFoundError is one
        raise UsageError(f"the CLIP tokenizer needs the packages ftfy and tokenizers: {error}") from error
    return f"open_clip ViT-B-16, merges {_MERGES_SHA256[:12]}, {packages}"


def _read_merges(path: Path) -> list[tuple[str, str]]:
    """The merges in their order of rank, checked against the known SHA-256."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path}: the CLIP vocabulary cannot be read ({error.strerror}). Install gpupipe again."
        ) from error
    found = hashlib.sha256(packed).hexdigest()
    if found != _MERGES_SHA256:
        raise UsageError(
            f"{path}: the CLIP vocabulary is damaged: SHA-256 {found}, expected {_MERGES_SHA256}. "
            "Install gpupipe again."
        )
    pairs = (line.partition(" ") for line in gzip.decompress(packed).decode().splitlines())
    return [(left, right) for left, _, right in pairs]


def _byte_alphabet() -> list[str]:
    """One printable character a byte, in the vocabulary's order: printable Latin-1 first, then the rest."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
