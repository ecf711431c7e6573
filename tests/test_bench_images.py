"""The benchmark of still pictures runs, small and without any peer that is not a requirement."""

from __future__ import annotations

from pathlib import Path

import synth
from PIL import Image
from test_bench import run


def test_images_runs(tmp_path: Path) -> None:
    media, images = tmp_path / "media", tmp_path / "images"
    media.mkdir()
    images.mkdir()
    clip = synth.encode(media / "a.mp4", synth.Clip(count=12))
    assert clip.exists()
    Image.effect_noise((90, 60), 40).convert("RGB").save(images / "a.jpg")
    words = ["--media", str(media), "--images", str(images), "--pictures", "5", "--threads", "2"]
    sets = run("images", tmp_path, *words)["sets"]
    assert [(each["set"], each["pictures"]) for each in sets] == [
        ("photographs, JPEG", 1), ("frames, PNG", 5), ("frames, JPEG", 5)
    ]  # fmt: skip
    for each in sets:
        assert each["tools"]["pillow"]["difference"] == each["tools"]["gpupipe"]["difference"] == 0
        assert each["times_unpack_bound"] > 0
        assert each["files_per_second"]["2"] > 0
