"""The synthetic clips that every backend must decode exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from synth import Clip, variable

_X264 = {"preset": "veryfast"}
_X265 = {"preset": "ultrafast"}
_VP9 = {"deadline": "realtime", "cpu-used": "8"}
_AV1 = {"preset": "12", "crf": "30"}
_LAYERS = (
    "ts_number_layers=3:ts_target_bitrate=100,200,300:ts_rate_decimator=4,2,1:ts_periodicity=4:ts_layer_id=0,2,1,2:"
    "ts_layering_mode=3"
)
_LIVE = {"deadline": "realtime", "cpu-used": "7", "lag-in-frames": "0", "b": "300k", "aq-mode": "3"}


def _x264(params: str, **more: object) -> Clip:
    return Clip(count=60, options={**_X264, "x264-params": params}, **more)


def _x265(params: str, **more: object) -> Clip:
    return Clip("libx265", count=60, options={**_X265, "x265-params": params}, **more)


PLANNED = {
    "h264": _x264("keyint=250"),
    "h264 pyramid": _x264("keyint=24:min-keyint=24:bframes=5:b-pyramid=normal:b-adapt=0:ref=4"),
    "h264 strict pyramid": _x264("keyint=24:min-keyint=24:bframes=3:b-pyramid=strict:b-adapt=0"),
    "h264 open gop": _x264("keyint=12:min-keyint=12:open-gop=1:bframes=3:b-adapt=0:b-pyramid=normal:ref=3"),
    "h264 open gop ts": _x264("keyint=12:min-keyint=12:open-gop=1:bframes=2:b-adapt=0:ref=5", suffix="ts"),
    "h264 closed gop ts": _x264("keyint=10:min-keyint=10:scenecut=0", suffix="ts"),
    "h264 closed gop": _x264("keyint=10:min-keyint=10:scenecut=0"),
    "h264 no b": _x264("bframes=0:keyint=15"),
    "h264 intra": _x264("keyint=1"),
    "h264 intra refresh": _x264("intra-refresh=1:keyint=20:bframes=0"),
    "h264 slices": _x264("slices=4:keyint=20:bframes=2"),
    "h264 mbaff": _x264("tff=1:keyint=20:bframes=2"),
    "h264 cavlc baseline": _x264("bframes=0:cabac=0:8x8dct=0:weightp=0:keyint=15"),
    "h264 10 bit": _x264("keyint=20", layout="yuv420p10le"),
    "h264 422": _x264("keyint=20", layout="yuv422p"),
    "h264 444": _x264("keyint=20", layout="yuv444p"),
    "h264 gray": _x264("keyint=20", layout="gray"),
    "h264 odd": _x264("keyint=20", layout="yuv444p", size=(97, 131)),
    "h264 rgb": Clip("libx264rgb", layout="bgr24", options=_X264),
    "h264 mkv": _x264("keyint=20:bframes=3", suffix="mkv"),
    "h264 flv": _x264("keyint=20:bframes=3", suffix="flv"),
    "h264 vfr": variable(_x264("keyint=20:bframes=3")),
    "h264 vfr mkv": variable(_x264("keyint=20:bframes=3", suffix="mkv")),
    "h264 fragmented": _x264("keyint=20", muxer={"movflags": "frag_keyframe+empty_moov"}),
    "h264 late": Clip(pts=tuple(range(5000, 5000 + 40 * 40, 40)), options=_X264, suffix="mkv"),
    "h264 late ts": Clip(pts=tuple(range(5000, 5000 + 40 * 40, 40)), options=_X264, suffix="ts"),
    "h264 gaps": Clip(pts=tuple(i * 40 + i // 10 * 3000 for i in range(40)), options=_X264),
    "hevc": _x265("keyint=250:bframes=4"),
    "hevc open gop": _x265("keyint=12:min-keyint=12:open-gop=1:bframes=4:b-adapt=0:ref=3"),
    "hevc closed gop": _x265("keyint=12:min-keyint=12:open-gop=0:bframes=3:b-adapt=0"),
    "hevc temporal layers": _x265("keyint=24:min-keyint=24:bframes=4:b-adapt=0:temporal-layers=1"),
    "hevc three layers": _x265("keyint=32:min-keyint=32:bframes=4:b-adapt=0:temporal-layers=3"),
    "hevc no b": _x265("bframes=0:keyint=15"),
    "hevc intra": _x265("keyint=1"),
    "hevc 10 bit": _x265("keyint=20", layout="yuv420p10le"),
    "hevc 12 bit 444": _x265("keyint=20", layout="yuv444p12le"),
    "hevc 422": _x265("keyint=20", layout="yuv422p10le"),
    "hevc gray": _x265("keyint=20", layout="gray"),
    "hevc mkv": _x265("keyint=20", suffix="mkv"),
    "hevc ts": _x265("keyint=20", suffix="ts"),
    "vp8": Clip("libvpx", "webm", options={**_VP9, "auto-alt-ref": "1", "lag-in-frames": "10"}, gop=15),
    "vp9": Clip("libvpx-vp9", "webm", options={"cpu-used": "6", "lag-in-frames": "16"}, gop=15, count=60),
    "vp9 mp4": Clip("libvpx-vp9", options=_VP9, gop=15),
    "vp9 444": Clip("libvpx-vp9", "webm", layout="yuv444p", options=_VP9),
    "vp9 odd": Clip("libvpx-vp9", "webm", size=(97, 131), options=_VP9),
    "vp9 temporal layers": Clip(
        "libvpx-vp9", "webm", count=60, gop=30, options={**_LIVE, "error-resilient": "1", "ts-parameters": _LAYERS}
    ),
    "vp9 layers not resilient": Clip(
        "libvpx-vp9", "webm", count=60, gop=30, options={**_LIVE, "error-resilient": "0", "ts-parameters": _LAYERS}
    ),
    "av1": Clip("libsvtav1", options=_AV1, count=60, gop=20),
    "av1 10 bit webm": Clip("libsvtav1", "webm", layout="yuv420p10le", options=_AV1),
    "av1 low delay": Clip("libsvtav1", count=60, gop=30, options={**_AV1, "svtav1-params": "pred-struct=1"}),
    "av1 grain": Clip("libsvtav1", count=40, options={**_AV1, "svtav1-params": "film-grain=10"}),
    "mpeg4": Clip("mpeg4", options={"qscale": "3"}, gop=12),
    "mpeg4 b": Clip("mpeg4", options={"qscale": "3"}, gop=12, b_frames=2),
    "mpeg4 avi": Clip("mpeg4", "avi", gop=12),
    "mpeg4 odd": Clip("mpeg4", "mkv", size=(97, 131), gop=12, b_frames=1),
    "mpeg2": Clip("mpeg2video", "ts", gop=12, b_frames=2),
    "mpeg2 no b": Clip("mpeg2video", "mkv", gop=9, b_frames=0),
    "mpeg2 422": Clip("mpeg2video", "mkv", layout="yuv422p", gop=9, b_frames=2),
    "mpeg1": Clip("mpeg1video", "mkv", gop=12, b_frames=2),
    "mjpeg": Clip("mjpeg", "mov", layout="yuvj420p"),
    "mjpeg avi": Clip("mjpeg", "avi", layout="yuvj422p", size=(97, 131)),
    "prores": Clip("prores_ks", "mov", layout="yuv422p10le", count=20),
    "prores alpha": Clip("prores_ks", "mov", layout="yuva444p10le", options={"profile": "4"}, count=20),
    "dnxhd": Clip("dnxhd", "mov", layout="yuv422p", size=(144, 256), options={"profile": "dnxhr_sq"}, count=12),
    "dv": Clip("dvvideo", "avi", size=(576, 720), count=8),
    "huffyuv": Clip("huffyuv", "avi", layout="yuv422p", count=20),
    "ffvhuff": Clip("ffvhuff", "nut", layout="yuv420p10le", count=20),
    "utvideo": Clip("utvideo", "avi", layout="gbrp", count=20),
    "magicyuv": Clip("magicyuv", "mov", layout="yuva444p", count=20),
    "jpeg2000": Clip("jpeg2000", "mov", layout="yuv444p12le", count=12),
    "v210": Clip("v210", "mov", layout="yuv422p10le", count=12),
    "raw": Clip("rawvideo", "nut", count=20),
    "raw bottom up": Clip("rawvideo", "avi", layout="bgr24", count=20),
    "raw 16 bit big endian": Clip("rawvideo", "nut", layout="gray16be", count=20),
    "raw rgb 555": Clip("rawvideo", "nut", layout="rgb555le", count=20),
    "raw mono": Clip("rawvideo", "nut", layout="monow", count=20),
}
"""Clips whose packets say what is shown; the index must be exact without counting."""

COUNTED = {
    "h264 avi": Clip(suffix="avi", options=_X264, b_frames=3),
    "h264 stream": Clip(suffix="h264", options=_X264, gop=12),
    "hevc stream": Clip("libx265", "hevc", options=_X265, gop=12),
    "mpeg4 b avi": Clip("mpeg4", "avi", gop=12, b_frames=2),
    "mpeg2 program stream": Clip("mpeg2video", "mpg", gop=12, b_frames=2),
    "ffv1": Clip("ffv1", "mkv"),
    "ffv1 16 bit": Clip("ffv1", "mkv", layout="yuv444p16le", count=12),
    "ffv1 gray 10": Clip("ffv1", "mkv", layout="gray10le", count=12),
    "ffv1 410": Clip("ffv1", "mkv", layout="yuv410p", count=12),
    "pal8 raw": Clip("rawvideo", "nut", layout="pal8", count=12),
    "pal8 avi": Clip("rawvideo", "avi", layout="pal8", count=12),
    "pal8 gif": Clip("gif", "gif", layout="pal8", rate=Fraction(20), count=12),
    "gif": Clip("gif", "gif", layout="rgb8", rate=Fraction(20), count=20),
    "apng": Clip("apng", "apng", layout="rgb24", count=12),
    "h261": Clip("h261", "avi", size=(144, 176)),
    "h263": Clip("h263", "mov"),
    "h263p": Clip("h263p", "avi"),
    "flv1": Clip("flv", "flv"),
    "flashsv": Clip("flashsv", "avi", layout="bgr24", count=20),
    "flashsv2": Clip("flashsv2", "flv", layout="bgr24", count=20),
    "msmpeg4v2": Clip("msmpeg4v2", "avi"),
    "msmpeg4v3": Clip("msmpeg4", "avi"),
    "wmv1": Clip("wmv1", "asf"),
    "wmv2": Clip("wmv2", "asf"),
    "rv10": Clip("rv10", "rm"),
    "rv20": Clip("rv20", "rm"),
    "snow": Clip("snow", "mkv"),
    "svq1": Clip("svq1", "mov", layout="yuv410p"),
    "asv1": Clip("asv1", "avi"),
    "asv2": Clip("asv2", "avi"),
    "amv": Clip("amv", "avi", layout="yuvj420p"),
    "avrp": Clip("avrp", "mov", layout="gbrp10le", count=12),
    "cfhd": Clip("cfhd", "mov", layout="yuv422p10le", count=12),
    "cinepak": Clip("cinepak", "mov", layout="rgb24", count=6),
    "cljr": Clip("cljr", "avi", layout="yuv411p", count=12),
    "dpx": Clip("dpx", "mov", layout="rgb24", count=12),
    "dxv": Clip("dxv", "mov", layout="rgba", count=12),
    "jpegls": Clip("jpegls", "avi", layout="bgr24", count=12),
    "msvideo1": Clip("msvideo1", "avi", layout="rgb555le", count=12),
    "png": Clip("png", "mov", layout="rgba", count=12),
    "png 16 bit": Clip("png", "mov", layout="rgb48be", count=12),
    "qtrle": Clip("qtrle", "mov", layout="rgb24", count=12),
    "r10k": Clip("r10k", "mov", layout="gbrp10le", count=12),
    "r210": Clip("r210", "mov", layout="gbrp10le", count=12),
    "roq": Clip("roqvideo", "roq", layout="yuvj444p", rate=Fraction(30), count=8),
    "rpza": Clip("rpza", "mov", layout="rgb555le", count=12),
    "sgi": Clip("sgi", "mov", layout="rgb24", count=12),
    "speedhq": Clip("speedhq", "avi", count=12),
    "targa": Clip("targa", "mov", layout="bgr24", count=12),
    "tiff": Clip("tiff", "mov", layout="rgb24", count=12),
    "v308": Clip("v308", "mov", layout="yuv444p", count=12),
    "v408": Clip("v408", "mov", layout="yuva444p", count=12),
    "v410": Clip("v410", "mov", layout="yuv444p10le", count=12),
    "y41p": Clip("y41p", "mov", layout="yuv411p", count=12),
    "yuv4": Clip("yuv4", "mov", count=12),
    "zlib": Clip("zlib", "avi", layout="bgr24", count=12),
}
"""Clips whose pictures may have to be counted."""


def random_clip(seed: int) -> Clip:
    """A clip of random structure; the codecs take turns."""
    random = np.random.default_rng(seed)

    def upto(high: int, low: int = 0) -> int:
        return int(random.integers(low, high + 1))

    def one_of(*values: str) -> str:
        return values[upto(len(values) - 1)]

    codec = ("libx264", "libx265", "libsvtav1", "libx264", "libx265", "libvpx-vp9", "mpeg2video", "libvpx", "mpeg4")[
        seed % 9
    ]
    gop, count = upto(40, 4), upto(80, 40)
    if codec in ("libx264", "libx265"):
        params: dict[str, object] = {
            "keyint": gop,
            "min-keyint": upto(gop, 1),
            "bframes": upto(6),
            "b-adapt": upto(1),
            "open-gop": upto(1),
            "ref": upto(6, 1),
            "scenecut": upto(1) * 60,
        }
        if codec == "libx264":
            params |= {"weightp": upto(2), "slices": upto(4, 1), "b-pyramid": one_of("none", "strict", "normal")}
        else:
            params |= {"temporal-layers": upto(3), "b-pyramid": upto(1), "rd": 1}
        text = ":".join(f"{key}={value}" for key, value in params.items())
        options = {"preset": "veryfast", f"{codec[3:]}-params": text}
        clip = Clip(codec, one_of("mp4", "mkv", "ts"), count, options=options)
    elif codec == "libsvtav1":
        text = f"hierarchical-levels={upto(5, 2)}:pred-struct={upto(2, 1)}"
        clip = Clip(codec, one_of("mp4", "webm"), count, options={"preset": "12", "svtav1-params": text}, gop=gop)
    elif codec in ("libvpx-vp9", "libvpx"):
        options = {"deadline": "realtime", "cpu-used": "8", "error-resilient": one_of("0", "default"), "b": "200k"}
        if upto(1) and codec == "libvpx-vp9":
            options |= {"lag-in-frames": "0", "aq-mode": one_of("0", "3"), "ts-parameters": _LAYERS}
        else:
            options |= {"lag-in-frames": str(upto(20)), "auto-alt-ref": str(upto(1))}
        clip = Clip(codec, one_of("webm", "mkv"), count, options=options, gop=gop)
    else:
        clip = Clip(codec, one_of("mp4", "mkv"), count, options={"qscale": "4"}, gop=gop, b_frames=upto(3))
    return variable(clip) if codec != "mpeg2video" and upto(3) == 0 else clip
