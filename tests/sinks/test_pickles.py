"""Pickles: the same bytes always, read by plain pickle; and a reader that runs nothing."""

import copy
import copyreg
import io
import json
import os
import pickle
import pickletools
import resource
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpupipe.errors import InputError
from gpupipe.sinks.pickles import Growing, array_pieces, body, dumps, load, loads, pieces

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "pickles.json").read_text())

TOKENS = np.zeros(77, dtype=np.int64)
TOKENS[:4] = [49406, 320, 1125, 49407]
PLAIN = {
    "a": [1, -1, 255, 256, 65536, 2**31, -(2**31) - 1, -(2**63), 2**64, -(2**2040), 10**700],
    "b": (1.5, float("inf"), True, None, "é\ud800", "x" * 300, b"\x00", b"y" * 300),
    "s": [np.float32(0.1), np.int64(-7), np.bool_(True)],
    (): {},
}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**2100), 2**2100),
    st.floats(),
    st.text(st.characters(codec=None)),
    st.binary(),
)
dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    hnp.unicode_string_dtypes(endianness="?", min_len=1, max_len=4),
    hnp.byte_string_dtypes(min_len=1, max_len=4),
    hnp.datetime64_dtypes(endianness="?"),
    hnp.timedelta64_dtypes(endianness="?"),
)
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
values = st.recursive(
    st.one_of(scalars, arrays),
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(st.one_of(st.text(), st.integers()), inner)
    ),
    max_leaves=12,
)


def assert_same(got, want):
    """Equal in type and value; NaN equals NaN, -0.0 is not 0.0."""
    assert type(got) is type(want)
    if isinstance(want, np.ndarray):
        assert got.shape == want.shape
        assert got.dtype == want.dtype.newbyteorder("=")  # NumPy makes the order native when it reads
        assert got.tobytes() == want.astype(got.dtype).tobytes()
        assert got.flags.writeable
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            assert_same(got[key], want[key])
    elif isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for left, right in zip(got, want, strict=True):
            assert_same(left, right)
    else:
        assert repr(got) == repr(want)


# --- writing


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("frames header", (16, 160, 256, 3), "u1"),
        ("5 GiB header", (5 << 30,), np.uint8),
        ("scalar array header", (), np.float64),
    ],
)
def test_array_pieces_are_golden(name, shape, dtype):
    assert [piece.hex() for piece in array_pieces(shape, dtype)] == GOLDEN["pieces"][name]


def test_dumps_is_golden():
    assert dumps({"tokens": TOKENS}).hex() == GOLDEN["tokens"]
    assert dumps(PLAIN).hex() == GOLDEN["plain"]


def test_goldens_load_with_plain_pickle():
    assert_same(pickle.loads(bytes.fromhex(GOLDEN["tokens"])), {"tokens": TOKENS})
    assert_same(pickle.loads(bytes.fromhex(GOLDEN["plain"])), PLAIN)


def test_frames_are_header_raw_trailer():
    frames = np.random.default_rng(0).integers(0, 256, (16, 160, 256, 3), dtype=np.uint8)
    header, trailer = array_pieces(frames.shape, frames.dtype)
    data = header + frames.tobytes() + trailer
    assert data == dumps(frames)
    for read in (pickle.loads, loads):
        got = read(data)
        assert_same(got, frames)
        assert got.flags.c_contiguous
        got += 1  # an array like any other


@settings(max_examples=300, deadline=None)
@given(values)
def test_round_trip_through_plain_pickle_and_ours(value):
    data = dumps(value)
    assert_same(pickle.loads(data), value)
    assert_same(loads(data), value)


@settings(max_examples=100, deadline=None)
@given(values)
def test_bytes_do_not_know_object_identity(value):
    assert dumps([value, value]) == dumps([value, copy.deepcopy(value)])


def test_layout_in_memory_does_not_matter():
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    assert dumps(np.asfortranarray(array)) == dumps(array)
    assert dumps(array[:, ::-1][:, ::-1]) == dumps(array)


def test_protocol_4_without_memo_or_frames():
    names = {opcode.name for opcode, _, _ in pickletools.genops(dumps([PLAIN, TOKENS]))}
    assert max(opcode.proto for opcode, _, _ in pickletools.genops(dumps([PLAIN, TOKENS]))) == 4
    assert not names & {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "FRAME"}


def test_long_containers_come_in_batches():
    value = {"list": list(range(2500)), "dict": {str(number): number for number in range(2000)}}
    marks = sum(opcode.name == "MARK" for opcode, _, _ in pickletools.genops(dumps(value)))
    assert marks == 1 + 3 + 2
    assert_same(loads(dumps(value)), value)


def test_large_arrays_are_not_copied():
    array = np.arange(10_000, dtype=np.int64)
    views = [piece for piece in pieces({"a": array, "b": 1}) if isinstance(piece, memoryview)]
    assert len(views) == 1
    assert np.shares_memory(np.frombuffer(views[0], dtype=np.int64), array)


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2000, 2001])
def test_growing_containers_are_those_written_whole(count):
    written: list[bytes] = []
    growing = Growing(written.append, list)
    for number in range(count):
        growing.element()
        written.append(body({"n": number}))
    growing.close()
    assert b"".join(written) == body([{"n": number} for number in range(count)])
    written.clear()
    growing = Growing(written.append, dict)
    for number in range(count):
        growing.element()
        written.append(body(str(number)) + body(number))
    growing.close()
    assert b"".join(written) == body({str(number): number for number in range(count)})


class Name(str):
    pass


@pytest.mark.parametrize(
    "value",
    [
        Name("x"),
        OrderedDict(a=1),
        {1, 2},
        object(),
        1j,
        np.str_("a"),
        np.bytes_(b"a"),
        np.longdouble(1),
        np.ma.masked_array([1]),
        np.array([None]),
        np.zeros(1, dtype="i4,f4"),
        np.zeros(1, dtype=np.longdouble),
        np.zeros(1, dtype="V3"),
    ],
    ids=repr,
)
def test_what_would_not_come_back_is_refused(value):
    with pytest.raises(TypeError, match="pickle"):
        dumps([value])


def test_cycles_and_depth():
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="contains itself"):
        dumps(loop)
    deep: list = []
    for _ in range(199):
        deep = [deep]
    assert loads(dumps(deep)) == deep
    with pytest.raises(ValueError, match="200 deep"):
        dumps([deep])
    with pytest.raises(ValueError, match="negative"):
        array_pieces((-1, 2), "u1")


# --- reading what others wrote


@pytest.mark.parametrize("name", GOLDEN["foreign"])
def test_reads_numpys_own_pickles(name):
    """Made by NumPy 1.26 and 2: the modules' old and new names, protocols 0 to 5."""
    got = loads(bytes.fromhex(GOLDEN["foreign"][name]))
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    for key in ("c", "f"):
        np.testing.assert_array_equal(got[key], array)
        assert type(got[key]) is np.ndarray
        assert got[key].dtype == np.int32
    assert got["f"].flags.f_contiguous
    assert got["flag"].tolist() == [True, False]
    assert got["text"].tolist() == ["ab", "c"]
    assert got["when"].dtype == np.dtype("M8[s]")
    assert got["when"][0] == np.datetime64("2024-01-02", "s")
    assert np.isnat(got["when"][1])
    assert type(got["scalar"]) is np.float32
    assert got["scalar"] == 1.5
    assert got["empty"].shape == (0, 3)
    assert got["shared"][0] is got["shared"][1] is got["c"]
    np.testing.assert_array_equal(got["deep"][0]["k"][0], array[0])
    assert got["plain"] == [None, True, -5, 2**70, 1.5, "é", b"\x00\xff", b"", (), {1, 2}]


@settings(max_examples=200, deadline=None)
@given(arrays, st.integers(0, 5), st.sampled_from(["C", "F"]))
def test_reads_what_this_numpy_writes(array, protocol, order):
    data = pickle.dumps([np.asarray(array, order=order), array.ravel()[:1]], protocol)
    for got, want in zip(loads(data), pickle.loads(data), strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        assert got.tobytes() == want.tobytes()


def test_reads_transposed_arrays_of_protocol_5():
    array = np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2)
    np.testing.assert_array_equal(loads(pickle.dumps(array, 5)), array)


def test_shared_and_cyclic_containers_keep_their_shape():
    array = np.arange(3)
    node: dict = {"array": array, "pair": (array, [array])}
    node["self"] = node
    got = loads(pickle.dumps(node))
    assert got["self"] is got
    assert got["pair"][0] is got["array"] is got["pair"][1][0]


def test_two_pickles_in_one_file(tmp_path):
    with (tmp_path / "two.pkl").open("wb") as file:
        file.write(dumps([1]) + dumps(TOKENS))
    with (tmp_path / "two.pkl").open("rb") as file:
        assert load(file) == [1]
        assert_same(load(file), TOKENS)
        with pytest.raises(InputError, match=r"two\.pkl: the pickle is damaged or cut off \(EOFError"):
            load(file)


# --- reading what is not to be trusted


class Reduce:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


def shout(*_):
    pytest.fail("the pickle ran something")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", "posix.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"c__builtin__\ngetattr\n.", "__builtin__.getattr"),
        (b"(ios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\no.", "os.system"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", "numpy.ndarray.dumps"),
        (b"\x80\x04\x8c\x05numpy\x8c\x10testing.os.popen\x93.", "numpy.testing.os.popen"),
        (b"ccopy_reg\n_reconstructor\n.", "copy_reg._reconstructor"),
        (pickle.dumps(OrderedDict(a=1)), "collections.OrderedDict"),
        (pickle.dumps([{"a": (Reduce(shout, ()),)}]), "shout"),
        (pickle.dumps(Reduce(np.dtype, (Reduce(shout, ()),))), "shout"),
        (pickle.dumps(np.ma.masked_array([1])), "numpy.ma"),
        (pickle.dumps(Path("x")), "pathlib"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_globals_are_refused_by_name(data, named):
    with pytest.raises(InputError, match=named.replace(".", r"\.")) as error:
        loads(data)
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(np.array([None, {}])),
        pickle.dumps(np.zeros(2, dtype="i4,f4")),
        pickle.dumps(np.zeros(2, dtype=[("a", object)])),
        pickle.dumps(np.zeros(2, dtype="V8")),
        pickle.dumps(np.dtype("O")),
        # u8 whose forged state marks the bytes as object pointers (flags 63), then raw pointers
        pickle.dumps(Reduce(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 63))),
        pickle.dumps(Reduce(np.dtype, ("u1,O",))),
        pickle.dumps(Reduce(np.dtype, (["O"],))),
        pickle.dumps(
            Reduce(np.dtype, ("M8", False, True), (4, "<", None, None, None, -1, -1, 0, (0, (b"s],O[", 1, 1, 1))))
        ),
        pickle.dumps(Reduce(np.dtype, ("S4", False, True), (3, "|", None, ("a",), {"a": (1, 0)}, 4, 1, 0))),
        pickle.dumps(Reduce(np.dtype, ("S4", False, True), (3, "|", ("u1", (4,)), None, None, 4, 1, 0))),
        pickle.dumps(Reduce(np.dtype, ("u1", False, True), (3, "|", None, None, None, 1 << 40, -1, 0))),
    ],
)
def test_objects_fields_and_forged_dtypes_are_refused(data):
    with pytest.raises(InputError, match="dtype"):
        loads(data)


def test_a_forged_flag_does_not_make_pointers_of_bytes():
    raw = np.array([1, 2], dtype=np.uint64)
    dtype = Reduce(np.dtype, ("u8", False, True), (3, "<", None, None, None, -1, -1, 63))
    got = loads(pickle.dumps(Reduce(np.ndarray, ((0,), "B"), (1, (2,), dtype, False, raw.tobytes()))))
    assert not got.dtype.hasobject
    np.testing.assert_array_equal(got, raw)


@pytest.mark.parametrize(
    "state",
    [
        (1, (3,), np.dtype("u1"), False, b"12"),
        (1, (-1,), np.dtype("u1"), False, b""),
        (1, (1 << 62, 4), np.dtype("u1"), False, b""),
        (1, (2,) * 40, np.dtype("u1"), False, b""),
        (1, 2, np.dtype("u1"), False, b"12"),
        (1, (2,), np.dtype("u1"), False, [1, 2]),
        (1, (2,), "u1", False, b"12"),
        (1, (2,), np.dtype("u1")),
        {"shape": (2,)},
    ],
)
def test_forged_arrays_are_refused(state):
    with pytest.raises(InputError):
        loads(pickle.dumps(Reduce(np.ndarray, ((0,), "B"), state)))


def test_a_shape_alone_allocates_nothing():
    assert loads(pickle.dumps(Reduce(np.ndarray, ((1 << 45,), "u1")))).size == 0


@pytest.mark.parametrize(
    "data",
    [
        b"Ppersistent\n.",
        b"\x80\x02X\x01\x00\x00\x00aQ.",
        b"\x80\x02\x82\x01.",  # extension code, not registered
        b"\x80\x05\x97.",  # out-of-band buffer
        b"cnumpy\nndarray\n.",  # the class itself
        b"]cnumpy\ndtype\na.",
        b"cnumpy\nndarray\n}\x8c\x01ak\x01sb.",  # a state for the name
        b"\x80\x04cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"}cnumpy\nndarray\nNs.",  # as a key
        b"\x80\x04\x8fcnumpy\nndarray\n\x85(K\x01t\x90.",
        b"cnumpy\nint8\nM\xff\xff\x85R.",
        b"cnumpy\nint8\n(S'1'\ntR.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
        b"c__builtin__\nset\n(X\x02\x00\x00\x00abtR.",
        b"cbuiltins\nbytes\n(I1000\ntR.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a length of 8 EiB
        b"\x80\xff.",
        b"garbage",
        b"",
        b"not enough on the stack R.",
    ],
)
def test_every_other_way_out_is_closed(data):
    with pytest.raises(InputError):
        loads(data)


def test_registered_extension_codes_are_refused():
    copyreg.add_extension("os", "system", 77)
    try:
        with pytest.raises(InputError, match=r"os\.system"):
            loads(b"\x80\x02\x82\x4d.")
    finally:
        copyreg.remove_extension("os", "system", 77)


def test_deep_nesting_is_an_input_error():
    with pytest.raises(InputError, match="RecursionError"):
        loads(b"]" * 100_000 + b"a" * 99_999 + b".")


def test_self_containing_tuple_is_an_input_error():
    # t = ([t],)
    with pytest.raises(InputError, match="contains itself"):
        loads(b"\x80\x02]q\x00\x85q\x01h\x00h\x01a0.")


def test_read_errors_are_the_files_own():
    class Broken(io.BytesIO):
        def readinto(self, _):
            raise OSError(5, "Input/output error")

        read = readline = readinto

    with pytest.raises(OSError, match="Input/output"):
        load(Broken())


@pytest.mark.parametrize("protocol", ["ours", 0, 2, 4, 5])
def test_every_truncation_is_an_input_error(protocol):
    value = {"tokens": TOKENS[:9], "list": [1, 2.5, "text", None, b"bytes", (1, 2)]}
    data = dumps(value) if protocol == "ours" else pickle.dumps(value, protocol)
    for length in range(len(data)):
        with pytest.raises(InputError, match="pickle"):
            loads(data[:length])


@contextmanager
def memory_limit(nbytes):
    """Old Pythons believe a forged memo index; the fuzz below would take the machine's memory."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + nbytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damage_is_an_input_error_or_a_value(data):
    source = bytearray(data.draw(st.sampled_from([dumps([PLAIN, TOKENS[:3]]), pickle.dumps([PLAIN, TOKENS[:3]])])))
    for _ in range(data.draw(st.integers(1, 4))):
        source[data.draw(st.integers(0, len(source) - 1))] = data.draw(st.integers(0, 255))
    with memory_limit(1 << 30):
        try:
            loads(bytes(source))
        except InputError:
            return
