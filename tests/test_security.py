"""What hostile names, files and folders may not do: reach out of the output, or to anything but the file asked for."""

from __future__ import annotations

import ast
import ctypes
import io
import json
import os
import shutil
import socket
import sqlite3
import struct
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pytest
import xxhash
from synth import Clip, encode, remux

from gpupipe import decode
from gpupipe.cli.main import main
from gpupipe.errors import GpupipeError, MissingInputError

PACKAGE = Path(decode.__file__).parents[1]
FORMATS = ("samples", "npy", "webdataset")
SMALL = Clip(count=6, size=(48, 64))
LONG = "GPUPIPE_FUZZ" in os.environ


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", SMALL)


def contents(folder: Path) -> dict[str, bytes | str]:
    """Everything in a folder, links as what they point to."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"  # noqa: PTH115 - a Path would lose a trailing slash
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder"
    return found


def run(inputs: Path, out: Path, *flags: str) -> int:
    """The command on ``inputs/pairs.json`` and the clips in ``inputs/clips``."""
    where = ["--pairs-json", f"{inputs}/pairs.json", "--clips-dir", f"{inputs}/clips", "--output-dir", str(out)]
    small = ["--num-frames", "2", "--frame-height", "16", "--frame-width", "24", "--shard-size", "2"]
    return main(["clips", *where, *small, "--num-workers", "1", "--quiet", *flags])


def lay(folder: Path, clip: Path, pairs: list[dict[str, object]]) -> Path:
    """Make the inputs of a run: one clip, and the pairs."""
    (folder / "clips").mkdir(parents=True)
    (folder / "clips" / "a.mp4").write_bytes(clip.read_bytes())
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return folder


# --- the package's own source


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def test_no_shell_no_evaluation_and_no_pickle_but_the_restricted_one():
    """A shell, evaluated text, or a plain unpickler has no use here; what is imported by name is our own."""
    banned = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "mktemp"}
    # Our own modules, or packages from a list of ours: no name comes from an input.
    by_name = {"__init__.py", "job.py", "jobs/__init__.py", "decode/__init__.py", "decode/pynvcodec.py"}
    by_name |= {"cuda/device.py", "cuda/probe.py"}
    banned |= {"pickle.Unpickler", "marshal.loads", "marshal.load", "shelve.open", "runpy.run_path", "os.execvp"}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            what, where = called(node), f"{name}:{node.lineno}"
            if what in banned or what.startswith(("os.spawn", "os.posix_spawn")):
                wrong.append(f"{where}: {what}")
            if what.startswith("subprocess.") and ("shell" in words or isinstance(node.args[0], ast.Constant)):
                wrong.append(f"{where}: {what} through a shell")
            if what in ("np.load", "numpy.load") and words.get("allow_pickle") != "False":
                wrong.append(f"{where}: {what} may unpickle")
            if what.endswith("import_module") and not isinstance(node.args[0], ast.Constant) and name not in by_name:
                wrong.append(f"{where}: {what}")
    assert wrong == []


# --- ids and names

HOSTILE_IDS = [
    "../evil", "../../evil", "..", ".", "/tmp/evil", "a/b", "a/../../evil", "\0", "a\0b", "~", "-rf", "$(touch evil)",
    "`touch evil`", ";touch evil", "%s%n", "..\\evil", "\\\\host\\evil", "con:evil", "\n", "\r\nevil", "\u202egpm",
    "\ud800", "e" * 300, "é" * 120, ".gpupipe", "*", "a" * 193,
]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_ids_stay_in_the_output(clip, tmp_path, form):
    """Whatever an id is, nothing beside the output is touched, also by a second run and --overwrite."""
    inputs = lay(tmp_path / "in", clip, [{"vid": vid, "clip_path": "a.mp4"} for vid in HOSTILE_IDS])
    out = tmp_path / "deep" / "er" / "out"
    out.mkdir(parents=True)
    (out / "mine").write_text("kept")
    before = {name: data for name, data in contents(tmp_path).items() if not name.startswith("deep/er/out/")}
    for flags in ((), (), ("--overwrite",)):
        assert run(inputs, out, "--format", form, *flags) == 3
        after = {name: data for name, data in contents(tmp_path).items() if not name.startswith("deep/er/out/")}
        assert after == before
    assert (out / "mine").read_text() == "kept"
    failed = {json.loads(line)["ordinal"] for line in (out / "failed.jsonl").read_text().splitlines()}
    bad = {HOSTILE_IDS.index(vid) for vid in HOSTILE_IDS if "/" in vid or "\0" in vid or ".." in vid}
    assert bad < failed
    named = {name for names in json.loads((out / "dataset_info.json").read_text()).values() for name in names}
    assert len(named) == len(HOSTILE_IDS) - len(failed) > 5
    if form == "samples":
        assert {path.name for path in out.iterdir() if path.name.startswith("sample_")} == named
    if form == "webdataset":
        for path in out.glob("*.tar"):
            with tarfile.open(path) as tar:
                assert all(member.isfile() and member.name[:6].isdigit() for member in tar)
                assert all(member.name[6:] in (".npy", ".json") for member in tar)


@pytest.mark.parametrize("name", ["../secret.mp4", "{top}/secret.mp4", "clips/../../secret.mp4", "x/./../secret.mp4"])
def test_a_clip_is_looked_for_in_its_folder_alone(clip, tmp_path, name):
    """A path in ``clip_path`` counts for its last part only: the file beside the folder is not reached."""
    inputs = lay(tmp_path, clip, [{"vid": "a", "clip_path": name.format(top=tmp_path)}])
    (tmp_path / "secret.mp4").write_bytes(clip.read_bytes())
    with watched(tmp_path / "secret.mp4") as opened:
        assert run(inputs, tmp_path / "out") == 3
        assert not opened()
    (failure,) = (tmp_path / "out" / "failed.jsonl").read_text().splitlines()
    assert json.loads(failure)["error"] == "MissingInputError"


@pytest.mark.parametrize("vid", ["../secret", "..", "/etc/passwd", "clips/../../secret"])
def test_a_video_is_looked_for_in_its_folder_alone(clip, tmp_path, vid):
    inputs = lay(tmp_path, clip, [{"vid": vid}])
    (tmp_path / "secret.mp4").write_bytes(clip.read_bytes())
    with watched(tmp_path / "secret.mp4") as opened:
        command = ["clips", "--pairs-json", f"{inputs}/pairs.json", "--videos-dir", f"{inputs}/clips", "--quiet"]
        assert main([*command, "--output-dir", f"{tmp_path}/out", "--num-workers", "1"]) == 3
        assert not opened()


# --- what FFmpeg may open


@contextmanager
def watched(path: Path) -> Iterator[Callable[[], bool]]:
    """Tell whether anybody on this machine opened a file since the block began or since last asked (inotify)."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0
    try:
        assert libc.inotify_add_watch(fd, os.fsencode(path), 0x20 | 0x01) >= 0  # IN_OPEN, IN_ACCESS

        def opened() -> bool:
            with suppress(BlockingIOError):
                return len(os.read(fd, 4096)) > 0
            return False

        yield opened
    finally:
        os.close(fd)


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """A server on this machine: its port, and what callers said."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:  # closed
                    return
                with caller:
                    caller.settimeout(2)
                    heard.append(b"a caller")
                    with suppress(OSError):
                        heard.append(caller.recv(4096))
                        caller.sendall(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        thread = Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1], heard
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


_MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="0" bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
SCRIPTS = {
    "m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    "m3u8 with a map": '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI="{target}"\n#EXTINF:1,\n{target}\n',
    "m3u8 with a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n',
    "ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "concat": "file '{target}'\n",
    "mpd": _MPD,
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
           "a=rtpmap:96 H264/90000\n",
    "rtsp redirect": "RTSPtext\nrtsp://127.0.0.1:{port}/x\n",
    "asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "smil": '<smil><body><video src="{target}"/></body></smil>',
    "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
           "<Id>{target}</Id></CompositionPlaylist>",
    "avisynth": 'LWLibavVideoSource("{target}")\n',
    "lavfi": "movie={target}\n",
    "url": "{target}\n",
    "ffmetadata": ";FFMETADATA1\ntitle={target}\n",
}  # fmt: skip
TARGETS = ("{folder}/secret.mp4", "secret.mp4", "file:{folder}/secret.mp4", "http://127.0.0.1:{port}/secret.mp4",
           "subfile,,start,0,end,0,,:{folder}/secret.mp4", "concat:{folder}/secret.mp4|{folder}/secret.mp4",
           "data:video/mp4;base64,AAAA", "tcp://127.0.0.1:{port}", "crypto:{folder}/secret.mp4",
           "async:file:{folder}/secret.mp4", "cache:http://127.0.0.1:{port}/x",
           "hls+http://127.0.0.1:{port}/x")  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_playlists_and_scripts_reach_nothing(clip, tmp_path, script):
    """Under any suffix they are no media: neither the file that they name is opened nor the network asked."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip.read_bytes())
    with watched(secret) as opened, listening() as (port, heard):
        for number, target in enumerate(TARGETS):
            text = SCRIPTS[script].format(target=target.format(folder=tmp_path, port=port), port=port)
            for suffix in ("mp4", "m3u8", "ffconcat", "mpd", "sdp", "ts", "txt"):
                path = tmp_path / f"{number}.{suffix}"
                path.write_text(text)
                with pytest.raises(GpupipeError), decode.open(path) as decoder:
                    len(decoder)
        assert not opened()
        assert heard == []


@pytest.mark.parametrize(("script", "suffix"), [("ffconcat", "mp4"), ("m3u8", "m3u8")])
def test_the_scripts_above_would_work_elsewhere(clip, tmp_path, script, suffix):
    """Else the test above would be empty: FFmpeg left alone opens what they name."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip.read_bytes())
    path = tmp_path / f"x.{suffix}"
    path.write_text(SCRIPTS[script].format(target="secret.mp4", port=0))
    with watched(secret) as opened:
        av.open(str(path), container_options={"extension_picky": "0", "allowed_extensions": "ALL"}).close()
        assert opened()
    with listening() as (port, heard):
        with pytest.raises(av.FFmpegError):
            av.open(f"http://127.0.0.1:{port}/x.mp4")
        assert heard


@pytest.mark.parametrize(
    "name",
    ["http://127.0.0.1:{port}/x.mp4", "file:{folder}/secret.mp4", "concat:{folder}/secret.mp4", "data:video/mp4,x",
     "subfile,,start,0,end,100,,:{folder}/secret.mp4", "pipe:0", "fd:0", "async:{folder}/secret.mp4",
     "tcp://127.0.0.1:{port}", "{folder}/sec%03d.mp4", "{folder}/secret.mp?", "{folder}/*.mp4", "-", "", "\0"],
)  # fmt: skip
def test_a_name_is_a_path_and_nothing_else(clip, tmp_path, name):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip.read_bytes())
    with watched(secret) as opened, listening() as (port, heard):
        with pytest.raises(MissingInputError):
            decode.open(name.format(folder=tmp_path, port=port))
        assert not opened()
        assert heard == []


@pytest.mark.parametrize("name", ["http:x.mp4", "concat:a|b", "data:,x", "clip%03d.mp4", "a*?[b].mp4", "-i", "pipe:0"])
def test_files_with_names_like_urls_are_files(clip, tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    with decode.open(name) as decoder:
        assert len(decoder) == SMALL.count


def with_alias(data: bytes, path: str) -> bytes:
    """A MOV file, the media of its track said to be in another file (``dref`` of type ``alis``, QuickTime's)."""
    body = bytearray(bytes(10) + bytes([1]) + b"v".ljust(27, b"\0") + bytes(12))
    name = path.rpartition("/")[2].encode()
    body += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
    for kind, text in ((2, path.encode()), (0, b"folder")):
        text += bytes(len(text) % 2)
        body += struct.pack(">HH", kind, len(text)) + text
    body += struct.pack(">HH", 0xFFFF, 0)
    alias = struct.pack(">I4sI", 12 + len(body), b"alis", 0) + body
    boxes = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")
    places = []
    at = 0
    for kind in boxes:
        at = data.index(kind, at)
        places.append(at - 4)
    entry = places[-1] + 16  # behind size, kind, flags and count
    (old,) = struct.unpack_from(">I", data, entry)
    out = bytearray(data[:entry] + alias + data[entry + old :])
    for place in places:
        struct.pack_into(">I", out, place, struct.unpack_from(">I", data, place)[0] + len(alias) - old)
    return bytes(out)


def test_external_data_references_are_not_followed(clip, tmp_path):
    """The media of a MOV track may be in another file: that file is not opened, and none of it is shown."""
    mov = remux(clip, tmp_path / "plain.mov")
    secret = tmp_path / "secret.mov"
    secret.write_bytes(mov.read_bytes())
    path = tmp_path / "alias.mov"
    path.write_bytes(with_alias(mov.read_bytes(), "/secret.mov"))
    with watched(secret) as opened:
        # FFmpeg allowed to follow it does: the reference is well made.
        av.open(str(path), container_options={"enable_drefs": "1", "use_absolute_path": "1"}).close()
        assert opened()
        with suppress(GpupipeError), decode.open(path) as decoder:  # pictures of the file itself may be shown
            decoder.read(range(len(decoder)), lambda *_: None)
        assert not opened()


# --- links planted in the output

LINKS = {
    "samples": {"sample_000000_a": "", "sample_000001_bad": "", "dataset_info.json": "precious", "failed.jsonl": "new"},
    "npy": {"frames-00000.npy": "precious", "frames-00000.npy.partial": "precious", "index.parquet": "precious"},
    "webdataset": {"00000.tar": "precious", "00000.tar.partial": "precious", ".gpupipe/blobs": ""},
}
BOOKKEEPING = {
    "": "", "lock": "new", "layout.lock": "new", "layout.json": "precious", "plan": "", "stranger": "",
    "shard-0": "", "shard-1": "", "shard-0/staging": "", "shard-0/lock": "precious", "shard-0/ledger.db": "new",
    "shard-0/ledger.db-journal": "precious", "shard-0/complete": "precious",
}  # fmt: skip
"""Place of the link, and what it points to in a folder elsewhere: the folder, a file there, one that is not there."""


def planted() -> list[tuple[str, str, str]]:
    places = [(form, place, target) for form, found in LINKS.items() for place, target in found.items()]
    places += [("samples", f".gpupipe/{place}".rstrip("/"), target) for place, target in BOOKKEEPING.items()]
    return places


@pytest.fixture(scope="module")
def made(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Make a finished dataset once a format; give its inputs and a fresh copy of its output."""
    top = tmp_path_factory.mktemp("made")
    (top / "bad").write_bytes(b"no clip")
    pairs: list[dict[str, object]] = [{"vid": vid, "clip_path": f"{vid}.mp4"} for vid in ("a", "bad", "a")]
    inputs = lay(top / "in", clip, pairs)

    def copy(form: str) -> tuple[Path, Path]:
        original = top / form
        if not original.exists():
            assert run(inputs, original, "--format", form) == 3
        out = top / "copy"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(original, out)
        return inputs, out

    return copy


def forget(out: Path) -> None:
    """Have every item pending again."""
    with closing(sqlite3.connect(out / ".gpupipe" / "shard-0" / "ledger.db")) as ledger, ledger:
        ledger.execute("delete from items")


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(("form", "place", "target"), planted(), ids=lambda value: value or "folder")
def test_nothing_is_written_or_removed_through_a_link(made, tmp_path, capsys, form, place, target):
    """A link in the output that leads out of it: what it leads to stays as it is, whatever the run makes of it.

    One in the bookkeeping is refused by name before anything is done.
    """
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "staging").mkdir(parents=True)
    for name in (
        "precious",
        "ledger.db",
        "complete",
        "lock",
        "layout.json",
        "00000000.tar",
        "staging/0",
        "worker-0.log",
    ):
        (elsewhere / name).write_text(f"mine: {name}")
    before = contents(elsewhere)
    for situation in ("pending", *(["overwrite"] if LONG or "shard" in place else []), *(["fresh"] if LONG else [])):
        inputs, out = made(form)
        if situation == "fresh":
            shutil.rmtree(out)
        elif situation == "pending":
            forget(out)
        remove(out / place)
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        (out / place).symlink_to(elsewhere / target)
        code = run(inputs, out, "--format", form, *(["--overwrite"] if situation == "overwrite" else []))
        said = capsys.readouterr().err
        assert code in (2, 3, 4)
        assert "Traceback" not in said
        assert contents(elsewhere) == before, situation
        if place.startswith(".gpupipe"):
            assert (code, f"{out / place}: is a symbolic link" in said) == (2, True), said
            for command in (["status"], ["verify"], ["verify", "--repair"], ["retry", "--num-workers", "1", "--quiet"]):
                assert main([*command, str(out)]) == 2
                said = capsys.readouterr().err
                assert "symbolic link" in said or "no output of gpupipe here" in said  # where there is no plan
            assert contents(elsewhere) == before, situation


@pytest.mark.parametrize("flag", ["--num-workers", "--total-shards", "--memory-per-worker", "--shard-size"])
def test_numbers_without_end_are_refused(clip, tmp_path, capsys, flag):
    inputs = lay(tmp_path, clip, [{"vid": "a", "clip_path": "a.mp4"}])
    for digits in (19, 30, 400):
        with suppress(SystemExit):  # argparse's own words
            assert run(inputs, tmp_path / "out", flag, "9" * digits) == 2
        said = capsys.readouterr().err
        assert flag in said
        assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_an_export_replaces_nothing_but_an_export(made, tmp_path, capsys):
    """``--checkpoint-file`` names a file that is written anew: not the input, a device, or a part of the dataset."""
    inputs, out = made("npy")
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "notes")
    os.mkfifo(tmp_path / "pipe")
    (out / "mine.json").write_text("{}")
    before = contents(out.parent), contents(tmp_path)
    refused = [inputs / "pairs.json", inputs / "clips" / "a.mp4", tmp_path / "notes", tmp_path / "link", tmp_path]
    refused += [tmp_path / "pipe", out, out / "mine.json", out / "failed.jsonl", out / "dataset_info.json"]
    refused += [out / name for name in ("frames-00000.npy", "frames-00001.npy", "index.parquet", ".gpupipe/plan/x")]
    refused += [out / ".gpupipe" / "lock", out / ".gpupipe" / "new.json", out / "clips" / ".." / "failed.jsonl"]
    for path in refused:
        for command in ([], ["retry"]):
            export = ("--checkpoint-file", str(path))
            code = main(["retry", str(out), *export]) if command else run(inputs, out, "--format", "npy", *export)
            assert (code, f"--checkpoint-file {path}" in capsys.readouterr().err) == (2, True), path
    assert (contents(out.parent), contents(tmp_path)) == before
    for _ in range(2):  # an earlier export is replaced
        for path in (tmp_path / "progress.json", out / "progress.json"):
            assert run(inputs, out, "--format", "npy", "--checkpoint-file", str(path)) == 3
            assert json.loads(path.read_bytes())["processed_indices"] == [0, 2]


def test_an_output_folder_may_be_a_link(clip, tmp_path):
    inputs = lay(tmp_path / "in", clip, [{"vid": "a", "clip_path": "a.mp4"}])
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    for flags in ((), ("--overwrite",)):
        assert run(inputs, tmp_path / "out", *flags) == 0
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_a_moved_shard_is_not_written_through_its_link(made, tmp_path, capsys):
    """A user moved a whole shard to another disk: it is read there, and where rows are pending the run says so."""
    inputs, out = made("npy")
    moved = tmp_path / "moved.npy"
    shutil.move(out / "frames-00000.npy", moved)
    (out / "frames-00000.npy").symlink_to(moved)
    before = moved.read_bytes()
    assert run(inputs, out, "--format", "npy") == 3
    assert main(["verify", str(out)]) == 0
    forget(out)
    capsys.readouterr()
    assert run(inputs, out, "--format", "npy") == 4
    said = capsys.readouterr().err
    assert f"{out}/frames-00000.npy" in said
    assert "symbolic link" in said
    assert (out / "frames-00000.npy").is_symlink()
    assert moved.read_bytes() == before


def test_a_pipe_in_the_bookkeeping_is_not_waited_for(made, capsys):
    inputs, out = made("samples")
    (out / ".gpupipe/layout.json").unlink()
    os.mkfifo(out / ".gpupipe/layout.json")
    assert run(inputs, out) == 2
    assert main(["status", str(out)]) == 2
    assert capsys.readouterr().err.count("layout.json: is no plain file") == 2


# --- parts of the dataset that others wrote


def member(name: str, size: bytes) -> bytes:
    """The header of a tar member whose length is in the words of whoever made it."""
    block = bytearray(tarfile.TarInfo(name).tobuf(format=tarfile.GNU_FORMAT))
    start = len(block) - 512
    block[start + 124 : start + 136] = size.ljust(12, b"\0")
    block[start + 148 : start + 156] = b" " * 8
    block[start + 148 : start + 156] = b"%06o\0 " % sum(block[start : start + 512])
    return bytes(block)


TARS = {
    "empty": lambda tar: b"",
    "junk": lambda tar: b"\xff" * len(tar),
    "cut": lambda tar: tar[: len(tar) // 2],
    "header": lambda tar: b"\0" * 512 + tar[512:],
    "negative": lambda tar: member("000000.npy", b"\xff" * 12) + tar,
    "negative name": lambda tar: member("0" * 120, b"\xff" * 12) + tar,
    "endless": lambda tar: member("000000.npy", b"\x80" + b"\x7f" * 11) + tar,
    "digits": lambda tar: member("9" * 5000 + ".npy", b"0") + tar,
    "twice": lambda tar: tar[:-1024] + tar,
    "stranger": lambda tar: member("000007.npy", b"0") + member("999999999999999999.npy", b"0") + tar,
}  # fmt: skip


@pytest.mark.parametrize("kind", TARS)
def test_a_damaged_tar_with_pending_items_gets_a_clear_answer(made, capsys, kind):
    """What is whole in it stays, the rest is named with the command that mends it, and that mends it."""
    inputs, out = made("webdataset")
    whole = (out / "00000.tar").read_bytes()
    (out / "00000.tar").write_bytes(TARS[kind](whole))
    with closing(sqlite3.connect(out / ".gpupipe/shard-0/ledger.db")) as ledger, ledger:
        ledger.execute("delete from items where ordinal = 1")
    code = run(inputs, out, "--format", "webdataset")
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert code == 3 or (code == 4 and "gpupipe verify --repair" in said), said
    if code == 4:
        assert main(["verify", "--repair", str(out)]) == 1
        assert run(inputs, out, "--format", "webdataset") == 3
    assert main(["verify", str(out)]) == 0
    assert (out / "00000.tar").read_bytes() == whole


@pytest.mark.parametrize("record", ["x", "[[", "{}", "1", '["a"]', "[null]"])
def test_a_record_that_others_wrote_gets_a_clear_answer(made, capsys, record):
    """The times of an item's frames come from the ledger into the table."""
    inputs, out = made("npy")
    with closing(sqlite3.connect(out / ".gpupipe/shard-0/ledger.db")) as ledger, ledger:
        ledger.execute("update items set record = ? where ordinal = 0", (record,))
    (out / "index.parquet").unlink()
    assert run(inputs, out, "--format", "npy") == 4
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "item 0: the ledger is damaged" in said


# --- bookkeeping that others wrote


def array(values: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values))
    return file.getvalue()


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def pickled(path: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Evil(path)]), allow_pickle=True)
    return file.getvalue()


JUNK = (b"", b"\xff\0junk", b"[]", b"null", b"[" * 100_000, b"9" * 5000)
FILES: dict[str, tuple[bytes, ...]] = {
    "plan/plan.json": JUNK,
    "plan/items.jsonl": (
        *JUNK,
        b'{"vid":"../../evil","clip_path":"a.mp4"}\n' * 3,
        b'{"vid":"/tmp/evil","clip_path":"../../../etc/passwd"}\n' * 3,
        b'{"vid":["a"],"clip_path":{"x":1}}\n' * 3,
        b'"x"\n' * 3,
    ),
    "plan/items.idx": (b"", b"1234567", *(np.array(each, "<i8").tobytes() for each in (
        [9, 9, 9, 9], [-5, 0, 1, 2], [0, 1 << 62, 1 << 62, 3], [0, 1 << 40, 5, 6]))),
    "plan/order.npy": (b"", b"\xff\0junk", *(array(each) for each in (
        [-1, -2, -3], [1 << 60, 1, 2], [0.5, 1, 2], [[0, 1, 2]], [0], [0, 0, 0], ["a", "b", "c"]))),
    "plan/starts.npy": (b"", array([1, 2, 3]), array([0.5]), array(["a", "b", "c"])),
    "layout.json": (*JUNK, *(json.dumps(each).encode() for each in (
        {"total": -1, "epoch": 0}, {"total": 1 << 70, "epoch": 1 << 70}, {"total": "1", "epoch": "x"}, {"total": 1},
        {"total": None, "epoch": None}, {"total": 1.5, "epoch": 0.5}, {"total": 10**9, "epoch": 3}, [1]))),
    "shard-0/complete": JUNK,
    "index.json": (*JUNK, b'{"failed.jsonl": 1}', b'{"../../pairs.json": ""}', b"[1]"),
    "shard-0/lock": JUNK,
    "shard-0/ledger.db": (b"junk" * 2000, b"SQLite format 3\0" + b"\xff" * 8000),
    "shard-x/ledger.db": (b"junk",),
    "shard-7/ledger.db": (b"junk" * 2000,),
}  # fmt: skip
"""What stands in a file of the bookkeeping."""

WORDS = (None, -1, 1 << 70, "x", [1], {"a": 1}, True)
HEADS = [(key, word) for key in ("version", "job", "options", "inputs", "count", "hash", "source") for word in WORDS]
HEADS += [("count", 4), ("count", 1 << 40), ("count", 1 << 62), ("job", "os"), ("job", "../x")]
OPTIONS = [(key, word) for key in ("num_frames", "format", "shard_size", "tokenizer") for word in (*WORDS, 0)]
OPTIONS += [("__class__", 1), ("num_frames", 1 << 40)]
ROWS = [
    f"update items set {column} = {value}"
    for column in ("state", "epoch", "error", "fingerprint", "record", "message", "attempts")
    for value in ("'x'", "null", "-1", "99", "x'ff00ff'", "9223372036854775807")
]
ROWS += [f"update items set ordinal = {value} where ordinal = {which}"
         for value in ("-1", "-9223372036854775808", "3", "99999999", "9223372036854775807")
         for which in (0, 1)]  # fmt: skip
ROWS += ["drop table items", "drop table meta", "drop table items; create table items (a, b)"]
ROWS += [f"insert or replace into meta values ('{key}', {value})"
         for key in ("plan", "progress", "active_seconds")
         for value in ("null", "'x'", "'[]'", "'{}'", "'1e400'", "x'00ff'", "'[[[['")]  # fmt: skip


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the plan's head, and its checksum as a forger would."""
    head = json.loads(path.read_bytes())
    change(head)
    text = json.dumps({key: value for key, value in head.items() if key != "checksum"}, sort_keys=True)
    head["checksum"] = xxhash.xxh3_128_hexdigest(text.encode())
    path.write_text(json.dumps(head))


def hostile(out: Path, evil: Path) -> dict[str, list[Callable[[], object]]]:
    """Ways to alter a bookkeeping, by kind."""
    books = out / ".gpupipe"
    head = books / "plan" / "plan.json"

    def put(name: str, data: bytes) -> None:
        (books / name).parent.mkdir(exist_ok=True)
        (books / name).write_bytes(data)

    def execute(script: str) -> None:
        with closing(sqlite3.connect(books / "shard-0" / "ledger.db")) as ledger:
            ledger.executescript(script)

    ways: dict[str, list[Callable[[], object]]] = {
        "heads": [partial(edit, head, lambda each, k=key, w=word: each.update({k: w})) for key, word in HEADS]
        + [partial(edit, head, lambda each, k=key: each.pop(k)) for key, _ in HEADS[:: len(WORDS)]],
        "options": [
            partial(edit, head, lambda each, k=key, w=word: each["options"].update({k: w})) for key, word in OPTIONS
        ],
        "rows": [partial(execute, script) for script in ROWS],
        "pickles": [partial(put, f"plan/{name}.npy", pickled(evil)) for name in ("order", "starts")],
    }
    for name, texts in FILES.items():
        ways[name] = [partial(put, name, text) for text in texts]
    return ways


KINDS = ("heads", "options", "rows", "pickles", *FILES)


def chosen(total: int) -> list[int]:
    """All cases in a long run, else some and the last."""
    return [*range(0, total - 1, 1 if LONG else 1 + total // 2), total - 1]


@pytest.mark.parametrize("kind", KINDS)
def test_bookkeeping_of_others_is_data(made, tmp_path, capsys, kind):
    """Whatever stands in it: an exit code, nothing run, nothing made or removed beside the output, and soon."""
    evil = tmp_path / "evil"
    top = made("samples")[1].parent
    beside = {name: data for name, data in contents(top).items() if not name.startswith("copy")}
    cases = chosen(len(hostile(top, evil)[kind]))
    for number in cases:
        inputs, out = made("samples")
        hostile(out, evil)[kind][number]()
        began = time.monotonic()
        codes = {main(["status", str(out)]), run(inputs, out)}
        if LONG or number in cases[-2:]:
            codes.add(run(inputs, out, "--overwrite"))
        assert codes <= {0, 2, 3, 4}, number
        assert time.monotonic() - began < 60, number
        assert {name: data for name, data in contents(top).items() if not name.startswith("copy")} == beside, number
        assert not evil.exists()
    capsys.readouterr()


@pytest.mark.parametrize("kind", KINDS)
def test_bookkeeping_of_others_gets_a_clear_answer(made, tmp_path, capsys, kind):
    """What cannot be read is named in a sentence, by every command; a traceback is for our own defects."""
    for number in chosen(len(hostile(tmp_path, tmp_path / "evil")[kind])):
        inputs, out = made("samples")
        hostile(out, tmp_path / "evil")[kind][number]()
        commands: list[Callable[[], int]] = [partial(main, [word, str(out)]) for word in ("status", "verify", "report")]
        commands += [partial(main, ["retry", str(out), "--num-workers", "1", "--quiet"]), partial(run, inputs, out)]
        for command in commands if LONG or number else commands[:-1]:
            code = command()
            said = capsys.readouterr().err
            assert "Traceback" not in said, f"{kind} {number}: {said}"
            assert code in (0, 1, 2, 3, 4)
            assert said.startswith("gpupipe: ") or code not in (2, 4)
