"""The pairs file: what json.loads would give, in little memory, with errors that say where."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.errors import InputError, UsageError
from gpupipe.jobs.pairs import Pair, parse_pair, read_pairs, size_curve

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(codec=None), max_size=30),
        st.sampled_from(['"', "\\", "\\u12", "[", "]}", "é漢😀", "\ud83d", "a\nb", -math.inf, -1.25e-300]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=5)),
    max_leaves=20,
)
CHUNKS = st.one_of(st.integers(1, 20), st.integers(1, 5000))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs") / "pairs.json"


def read(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_pairs(path, **options))


# --- the stream


@settings(max_examples=300, deadline=None)
@given(
    elements=st.lists(JSON, min_size=1, max_size=6),
    chunk=CHUNKS,
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    bom=st.booleans(),
    around=st.text(" \t\r\n", max_size=30),
)
def test_list_is_what_json_loads_gives(path, elements, chunk, indent, ascii_only, bom, around):
    text = around + json.dumps(elements, indent=indent, ensure_ascii=ascii_only) + around
    data = (b"\xef\xbb\xbf" if bom else b"") + text.encode("utf-8", "replace")
    # repr tells 1 from 1.0 and -0.0 from 0.0, and has NaN equal to itself.
    assert repr(read(path, data, chunk=chunk)) == repr(json.loads(data.decode("utf-8-sig")))


@settings(max_examples=200, deadline=None)
@given(
    elements=st.lists(JSON, max_size=6),
    chunk=CHUNKS,
    ending=st.sampled_from(["\n", "\r\n", "\n \n\n"]),
    last=st.booleans(),
)
def test_jsonl_is_what_json_loads_gives_by_line(path, elements, chunk, ending, last):
    lines = [json.dumps(element) for element in [{"vid": "a"}, *elements]]
    text = ending.join(lines) + (ending if last else "")
    assert repr(read(path, text, chunk=chunk)) == repr([json.loads(line) for line in lines])


@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(
        st.text('[]{}",:\\u0123eE+-.truefalsn \n', max_size=40),
        st.tuples(st.lists(JSON, min_size=1, max_size=3), st.integers(0, 300), st.sampled_from([*',]}"x\n', ""])).map(
            lambda parts: json.dumps(parts[0])[: parts[1]] + parts[2] + json.dumps(parts[0])[parts[1] + 1 :]
        ),
    ),
    chunk=CHUNKS,
)
def test_damage_is_found_at_the_same_place_for_any_chunk(path, text, chunk):
    def outcome(size):
        try:
            return repr(read(path, text.encode("utf-8", "replace"), chunk=size))
        except UsageError as error:
            return str(error)

    whole = outcome(1 << 20)
    assert outcome(chunk) == whole
    if text.lstrip(" \n\t\r").startswith("["):
        try:
            expected = json.loads(text)
        except json.JSONDecodeError:
            assert ", line " in whole
        else:
            assert "the list is empty" in whole if not expected else whole == repr(expected)


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize(
    ("content", "line", "column", "words"),
    [
        ('[{"vid": "a"}\n {"vid": "b"}]', 2, 2, "expected ',' or ']' after an element of the list, found"),
        ('[{"vid": "a"},\n {"vid" "b"}]', 2, 9, "Expecting ':' delimiter, found '\"'"),
        ('[{"vid": "é漢😀" x}]', 1, 16, "Expecting ',' delimiter, found 'x'"),
        ("\ufeff[x]", 1, 2, "Expecting value, found 'x'"),
        ('[\n\n\n  {"a": 1, "b": tru}]', 4, 17, "Expecting value, found 't'"),
        ('[{"a": 1},', 1, 11, "Expecting value, found the end of the file"),
        ('[{"a": 1}', 1, 10, "expected ',' or ']' after an element of the list, found the end of the file"),
        ('[{"a": "text\n"}]', 1, 13, "Invalid control character, found the end of the line"),
        ('[1,\n{"a": "never closed]', 2, 7, "Unterminated string starting, found"),
        ('[{"a": "\\q"}]', 1, 9, "Invalid \\escape"),
        ("[1, 2]\n[3]", 2, 1, "expected the end of the file after the list's ']', found '['"),
        ('[1 "a"]', 1, 4, "expected ',' or ']'"),
        ('{"vid": "a"}\n{"vid": }\n', 2, 9, "Expecting value, found '}'. A file that starts with '{'"),
        ('{"vid": "a"}\n\n{"vid": "b"} {"vid": "c"}\n', 3, 14, "expected the end of the line, found"),
        ('{\n "data": []\n}', 1, 2, "found the end of the line. A file that starts with '{' is read as JSONL"),
        ('{"vid": "a"}\n{"vid": "b', 2, 9, "Unterminated string starting"),
        ('"text"', 1, 1, "expected a list, '[', or objects a line, '{', found '\"'"),
        ("\n\n  vid,clip\n", 3, 3, "expected a list"),
        (b'[{"a": 1},\n "ok", "\xff"]', 2, 9, "expected UTF-8, found the byte 0xff"),
        (b'[1,\n"caf\xc3\xa9 \xe2\x82"]', 2, 7, "expected UTF-8, found the byte 0xe2"),
        (b'[1,\n"caf\xc3\xa9 \xe2\x82', 2, 7, "expected UTF-8, found the byte 0xe2"),
        ('[{"vid": "a"}]'.encode("utf-16"), 1, 1, "expected UTF-8, found the byte 0xff"),
        ("[" * 100_000, 1, 2, "an element here cannot be read"),
        ("[1,\n" + "7" * 5000 + "]", 2, 1, "an element here cannot be read"),
    ],
)
def test_malformed_says_where_and_what(path, content, line, column, words, chunk):
    with pytest.raises(UsageError) as error:
        read(path, content, chunk=chunk)
    assert f"{path}, line {line}, column {column}: " in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize("content", ["", " \n\t\r\n ", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_empty_file(path, content):
    with pytest.raises(UsageError, match="the pairs file is empty"):
        read(path, content, chunk=2)


@pytest.mark.parametrize("content", ["[]", "[\n ]\n"])
def test_empty_list(path, content):
    with pytest.raises(UsageError, match="the list is empty"):
        read(path, content, chunk=1)


def test_unreadable_file(tmp_path):
    with pytest.raises(UsageError, match=r"no\.json: the pairs file cannot be read: No such file"):
        list(read_pairs(tmp_path / "no.json"))
    with pytest.raises(UsageError, match="Is a directory"):
        list(read_pairs(tmp_path))


def test_elements_that_are_no_objects_come_as_they_are(path):
    assert read(path, '[1, "a", null, [2], {"vid": "b"}]') == [1, "a", None, [2], {"vid": "b"}]
    assert read(path, '{"vid": "b"}\n5\nnull\n["x"]') == [{"vid": "b"}, 5, None, ["x"]]


def test_elements_before_the_fault_are_yielded(path):
    path.write_text('[{"vid": "a"}, {"vid": "b"}, oops]')
    stream = read_pairs(path, chunk=4)
    assert [next(stream), next(stream)] == [{"vid": "a"}, {"vid": "b"}]
    with pytest.raises(UsageError, match="column 30"):
        next(stream)


@pytest.mark.parametrize("start", ["[", "{"])
def test_one_element_is_bounded(path, start):
    element = json.dumps({"vid": "x" * 3000})
    content = f"[{element}, {element}]" if start == "[" else f"{element}\n{element}"
    assert len(read(path, content, chunk=100, limit=4000)) == 2
    with pytest.raises(UsageError, match="longer than 1000 characters"):
        read(path, content, chunk=100, limit=1000)


def test_memory_does_not_grow_with_the_file(path):
    element = {"vid": "v" * 100, "transcript": "word " * 30, "size": [0.25] * 10}
    path.write_text(json.dumps([element] * 20_000))
    assert path.stat().st_size > 6_000_000
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_pairs(path, chunk=1 << 16))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 1_000_000


# --- one pair


def test_whole_pair():
    raw = {
        "vid": "abc",
        "clip_path": "/data/clips/abc_10_20.mp4",
        "transcript": "hello",
        "transcript clip": "not this",
        "size": [1, 0.5],
        "begin_time": 10,
        "end_time": 20.5,
        "duration": 10.5,
        "more": object(),
    }
    assert parse_pair(raw) == Pair("abc", "abc_10_20.mp4", "hello", (1.0, 0.5), 10.0, 20.5, 10.5)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({}, ""),
        ({"transcript clip": "b"}, "b"),
        ({"transcript": "", "transcript clip": "b"}, ""),
        ({"transcript": None, "transcript clip": "b"}, "b"),
        ({"transcript": None}, ""),
    ],
)
def test_transcript_goes_first(raw, text):
    assert parse_pair({"vid": "v", "clip_path": "c.mp4", **raw}).text == text


def test_null_is_absent():
    raw = dict.fromkeys(["clip_path", "transcript", "size", "begin_time", "end_time", "duration"])
    assert parse_pair({"vid": "v", **raw}, clip_required=False) == Pair("v", None, "", None, None, None, None)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.mp4", "a.mp4"),
        ("../../a.mp4", "a.mp4"),
        ("C:\\clips\\a.mp4", "C:\\clips\\a.mp4"),
        ("/x/😀 é.mp4", "😀 é.mp4"),
    ],
)
def test_clip_path_gives_its_basename(path, name):
    assert parse_pair({"vid": "v", "clip_path": path}).clip_name == name


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([1], "the pair is the list [1], expected an object"),
        ("text", "the pair is the text 'text'"),
        (None, "the pair is null"),
        ({}, "'vid' is missing"),
        ({"vid": None}, "'vid' is missing"),
        ({"vid": ""}, "'vid' is empty"),
        ({"vid": 7}, "'vid' is the number 7, expected text"),
        ({"vid": "\ud83d"}, "half a surrogate pair"),
        ({"vid": "v", "clip_path": None}, "'clip_path' is missing"),
        ({"vid": "v", "clip_path": ["a"]}, "'clip_path' is the list ['a'], expected text"),
        ({"vid": "v", "clip_path": "clips/"}, "expected to end in the name of a file"),
        ({"vid": "v", "clip_path": "a/.."}, "expected to end in the name of a file"),
        ({"vid": "v", "clip_path": "a\0b"}, "expected to end in the name of a file"),
        ({"vid": "v", "clip_path": "\ud83d.mp4"}, "which no file can be named"),
        ({"vid": "v", "transcript": 3}, "'transcript' is the number 3, expected text"),
        ({"vid": "v", "transcript clip": ["a"]}, "'transcript clip' is the list ['a'], expected text"),
        ({"vid": "v", "size": 0.5}, "'size' is the number 0.5, expected a list of numbers"),
        ({"vid": "v", "size": [1, "2"]}, "'size[1]' is the text '2', expected a number"),
        ({"vid": "v", "size": [True]}, "'size[0]' is the boolean True, expected a number"),
        ({"vid": "v", "size": [math.nan]}, "'size[0]' is nan, expected a finite number"),
        ({"vid": "v", "begin_time": "1"}, "'begin_time' is the text '1', expected a number"),
        ({"vid": "v", "begin_time": -1}, "'begin_time' is -1, expected at least 0"),
        ({"vid": "v", "end_time": math.inf}, "'end_time' is inf, expected a finite number"),
        ({"vid": "v", "end_time": 10**400}, "expected a finite number"),
        ({"vid": "v", "begin_time": 5, "end_time": 5}, "'end_time' is 5 s, expected more than 'begin_time', 5 s"),
        ({"vid": "v", "end_time": 0}, "'end_time' is 0 s, expected more than 'begin_time', 0 s"),
        ({"vid": "v", "duration": True}, "'duration' is the boolean True, expected a number"),
        ({"vid": "v", "duration": -0.5}, "'duration' is -0.5, expected at least 0"),
        ({"vid": {"long": "x" * 10_000}}, "'vid' is the object"),
    ],
)
def test_wrong_types_are_input_errors(raw, words):
    if isinstance(raw, dict) and "clip_path" not in raw:
        raw = {**raw, "clip_path": "c.mp4"}
    with pytest.raises(InputError) as error:
        parse_pair(raw)
    assert words in str(error.value)
    assert len(str(error.value)) < 300


@settings(deadline=None)
@given(JSON, st.booleans())
def test_any_json_is_a_pair_or_an_input_error(raw, clip_required):
    for candidate in (raw, {"vid": "v", "clip_path": raw, "size": raw, "begin_time": raw, "transcript": raw}):
        try:
            assert isinstance(parse_pair(candidate, clip_required=clip_required), Pair)
        except InputError:
            continue


# --- size


def test_size_curve():
    assert size_curve(None) == [0.5] * 16
    assert size_curve([]) == [0.5] * 16
    assert size_curve((0.25,)) == [0.25] * 16
    assert size_curve([1, 2, 3], 5) == [1.0, 2.0, 3.0, 3.0, 3.0]
    assert size_curve(list(range(16))) == [float(value) for value in range(16)]
    assert size_curve(list(range(10)), 4) == [0.0, 3.0, 6.0, 9.0]
    assert size_curve(list(range(11)), 4) == [0.0, 3.0, 6.0, 10.0]  # 3.33 and 6.67 truncated


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=100), st.integers(1, 40))
def test_size_curve_picks_and_pads(size, n):
    curve = size_curve(size, n)
    assert len(curve) == n
    assert all(type(value) is float for value in curve)
    assert curve[0] == size[0]
    if n > 1:
        assert curve[-1] == size[-1]
    if len(size) >= n:
        np.testing.assert_array_equal(curve, np.array(size)[np.linspace(0, len(size) - 1, n, dtype=int)])
    else:
        assert curve == size + [size[-1]] * (n - len(size))
