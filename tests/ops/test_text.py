"""CLIP tokens: id for id those of open_clip (goldens made with its own tokenizer)."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpupipe.errors import UsageError
from gpupipe.ops import text as module
from gpupipe.ops.text import END, START, VOCABULARY, ClipTokenizer, clip_tokenizer, identity

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "clip_tokens.json").read_text())["cases"]


def text_of(case):
    return case["text"] if "text" in case else case["repeat"] * case["times"]


def padded(ids):
    return np.array(ids + [0] * (77 - len(ids)), dtype=np.int64)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: ascii(text_of(case))[:40])
def test_ids_are_open_clips(case):
    np.testing.assert_array_equal(clip_tokenizer().encode(text_of(case)), padded(case["ids"]))


def test_goldens_cover_what_goes_wrong():
    assert len(GOLDEN) >= 60
    assert sum(len(case["ids"]) == 77 for case in GOLDEN) >= 5  # cut texts
    assert any(START in case["ids"][1:] for case in GOLDEN)  # a mark typed into the text


def test_batch_is_the_same_rows():
    texts = [text_of(case) for case in GOLDEN]
    rows = clip_tokenizer().encode_all(texts)
    assert rows.dtype == np.int64
    assert rows.shape == (len(texts), 77)
    np.testing.assert_array_equal(rows, np.stack([clip_tokenizer().encode(text) for text in texts]))
    assert clip_tokenizer().encode_all([]).shape == (0, 77)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec=None), max_size=400))  # lone surrogates too
@example("a" * 40_000)
@example("don't " * 20_000)
def test_row_is_well_formed(text):
    row = clip_tokenizer().encode(text)
    assert row.shape == (77,)
    assert row[0] == START
    assert row.min() >= 0
    assert row.max() < VOCABULARY
    (ends,) = np.nonzero(row == END)
    if "_of_text" not in clip_tokenizer().clean(text):
        assert len(ends) == 1
        assert START not in row[1:]
    assert not row[ends[-1] + 1 :].any()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.integers(2, 77))
def test_short_context_is_a_prefix(text, length):
    row, full = short_tokenizer(length).encode(text), clip_tokenizer().encode(text)
    used = int(np.nonzero(full == END)[0][-1]) + 1
    if used <= length:
        np.testing.assert_array_equal(row, full[:length])
    else:
        np.testing.assert_array_equal(row[:-1], full[: length - 1])
        assert row[-1] == END


def short_tokenizer(length):
    """The shared tokenizer at another length, without building a vocabulary an example."""
    other = object.__new__(ClipTokenizer)
    other.__dict__.update(clip_tokenizer().__dict__, context_length=length)
    return other


@pytest.mark.parametrize("stride", [1, 2, 7])
def test_pieces_of_a_long_text_do_not_show(stride, monkeypatch):
    monkeypatch.setattr(module, "_STRIDE", stride)
    for case in GOLDEN:
        np.testing.assert_array_equal(clip_tokenizer().encode(text_of(case)), padded(case["ids"]))


def test_one_tokenizer_a_process():
    assert clip_tokenizer() is clip_tokenizer()


def test_identity_names_the_packages():
    assert "ftfy " in identity()
    assert "tokenizers " in identity()


@pytest.mark.parametrize("package", ["ftfy", "tokenizers"])
def test_missing_package_is_a_usage_error(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"{package}.*pip install"):
        ClipTokenizer()


def test_missing_or_damaged_vocabulary_is_a_usage_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MERGES", tmp_path / "merges.gz")
    with pytest.raises(UsageError, match=r"merges\.gz: the CLIP vocabulary cannot be read"):
        ClipTokenizer()
    (tmp_path / "merges.gz").write_bytes(b"damaged")
    with pytest.raises(UsageError, match="is damaged: SHA-256"):
        ClipTokenizer()


def test_wrong_types():
    with pytest.raises(TypeError, match="NoneType"):
        clip_tokenizer().encode(None)
    with pytest.raises(TypeError, match="list of texts"):
        clip_tokenizer().encode_all("one text")
    with pytest.raises(UsageError, match="context_length is 1"):
        ClipTokenizer(1)
