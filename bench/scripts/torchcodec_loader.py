"""The clips job as a torch DataLoader over torchcodec, writing the same pickles.

Command: ``python -m bench.scripts.torchcodec_loader PAIRS CLIPS_DIR OUT WORKERS``

The dataset decodes and resizes in the loader's workers and writes there: no pixels go through the loader's pipes.
"""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchcodec.decoders import VideoDecoder
from torchcodec.transforms import Resize

from gpupipe.ops.text import clip_tokenizer

NUM_FRAMES, HEIGHT, WIDTH = 16, 160, 256


class Clips(Dataset):
    def __init__(self, pairs, clips_dir, out):
        self.pairs, self.clips_dir, self.out = pairs, clips_dir, out

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, number):
        pair = self.pairs[number]
        path = str(Path(self.clips_dir, Path(pair["clip_path"]).name))
        decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, transforms=[Resize((HEIGHT, WIDTH))])
        wanted = np.linspace(0, len(decoder) - 1, NUM_FRAMES, dtype=int).tolist()
        write(self.out, number, pair, decoder.get_frames_at(wanted).data.numpy())
        return number


def write(out, number, pair, frames):
    folder = Path(out, f"sample_{number:06d}_{pair['vid']}")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "video_input.pkl").open("wb") as file:
        pickle.dump(np.ascontiguousarray(frames), file)
    with (folder / "text_input.pkl").open("wb") as file:
        pickle.dump({"tokens": clip_tokenizer().encode(pair["transcript"])}, file)
    with (folder / "size.json").open("w") as file:
        json.dump([0.5] * NUM_FRAMES, file)


def main():
    pairs_json, clips_dir, out, workers = sys.argv[1:5]
    pairs = json.loads(Path(pairs_json).read_text())
    torch.set_num_threads(1)
    for _ in DataLoader(Clips(pairs, clips_dir, out), batch_size=8, num_workers=int(workers)):
        pass


if __name__ == "__main__":
    main()
