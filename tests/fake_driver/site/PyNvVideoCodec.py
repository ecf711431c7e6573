"""Decodes what a Hopper card does, and says so as PyNvVideoCodec 2.2.4 does.

FAKE_CODEC: ``broken`` does not import, ``loud`` prints while it does, ``deaf`` knows no capability, ``none`` decodes
nothing.
"""

import enum
import os

FAKE = os.environ.get("FAKE_CODEC")
if FAKE == "broken":
    raise RuntimeError("Failed to load NVENC library\n\n=== TROUBLESHOOTING STEPS ===\n")
if FAKE == "loud":
    print("a library that prints while it loads")

__version__ = "2.2.4"
cudaVideoCodec = enum.Enum("cudaVideoCodec", "H264 HEVC VP8 VP9 AV1")
cudaVideoChromaFormat = enum.Enum("cudaVideoChromaFormat", ["Monochrome", "420", "422", "444"], start=0)
SIDES = {"H264": (4096, 4096), "HEVC": (8192, 8192), "VP8": (4096, 4096), "VP9": (8192, 8192)}


def GetDecoderCaps(gpuid, codec, chromaformat, bitdepth):
    if FAKE == "deaf":
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")
    name, chroma = codec.name, chromaformat.name
    can = name in SIDES and chroma == "420" and (bitdepth == 8 or name in ("HEVC", "VP9"))
    can = FAKE != "none" and (can or (name == "HEVC" and chroma == "444"))
    height, width = SIDES.get(name, (4096, 4096))  # of what it does not decode too: only "supported" tells
    return {
        "supported": int(can),
        "num_decoder_engines": 7,
        "height_max": height,
        "width_max": width,
        "mb_num_max": 262144,
        "height_min": 64,
        "width_min": 64,
    }
