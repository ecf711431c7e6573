"""What corpus files say of videos: the columns by name, the text as it is, and errors that say where."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.errors import UsageError
from gpupipe.jobs.annotations import annotation_files, annotations_digest, read_annotations

HEADER = "name|video|start|end|speaker|orth|translation"
ROWS = (
    ("11August_2010_Wednesday_tagesschau-1", "JETZT WETTER MORGEN", "und nun die wettervorhersage für morgen ."),
    ("05 Mai_2011_Thursday_heute-25", "ÜBERWIEGEND loc-NORD", 'im "norden", dort ist es schön 😀 .'),
)


def phoenix(rows=ROWS, end="\n"):
    lines = [HEADER, *(f"{name}|{name}/1/*.png|-1|-1|Signer08|{orth}|{said}" for name, orth, said in rows)]
    return end.join(lines) + end


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, content, splits=("all",)):
    write(path, content)
    return read_annotations(dict.fromkeys(splits, path))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corpus.csv"


# --- which files


def names(files, root):
    return {split: path.relative_to(root).as_posix() for split, path in files.items()}


@pytest.mark.parametrize("below", ["", "features", "features/fullFrame-210x260px"])
@pytest.mark.parametrize("name", ["PHOENIX-2014-T.{}.corpus.csv", "{}.corpus.csv"])
def test_files_of_a_dataset(tmp_path, below, name):
    (tmp_path / "features/fullFrame-210x260px").mkdir(parents=True)
    for split in ("train", "test", "extra"):
        write(tmp_path / "annotations/manual" / name.format(split), phoenix())
    write(tmp_path / "annotations/manual" / "PHOENIX-2014-T.train-complex-annotation.corpus.csv", "")
    found = annotation_files(tmp_path / below, "", ("train", "dev", "test"))
    assert names(found, tmp_path) == {
        split: f"annotations/manual/{name.format(split)}" for split in ("train", "test")
    }  # fmt: skip


def test_files_of_a_dataset_given_as_dot(tmp_path, monkeypatch):
    write(tmp_path / "annotations/manual/dev.corpus.csv", phoenix())
    (tmp_path / "features").mkdir()
    monkeypatch.chdir(tmp_path / "features")
    assert annotation_files(type(tmp_path)("."), "", ["dev"])["dev"].samefile(
        tmp_path / "annotations/manual/dev.corpus.csv"
    )


def test_phoenix_2014_t_goes_before_phoenix_2014(tmp_path):
    for name in ("PHOENIX-2014-T.dev.corpus.csv", "dev.corpus.csv"):
        write(tmp_path / "annotations/manual" / name, phoenix())
    found = annotation_files(tmp_path, "", ["dev"])
    assert names(found, tmp_path) == {"dev": "annotations/manual/PHOENIX-2014-T.dev.corpus.csv"}


def test_dataset_without_annotations(tmp_path):
    assert annotation_files(tmp_path, "", ["train"]) == {}
    assert annotation_files(tmp_path / "one.mp4", "", ["all"]) == {}
    assert read_annotations({}) == {}
    assert annotations_digest({}) == ""


def test_given_file_is_for_every_split(tmp_path, path):
    write(tmp_path / "annotations/manual/dev.corpus.csv", phoenix())
    write(path, phoenix(ROWS[:1]))
    files = annotation_files(tmp_path, str(path), ("dev", "test"))
    assert files == {"dev": path, "test": path}
    name, orth, said = ROWS[0]
    assert read_annotations(files) == {("dev", name): (orth, said), ("test", name): (orth, said)}


def test_given_folder(tmp_path):
    write(tmp_path / "csv" / "dev.corpus.csv", phoenix())
    assert names(annotation_files(tmp_path, str(tmp_path / "csv"), ("train", "dev")), tmp_path) == {
        "dev": "csv/dev.corpus.csv"
    }


def test_given_and_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"none\.csv: no such file or folder; expected annotations"):
        annotation_files(tmp_path, str(tmp_path / "none.csv"), ["train"])
    with pytest.raises(UsageError, match=r"PHOENIX-2014-T\.{train,dev}\.corpus\.csv or {train,dev}\.corpus\.csv"):
        annotation_files(tmp_path, str(tmp_path), ["train", "dev"])


# --- what they say


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_phoenix_2014_t(path, end, mark):
    assert read(path, mark + phoenix(end=end), ["dev"]) == {("dev", name): (orth, said) for name, orth, said in ROWS}


def test_phoenix_2014_has_no_translation(path):
    text = "id|folder|signer|annotation\n01April-0|01April-0/1/*.png|Signer04|ABEND WETTER\n"
    assert read(path, text) == {("all", "01April-0"): ("ABEND WETTER", None)}


def test_each_split_has_its_own_file(tmp_path):
    files = {
        "train": write(tmp_path / "a.csv", "name|orth|translation\nv|A|a\n"),
        "dev": write(tmp_path / "b.csv", "name|orth|translation\nv|B|b\nw|C|c\n"),
    }
    assert read_annotations(files) == {("train", "v"): ("A", "a"), ("dev", "v"): ("B", "b"), ("dev", "w"): ("C", "c")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("translation|other|name\nt|x|v\n", {"v": (None, "t")}),
        ("Name | ORTH|Translation\n v |o| t \n", {"v": ("o", " t ")}),
        ("id|name|annotation|orth|translation\nx|v|y|o|t\n", {"v": ("o", "t")}),
        ("name|orth|translation\n\nv|o|t\n  \n", {"v": ("o", "t")}),
        ("name|orth|translation\nv|o|t", {"v": ("o", "t")}),
        ("name|orth|translation\nv||\n", {"v": ("", "")}),
        ("name|orth|translation\n", {}),
        ('name|orth|translation\nv|"o|t\nw|o|"t"\n', {"v": ('"o', "t"), "w": ("o", '"t"')}),
        ("name|orth|translation\nv|a, b|c\td\n", {"v": ("a, b", "c\td")}),
        ("name\torth\ttranslation\nv\to, p|q\tt\n", {"v": ("o, p|q", "t")}),
        ('name,orth,translation\nv,"o, p","he said ""t""\nand went"\nw,o,t\n',
         {"v": ("o, p", 'he said "t"\nand went'), "w": ("o", "t")}),
        ('name,orth,translation\r\nv,"a\r\nb",t\r\n', {"v": ("a\r\nb", "t")}),
        ("name|orth|translation\nv|o\u2028p|t\x85\n", {"v": ("o\u2028p", "t\x85")}),
        ("name|orth|translation\nv|o|t\nv|o|t\n", {"v": ("o", "t")}),
    ],
)  # fmt: skip
def test_columns_and_texts(path, text, expected):
    assert read(path, text) == {("all", video): said for video, said in expected.items()}


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("", 1, "names the columns (none); expected name, orth and translation"),
        ("video|orth|translation\nv|o|t\n", 1, "names the columns video, orth, translation; expected name"),
        ("name|start\nv|0\n", 1, "names the columns name, start; expected name, orth"),
        ("name;orth;translation\nv;o;t\n", 1, "with | between them"),
        ("name|orth|translation\nv|o|t\nw|o|t|x\n", 3, "has 4 fields, expected 3"),
        ("name|orth|translation\n\nv|o\n", 3, "has 2 fields, expected 3"),
        ("name|orth|translation\n |o|t\n", 2, "names no video; expected one in the column name"),
        ("name|orth|translation\nv|o|t\nw|o|t\nv|o|u\n", 4, "says of v something else than line 2"),
        ('name,orth,translation\nv,"o" p,t\n', 2, "is no CSV"),
        ('name,orth,translation\nv,o,"t\n', 2, "is no CSV"),
        (b"name|orth|translation\nv|\xc3\xbc|t\nw|\xfc|t\n", 3, "expected UTF-8, found the byte 0xfc"),
        (b"name|orth|translation\nv|o|\xc3", 2, "expected UTF-8, found the byte 0xc3"),
        ("name|orth|translation\nv|o|t\n".encode("utf-16"), 1, "expected UTF-8, found the byte 0xff"),
    ],
)
def test_errors_say_where(path, content, line, words):
    with pytest.raises(UsageError) as error:
        read(path, content)
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert words in str(error.value)


def test_file_that_went_away(path):
    for act in (read_annotations, annotations_digest):
        with pytest.raises(UsageError, match=r"corpus\.csv: cannot be read \(No such file"):
            act({"dev": path})


def test_name_that_no_file_has(tmp_path):
    with pytest.raises(UsageError, match=r"x: (cannot be read|no such file)"):
        annotation_files(tmp_path, "x" * 5000, ["dev"])


@pytest.fixture(scope="module")
def anything(tmp_path_factory):
    return tmp_path_factory.mktemp("annotations") / "anything.csv"


PIECES = ["name", "id", "orth", "|", "|", ",", "\t", "\n", "\n", "\r", '"', "v", " ", "\0", "é"]
LETTERS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@settings(max_examples=300)
@given(
    head=st.sampled_from(["", "name|orth\n", "name,orth\n", "id\tannotation\n", "\ufeff"]), rest=LETTERS | st.binary()
)
def test_anything_is_read_or_is_an_error_that_names_the_file(anything, head, rest):
    content = head.encode() + (rest if isinstance(rest, bytes) else rest.encode())
    try:
        found = read(anything, content)
    except UsageError as error:
        assert str(error).startswith(f"{anything}, line ")
    else:
        assert all(split == "all" and video == video.strip() != "" for split, video in found)
        assert len(found) <= content.count(b"\n") + content.count(b"\r")


# --- the digest


def test_digest_is_of_what_is_read(tmp_path):
    a, b = write(tmp_path / "a.csv", phoenix()), write(tmp_path / "b.csv", phoenix(ROWS[:1]))
    first = annotations_digest({"train": a, "dev": b})
    assert len(first) == 32
    moved = write(tmp_path / "elsewhere" / "c.csv", phoenix())
    assert annotations_digest({"train": moved, "dev": b}) == first
    others = [{"train": b, "dev": a}, {"train": a}, {"train": a, "test": b}, {"train": a, "dev": a}]
    assert first not in [annotations_digest(files) for files in others]
    write(b, phoenix(ROWS[1:]))
    assert annotations_digest({"train": a, "dev": b}) != first
