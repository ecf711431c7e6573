"""From a dataset's names to its clips: every layout, their order, what is passed over, and what is refused."""

import os
import posixpath
import re
import tracemalloc
from pathlib import Path

import pytest

from gpupipe.errors import UsageError
from gpupipe.jobs.keypoint_sources import SourceClip, clips

PHOENIX = "features/fullFrame-210x260px"


@pytest.fixture
def make(tmp_path):
    """Makes empty files, ``/`` at the end makes folders; returns the dataset."""

    def made(*paths, root="data"):
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        for path in paths:
            assert not path.startswith("/"), "it would be made outside of the dataset"
            target = folder / path
            (target if path.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
            if not path.endswith("/"):
                target.touch()
        return folder

    return made


def found(dataset, splits=None, max_videos=None):
    return list(clips(dataset, splits, max_videos))


def paths(dataset, splits=None, max_videos=None):
    """``split:video`` to the paths of its frames, or of its file; in order."""
    return {
        f"{clip.split}:{clip.video}": [clip.path]
        if clip.frames is None
        else [clip.frame_path(place) for place in range(len(clip.frames))]
        for clip in clips(dataset, splits, max_videos)
    }


def refused(dataset, splits=None):
    with pytest.raises(UsageError) as error:
        found(dataset, splits)
    return str(error.value)


# --- layouts of pictures


@pytest.mark.parametrize("base", [PHOENIX, "", "some/where"])
def test_splits_of_folders(make, base):
    names = ("train/b/2.png", "train/b/10.png", "train/a/x.png", "dev/a/1.png")
    data = make(*(posixpath.join(base, name) for name in names))
    dataset = data / ("" if base == PHOENIX else base)
    prefix = f"{PHOENIX}/" if base == PHOENIX else ""
    assert found(dataset) == [
        SourceClip("train", "a", f"{prefix}train/a", ("x.png",)),
        SourceClip("train", "b", f"{prefix}train/b", ("10.png", "2.png")),
        SourceClip("dev", "a", f"{prefix}dev/a", ("1.png",)),
    ]
    assert clips(dataset, None, None).pictures


@pytest.mark.parametrize(
    ("given", "prefix"), [("", f"{PHOENIX}/"), ("features", "fullFrame-210x260px/"), (PHOENIX, "")]
)
def test_phoenix_from_any_of_its_folders(make, given, prefix):
    data = make(
        f"{PHOENIX}/test/11August-1/images0001.png",
        f"{PHOENIX}/test/11August-1/images0002.png",
        "features/trackedRightHand-92x132px/test/11August-1/images0001.png",
        "annotations/manual/PHOENIX-2014-T.test.corpus.csv",
        "evaluation/sheet.png",
    )
    source = clips(data / given, None, None)
    assert source.root == data / given
    assert [clip.frame_path(1) for clip in source] == [f"{prefix}test/11August-1/images0002.png"]
    assert source.left_out == ()


@pytest.mark.parametrize("split", ["train/", ""])
def test_phoenix_2014_has_a_folder_more(make, split):
    data = make(f"{split}vid-0/1/a.png", f"{split}vid-0/1/b.png", f"{split}vid-1/1/a.png", f"{split}vid-2/")
    source = clips(data, None, None)
    name = split.rstrip("/") or "all"
    assert list(source) == [
        SourceClip(name, "vid-0", f"{split}vid-0/1", ("a.png", "b.png")),
        SourceClip(name, "vid-1", f"{split}vid-1/1", ("a.png",)),
    ]
    assert source.empty == [f"{split}vid-2"]


def test_the_folder_more_may_be_in_some_videos_only(make):
    assert paths(make("a/1/x.png", "b/x.png", "b/masks/x.png")) == {"all:a": ["a/1/x.png"], "all:b": ["b/x.png"]}
    assert paths(make("train/a/1/x.png", "train/b/x.png", root="split")) == {
        "train:a": ["train/a/1/x.png"],
        "train:b": ["train/b/x.png"],
    }


def test_a_video_called_1_in_a_split(make):
    data = make("one/1/x.png", "two/1/x.png", "two/2/x.png")
    assert paths(data) == {"one:1": ["one/1/x.png"], "two:1": ["two/1/x.png"], "two:2": ["two/2/x.png"]}


def test_folders_without_splits(make):
    data = make("b/2.jpg", "a/1.JPG", "a/0.jpeg", "notes/read.me")
    source = clips(data, None, None)
    assert source.splits == ("all",)
    assert list(source) == [
        SourceClip("all", "a", "a", ("0.jpeg", "1.JPG")),
        SourceClip("all", "b", "b", ("2.jpg",)),
    ]
    assert source.empty == ["notes"]


def test_one_folder(make):
    data = make("b.png", "a.bmp", "read.me")
    assert found(data) == [SourceClip("all", "data", "", ("a.bmp", "b.png"))]
    assert found(data)[0].frame_path(0) == "a.bmp"
    assert paths(make(f"{PHOENIX}/a.png", root="other")) == {"all:fullFrame-210x260px": [f"{PHOENIX}/a.png"]}


def test_one_folder_by_any_name(make, monkeypatch):
    data = make("clip/a.png", "clip/notes/read.me")
    monkeypatch.chdir(data / "clip")
    assert [clip.video for given in (".", "notes/..", "../clip/") for clip in found(Path(given))] == ["clip"] * 3
    (data.parent / "link").symlink_to(data / "clip")
    assert found(data.parent / "link")[0].video == "link"


def test_a_split_may_be_one_folder_of_pictures(make):
    data = make("train/a.png", "train/b.png", "dev/v/a.png")
    assert paths(data) == {"train:train": ["train/a.png", "train/b.png"], "dev:v": ["dev/v/a.png"]}
    data = make("mine/a.png", "yours/b.png", root="unsplit")
    assert paths(data) == {"all:mine": ["mine/a.png"], "all:yours": ["yours/b.png"]}
    assert paths(data, ["yours"]) == {"yours:yours": ["yours/b.png"]}  # asked for: then it is a split


SUFFIXES = ("png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff")


def test_pictures_by_suffix(make):
    good = [f"{case(suffix)}.{case(suffix)}" for suffix in SUFFIXES for case in (str.lower, str.upper, str.title)]
    data = make(
        *(f"v/{name}" for name in (*good, ".hidden.png", "png", ".png", "a.png.txt", "a.pngx", "a.", "Thumbs.db"))
    )
    (clip,) = found(data)
    assert clip.frames == tuple(sorted(good))


def test_folders_in_a_folder_of_frames_are_passed_over(make):
    assert paths(make("v/a.png", "v/masks/a.png", "v/a.mp4/x.txt")) == {"all:v": ["v/a.png"]}


# --- layouts of videos


def test_folder_of_videos(make):
    data = make("b.mp4", "a.MKV", "c-1.webm", "c.mov", ".hidden.mp4", "list.txt", "manifest.csv", "notes/read.me")
    source = clips(data, None, None)
    assert not source.pictures
    assert not clips(data, None, None).pictures
    assert list(source) == [
        SourceClip("all", "a", "a.MKV", None),
        SourceClip("all", "b", "b.mp4", None),
        SourceClip("all", "c", "c.mov", None),
        SourceClip("all", "c-1", "c-1.webm", None),
    ]


@pytest.mark.parametrize("base", ["", PHOENIX])
def test_splits_of_videos(make, base):
    data = make(*(posixpath.join(base, name) for name in ("test/a.mp4", "train/b.avi", "train/a.ts")))
    prefix = base and f"{base}/"
    assert found(data) == [
        SourceClip("train", "a", f"{prefix}train/a.ts", None),
        SourceClip("train", "b", f"{prefix}train/b.avi", None),
        SourceClip("test", "a", f"{prefix}test/a.mp4", None),
    ]


def test_splits_of_videos_by_any_name(make):
    assert paths(make("y/a.mp4", "x/a.mp4")) == {"x:a": ["x/a.mp4"], "y:a": ["y/a.mp4"]}


def test_one_video(make):
    source = clips(make("a b.MP4", "c.mp4") / "a b.MP4", None, None)
    assert (source.root.name, source.pictures, source.splits) == ("data", False, ("all",))
    assert list(source) == [SourceClip("all", "a b", "a b.MP4", None)]


def test_list_of_videos(make):
    data = make("lists/", "z.mp4")
    listed = data / "lists" / "mine.txt"
    lines = ["# mine", "../z.mp4", "", "  sub/a b.mkv  ", "   # not this", f"{data}/é漢.webm", "./#c.mp4"]
    listed.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    source = clips(listed, None, None)
    assert (source.root, source.pictures, source.splits) == (data / "lists", False, ("all",))
    assert list(source) == [
        SourceClip("all", "z", "../z.mp4", None),
        SourceClip("all", "a b", "sub/a b.mkv", None),
        SourceClip("all", "é漢", f"{data}/é漢.webm", None),
        SourceClip("all", "#c", "./#c.mp4", None),
    ]
    assert (source.root / found(listed)[0].path).resolve() == data / "z.mp4"
    assert source.root / found(listed)[2].path == data / "é漢.webm"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "list: lists no videos"),
        (b"# a.mp4\n\n", "list: lists no videos"),
        (b"a.mp4\n\nframes/a.png\n", "list, line 3: 'frames/a.png' is no video; expected a list of videos"),
        (b"a.mp4,b.mp4\nname;text\n", "list, line 2: 'name;text' is no video"),
        (b"\x7fELF\x00\xff" * 40_000, "list, line 1: '\\x7fELF\\x00\\udcff"),
        (b".mp4\n", "list, line 1: '.mp4' is no video"),
        (b"a/.mp4\n", "list, line 1: 'a/.mp4' is no video"),
    ],
)
def test_no_list(tmp_path, content, words):
    path = tmp_path / "list"
    path.write_bytes(content)
    message = refused(path)
    assert words in message
    assert len(message) < 2000


def test_file_without_lines_is_not_read_whole(tmp_path):
    path = tmp_path / "model.bin"
    with path.open("wb") as file:
        file.truncate(1 << 28)  # zeros that take no space
    tracemalloc.start()
    try:
        assert "model.bin, line 1: " in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


# --- ids


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["a.mp4", "a.mkv", "b.mp4"], {"a.mkv": "a.mkv", "a.mp4": "a.mp4", "b.mp4": "b"}),
        (["a.mp4", "a.MP4"], {"a.MP4": "a.MP4", "a.mp4": "a.mp4"}),
        (["a.mp4", "a.mov", "a.mp4.avi"], {"a.mov": "a.mov", "a.mp4": "a.mp4", "a.mp4.avi": "a.mp4~2"}),
    ],
)
def test_videos_of_one_stem_keep_their_suffix(make, names, ids):
    assert {clip.path: clip.video for clip in found(make(*names))} == ids


def test_listed_videos_of_one_name_are_numbered(tmp_path):
    path = tmp_path / "list"
    path.write_text("x/a.mp4\ny/a.mp4\nb/a~2.mp4\na.mkv\nz/a.mp4\nx/a.mp4\n")
    assert [clip.video for clip in found(path)] == ["a", "a~3", "a~2", "a.mkv", "a~4", "a~5"]


def test_a_video_listed_again_is_an_item_of_its_own(tmp_path):
    path = tmp_path / "list"
    path.write_text("x/a.mp4\ny/a.mp4\nx/a.mp4\nx/a.mp4\n")
    clips_of_it = found(path)
    assert [clip.path for clip in clips_of_it] == ["x/a.mp4", "y/a.mp4", "x/a.mp4", "x/a.mp4"]
    assert [clip.id for clip in clips_of_it] == ["x/a.mp4", "y/a.mp4", "x/a.mp4~2", "x/a.mp4~3"]


def test_many_of_one_name(tmp_path):
    path = tmp_path / "list"
    path.write_text("".join(f"{number}/rgb.mp4\n" for number in range(20_000)))
    videos = [clip.video for clip in found(path)]
    assert len(set(videos)) == 20_000
    assert videos[-1] == "rgb~20000"


def test_one_id_in_two_splits_stays(make):
    assert [clip.video for clip in found(make("train/a.mp4", "dev/a.mkv"))] == ["a", "a"]


# --- splits


TREE = tuple(f"{split}/{video}/1.png" for split in ("zoo", "test", "dev", "extra", "train") for video in ("b", "a"))


def test_order_of_splits(make):
    data = make(*TREE, "notes/")
    source = clips(data, None, None)
    assert source.splits == ("train", "dev", "test")
    assert source.left_out == ("extra", "notes", "zoo")
    assert [(clip.split, clip.video) for clip in source] == [
        (split, video) for split in ("train", "dev", "test") for video in ("a", "b")
    ]
    source = clips(data, ["zoo", "dev", "zoo"], None)
    assert (source.splits, source.left_out) == (("zoo", "dev"), ())
    assert [clip.split for clip in source] == ["zoo", "zoo", "dev", "dev"]


def test_splits_by_any_name(make):
    data = make("signer2/a/1.png", "signer1/b/1.png", "docs/")
    source = clips(data, None, None)
    assert source.splits == ("docs", "signer1", "signer2")
    assert [clip.split for clip in source] == ["signer1", "signer2"]
    assert source.empty == ["docs"]
    assert [clip.split for clip in found(data, ["signer2"])] == ["signer2"]


def test_a_standard_split_may_be_missing(make):
    assert [clip.split for clip in found(make("test/a/1.png", "train/a/1.png"))] == ["train", "test"]


def test_all_is_the_split_of_what_has_none(make):
    data = make("a/1.png", "b/1.png")
    assert [clip.video for clip in found(data, ["all"])] == ["a", "b"]
    assert refused(data, ["train"]) == f"--splits train: there is no such split in {data}, but all."
    path = make("a.mp4") / "a.mp4"
    assert refused(path, ["dev"]) == f"--splits dev: there is no such split in {path}, but all."
    assert [clip.split for clip in found(make("all/v/1.png", "other/v/1.png", root="named"), ["all"])] == ["all"]


@pytest.mark.parametrize("base", ["", PHOENIX])
def test_split_that_is_not_there(make, base):
    data = make(*(posixpath.join(base, path) for path in TREE))
    assert refused(data, ["dev", "val"]).endswith(
        f"--splits val: there is no such split in {data / base}, but train, dev, test, extra, zoo."
    )


def test_split_that_is_not_there_among_many(make):
    data = make(*(f"{number:02}/v/1.png" for number in range(30)))
    assert refused(data, ["val"]).endswith("07, 08, 09 and 20 more.")


# --- how many


def test_max_videos_are_the_first_of_each_split(make):
    data = make(*(f"{split}/{video}/1.png" for split in ("train", "dev") for video in "cab"), "train/aa/", "train/d/")
    source = clips(data, None, 2)
    assert [(clip.split, clip.video) for clip in source] == [
        ("train", "a"),
        ("train", "b"),
        ("dev", "a"),
        ("dev", "b"),
    ]
    assert source.empty == ["train/aa"]
    assert [clip.video for clip in found(make("a.mp4", "a.mkv", "b.mp4", root="videos"), None, 1)] == ["a.mkv"]


def test_empty_folders_are_counted(make):
    data = make("train/a/1.png", "train/b/", "train/c/read.me", "train/d/1/", "train/e/f/g/", "dev/", "test/x/")
    source = clips(data, None, None)
    assert [clip.video for clip in source] == ["a"]
    assert source.empty == ["train/b", "train/c", "train/d", "train/e", "dev", "test/x"]


def test_clips_come_as_they_are_asked_for(make):
    data = make("train/a/1.png", "train/b/1.png", "train/c/1.png")
    source = clips(data, None, None)
    assert next(source).video == "a"
    (data / "train/c/2.png").touch()
    assert [clip.frames for clip in source] == [("1.png",), ("1.png", "2.png")]


def test_memory_is_that_of_one_folder(make):
    def peak(videos):
        data = make(*(f"train/{video:04}/{'x' * 100}{frame}.png" for video in range(videos) for frame in range(50)))
        tracemalloc.start()
        try:
            for _ in clips(data, None, None):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = peak(10)
    assert peak(300) - few < 300 * 50 * 100 / 4  # the names alone of all folders are four times that


# --- what cannot be


def test_nothing_there(make):
    data = make("train/a/", "dev/read.me", "other/a/1.png")
    message = refused(data)
    assert message.startswith(f"{data}/train, {data}/dev: no pictures and no videos in there; expected pictures (")
    assert "{split}/{video}/*.png" in message
    assert refused(make(root="empty")).startswith(f"{data.parent}/empty: no pictures and no videos in there")
    assert refused(make("a.txt", "b/c.csv", root="texts"), ["train"]).startswith(f"{data.parent}/texts: no pictures")
    assert refused(data / "none").startswith(f"{data}/none: no such file or folder; expected pictures (")


@pytest.mark.parametrize("split", ["", "train/", "train/v/", "v/", "train/v/1/"])
def test_pictures_and_videos_in_one_folder(make, split):
    data = make(*(f"{split}{name}" for name in ("b.png", "a.jpg", "z.mp4")))
    where = str(data / split).rstrip("/")
    assert refused(data).startswith(f"{where}: holds 2 pictures (a.jpg) and 1 video (z.mp4); expected one of the two.")


@pytest.mark.parametrize(
    ("names", "where", "words"),
    [
        (["train/a/1.png", "dev/b.mp4"], "dev", "holds 1 video (b.mp4), other folders hold pictures"),
        (["train/a.mp4", "dev/b/1.png"], "dev/b", "holds 1 picture (1.png), other folders hold videos"),
        (["train/a.mp4", "dev/1.png"], "dev", "holds 1 picture (1.png), other folders hold videos"),
        (["a/1.png", "b/c.mp4"], "b", "holds 1 video (c.mp4), other folders hold pictures"),
        (["x/a.mp4", "y/1.png"], "y", "holds 1 picture (1.png), other folders hold videos"),
    ],
)
def test_pictures_and_videos_in_one_source(make, names, where, words):
    data = make(*names)
    assert refused(data).startswith(f"{data / where}: {words}; expected one of the two.")


def test_the_other_kind_in_another_split_is_not_looked_at(make):
    data = make("train/a/1.png", "dev/b.mp4")
    assert clips(data, ["train"], None).pictures
    assert not clips(data, ["dev"], None).pictures
    assert [clip.path for clip in found(data, ["dev"])] == ["dev/b.mp4"]


@pytest.mark.parametrize(
    ("names", "where", "words"),
    [
        (["sheet.png", "a/1.png"], "", "holds 1 picture (sheet.png), and below it {}/a holds 1 picture (1.png)"),
        (["sheet.png", "train/a/1.png"], "", "holds 1 picture (sheet.png), and below it {}/train/a holds 1 picture"),
        (["train/x.png", "train/a/b/1.png"], "train", "holds 1 picture (x.png), and below it {}/train/a/b holds"),
        (["train/x.mp4", "train/x/1.png"], "train", "holds 1 video (x.mp4), and below it {}/train/x holds 1 picture"),
        (["a/1.png", "b/c/1.png"], "b/c", "holds 1 picture (1.png), deeper than expected"),
        (["b/1.png", "a/c/1.png"], "b", "holds 1 picture (1.png), and folders beside it hold folders of pictures"),
        (["train/a/rgb/1.png"], "train/a/rgb", "holds 1 picture (1.png), deeper than expected"),
        (["train/a/1/2/1.png"], "train/a/1/2", "holds 1 picture (1.png), deeper than expected"),
        (["train/a/1/1.png", "train/a/2/1.png"], "train/a/1", "holds 1 picture (1.png), deeper than expected"),
        (["P/features/full/train/a/1.png"], "P/features/full/train/a", "holds 1 picture (1.png), deeper than expected"),
        (["train/a/a.mp4"], "train/a", "holds 1 video (a.mp4), deeper than expected"),
        (["x/a/a.mp4"], "x/a", "holds 1 video (a.mp4), deeper than expected"),
    ],
)
def test_clips_on_another_level(make, names, where, words):
    data = make(*names)
    assert refused(data).startswith(f"{data / where}: {words.format(data)}")


def test_one_picture(make):
    path = make("a.PNG") / "a.PNG"
    assert refused(path) == f"{path}: is one picture; expected a folder of them. Choose the folder it is in."


def test_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: no such file or folder" in refused(tmp_path / "pipe")


def test_folder_that_goes_away(make):
    data = make("train/a/1.png", "train/b/1.png")
    source = clips(data, None, None)
    next(source)
    (data / "train/b/1.png").unlink()
    (data / "train/b").rmdir()
    with pytest.raises(UsageError, match=rf"{re.escape(str(data))}/train/b: cannot be read \(No such file"):
        next(source)


# --- links


def test_linked_folders_and_files(make):
    data = make("train/a/1.png", "elsewhere/v/2.png", "elsewhere/v/3.png")
    (data / "dev").symlink_to(data / "elsewhere")
    (data / "train/b").symlink_to("a")
    (data / "train/a/2.png").symlink_to("1.png")
    (data / "train/a/3.png").symlink_to("gone.png")  # a frame that cannot be read, not a frame that is not there
    (data / "train/a/4.png").symlink_to("4.png")
    (data / "train/c").symlink_to("gone")
    assert paths(data) == {
        "train:a": ["train/a/1.png", "train/a/2.png", "train/a/3.png", "train/a/4.png"],
        "train:b": ["train/b/1.png", "train/b/2.png", "train/b/3.png", "train/b/4.png"],
        "dev:v": ["dev/v/2.png", "dev/v/3.png"],
    }


@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_links_to_a_folder_above_are_passed_over(make, target):
    data = make("train/a/1.png", "train/b/")
    for place in ("train/loop", "train/a/loop", "train/b/loop", "train/b/1"):
        (data / place).symlink_to(data / "train/b" / target, target_is_directory=True)
    source = clips(data, None, None)
    assert [clip.path for clip in source] == ["train/a"]
    looked = ["train/b", "train/loop"] if target == "." else ["train/b"]  # beside it, b is as any folder
    assert source.empty == looked


def test_links_in_a_circle(make):
    data = make(*(f"{name}/" for name in "uvwxyz"))
    for here in "uvwxyz":
        for there in "uvwxyz":
            if here != there:
                (data / here / there).symlink_to(data / there)
    assert "no pictures and no videos in there" in refused(data)
    make("train/v/1.png")
    (data / "train/x").symlink_to(data / "x")
    source = clips(data, None, None)
    assert [clip.path for clip in source] == ["train/v"]
    assert source.empty == ["train/x"]


# --- names


def test_names_of_any_letters(make):
    names = ["train/ein video/bild 1.png", "train/ein video/é漢😀.png", "train/%s\n|,#/a;b.png", "train/.h/x.png"]
    assert paths(make(*names)) == {
        "train:%s\n|,#": ["train/%s\n|,#/a;b.png"],
        "train:ein video": ["train/ein video/bild 1.png", "train/ein video/é漢😀.png"],
    }


def test_names_that_are_not_utf_8(make):
    data = make(*map(os.fsdecode, (b"v\xff/1\xfe.png", b"v\xff/1.png", b"w/1.png")))
    assert paths(data) == {"all:v\udcff": ["v\udcff/1.png", "v\udcff/1\udcfe.png"], "all:w": ["w/1.png"]}
    assert all((data / path).exists() for frames in paths(data).values() for path in frames)
    listed = data / "list"
    listed.write_bytes(b"caf\xe9.mp4\n")
    assert found(listed) == [SourceClip("all", "caf\udce9", "caf\udce9.mp4", None)]
