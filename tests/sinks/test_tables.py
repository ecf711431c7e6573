"""Row files, tar shards and tables as other software reads them."""

import io
import tarfile
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpupipe.errors import OutputError
from gpupipe.memory import HostSlots, RowSpec
from gpupipe.sinks.base import Place, Sample
from gpupipe.sinks.files import Checksum, publish, write_at
from gpupipe.sinks.npy import NpySink, npy_header
from gpupipe.sinks.parquet import storable, write_table
from gpupipe.sinks.webdataset import WebDatasetSink


@given(st.lists(st.integers(0, 9), max_size=5), st.sampled_from(["|u1", "<i8", "|b1", "<f4"]))
def test_npy_headers_are_read_by_numpy_and_aligned(shape, dtype):
    header = npy_header(shape, dtype)
    assert len(header) % 64 == 0
    count = int(np.prod(shape, dtype=int))
    data = header + bytes(count * np.dtype(dtype).itemsize)
    array = np.load(io.BytesIO(data), allow_pickle=False)
    assert array.shape == tuple(shape)
    assert array.dtype == np.dtype(dtype)


def place(tmp_path, count, shard_size):
    for name in ("out", "out/.gpupipe", "staging"):
        (tmp_path / name).mkdir()
    return Place(tmp_path / "out", tmp_path / "out/.gpupipe", tmp_path / "staging", count, shard_size)


def test_a_row_of_another_shape_is_refused(tmp_path):
    sink = NpySink(place(tmp_path, 4, 2), [RowSpec("x", (3,), "|u1")])
    sample = Sample("a", {"x": np.zeros(4, np.uint8)}, dict)
    with pytest.raises(ValueError, match="declared"):
        sink.commit(0, sample, Checksum())


def test_a_shard_has_its_name_only_when_published(tmp_path):
    where = place(tmp_path, 3, 2)
    sink = NpySink(where, [RowSpec("x", (3,), "|u1")])
    checksum = Checksum()
    sink.commit(1, Sample("a", {"x": np.array([1, 2, 3], np.uint8)}, dict), checksum)
    assert checksum.nbytes == 3
    assert not (where.out / "x-00000.npy").exists()
    assert not sink.published(0)
    sink.publish(0, np.array([False, True]))
    np.testing.assert_array_equal(np.load(where.out / "x-00000.npy"), [[0, 0, 0], [1, 2, 3]])
    assert sink.published(0)
    sink.reopen(0)
    assert not (where.out / "x-00000.npy").exists()
    sink.void(1, None)
    sink.publish(0, np.array([False, False]))
    assert not np.load(where.out / "x-00000.npy").any()


def test_tars_are_read_by_webdataset_and_by_tar_and_are_constant(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

    where = place(tmp_path, 3, 2)
    sink = WebDatasetSink(where)
    for ordinal in (2, 0, 1):
        array = np.full((4, 5), ordinal, np.uint8)
        pieces = {"npy": [npy_header(array.shape, "|u1"), array], "json": [b'{"n": %d}' % ordinal]}
        sink.commit(ordinal, Sample(f"{ordinal:06d}", {}, lambda pieces=pieces: pieces), Checksum())
    sink.publish(0, np.array([True, True]))
    sink.publish(1, np.array([True]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        urls = [str(where.out / f"{k:05d}.tar") for k in range(2)]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode())
    assert [sample["__key__"] for sample in samples] == ["000000", "000001", "000002"]
    assert [sample["json"]["n"] for sample in samples] == [0, 1, 2]
    np.testing.assert_array_equal(samples[2]["npy"], np.full((4, 5), 2))
    with tarfile.open(urls[0]) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}
    assert not list((where.bookkeeping / "blobs").iterdir())


def test_a_failed_item_is_no_member_of_its_tar(tmp_path):
    where = place(tmp_path, 2, 2)
    sink = WebDatasetSink(where)
    sink.commit(1, Sample("000001", {}, lambda: {"bin": [b"x"]}), Checksum())
    sink.void(0, "000000")
    sink.publish(0, np.array([False, True]))
    with tarfile.open(where.out / "00000.tar") as tar:
        assert tar.getnames() == ["000001.bin"]


def test_a_tar_that_is_reopened_composes_to_the_same_bytes(tmp_path):
    where = place(tmp_path, 4, 4)
    sink = WebDatasetSink(where)
    for ordinal in (0, 1, 3):
        data = bytes([ordinal]) * (700 * ordinal)
        pieces = {"bin": [data], "json": [b"{}"]}
        sink.commit(ordinal, Sample(f"{ordinal:06d}", {}, lambda pieces=pieces: pieces), Checksum())
    done = np.array([True, True, False, True])
    sink.publish(0, done)
    before = (where.out / "00000.tar").read_bytes()
    sink.reopen(0)
    assert not (where.out / "00000.tar").exists()
    assert not sink.published(0)
    sink.publish(0, done)
    assert (where.out / "00000.tar").read_bytes() == before


def test_tables_hold_what_was_streamed(tmp_path):
    rows = [{"n": n, "name": f"é{n}", "at": None if n % 2 else [0.5, n]} for n in range(25_000)]
    write_table(tmp_path / "t.parquet", {"n": "int64", "name": "string", "at": "list<double>"}, rows, tmp_path)
    assert pq.read_table(tmp_path / "t.parquet").to_pylist() == rows
    write_table(tmp_path / "u.parquet", {"n": "int64", "name": "string", "at": "list<double>"}, iter(rows), tmp_path)
    assert (tmp_path / "t.parquet").read_bytes() == (tmp_path / "u.parquet").read_bytes()


def test_columns_of_every_type_may_lack_values(tmp_path):
    types = ["bool", "int32", "int64", "double", "string", "list<double>"]
    values = [True, -(2**31), 2**62, float("nan"), "", []]
    rows = [dict(zip(types, values, strict=True)), dict.fromkeys(types), dict.fromkeys(types)]
    rows[2]["double"] = 1 / 3
    write_table(tmp_path / "t.parquet", {kind: kind for kind in types}, rows, tmp_path)
    table = pq.read_table(tmp_path / "t.parquet")
    assert [str(field.type) for field in table.schema][:-1] == types[:-1]
    found = table.to_pylist()
    assert np.isnan(found[0].pop("double")) and np.isnan(rows[0].pop("double"))  # None and NaN are two things
    assert found == rows


def test_publishing_is_whole_or_not_at_all(tmp_path):
    publish(tmp_path / "a", [b"old"])

    def breaks():
        yield b"ne"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish(tmp_path / "a", breaks())
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
    with pytest.raises(OutputError, match="cannot write"):
        publish(tmp_path / "no" / "a", [b"x"])


def test_writing_many_pieces_at_an_offset(tmp_path):
    pieces = [bytes([n % 251]) * (n % 7) for n in range(3000)]
    with (tmp_path / "f").open("w+b") as file:
        written = write_at(file.fileno(), pieces, 10)
    assert (tmp_path / "f").read_bytes() == bytes(10) + b"".join(pieces)
    assert written == sum(map(len, pieces))


def test_slots_are_page_aligned_and_used_again():
    slots = HostSlots([RowSpec("x", (3, 5), "<i8"), RowSpec("y", (), "|b1")], count=1)
    slot = slots.acquire(4)
    assert slot.rows["x"].ctypes.data % 4096 == 0
    assert slot.rows["y"].shape == ()
    memory = slot.rows["x"].ctypes.data
    slots.release(slot)
    assert slots.acquire(5).rows["x"].ctypes.data == memory
    slots.give_up()
    assert slots.acquire(6) is None


def test_a_table_is_written_where_names_are_not_utf8(tmp_path):
    folder = tmp_path / "o\udcff"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"this file system takes no such names ({error})")
    write_table(folder / "index.parquet", {"id": "string"}, [{"id": storable("v\udcef é")}], folder)
    with (folder / "index.parquet").open("rb") as file:
        assert pq.read_table(file).to_pylist() == [{"id": "v\\udcef é"}]
    assert [path.name for path in folder.iterdir()] == ["index.parquet"]
