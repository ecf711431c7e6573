"""Where each FFmpeg pixel format keeps its samples, as far as the pixel path reads it.

The facts are those of FFmpeg's ``libavutil/pixdesc.c``, restated, since :mod:`gpupipe.transform` must know them without
FFmpeg.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpupipe.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Component:
    """One colour component: sample ``i`` of a row is word ``offset + i * step`` of that row of ``plane``."""

    plane: int
    offset: int = 0
    step: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """A pixel format that is read as it is.

    Attributes
    ----------
    name : str
        FFmpeg's name.
    family : str
        ``"yuv"``, ``"rgb"`` or ``"gray"``.
    components : tuple of Component
        Y, U, V or R, G, B or the gray one; alpha is not read.
    subsampling : (int, int)
        log2 of the vertical and horizontal subsampling of U and V.
    word_bytes, shift, depth : int
        A sample is ``(word >> shift) & (2**depth - 1)``, words little endian.
    full_range : bool
        True where the format itself says so (RGB, yuvj), whatever the stream is tagged.
    """

    name: str
    family: Literal["yuv", "rgb", "gray"]
    components: tuple[Component, ...]
    subsampling: tuple[int, int] = (0, 0)
    word_bytes: int = 1
    shift: int = 0
    depth: int = 8
    full_range: bool = False


def layout_of(name: str) -> Layout:
    """Return the layout of a pixel format that is read natively.

    Raises
    ------
    UnsupportedError
        Any other format; the message names the native one to convert to, if there is one.
    """
    try:
        return _LAYOUTS[name]
    except KeyError:
        native = native_layout(name)
    raise UnsupportedError(f"pixel format {name} is not read as it is; convert it to {native} first (nothing is lost)")


def native_layout(name: str) -> str:
    """Name the natively read pixel format that holds everything ``name`` holds, but alpha.

    Parameters
    ----------
    name : str
        FFmpeg's name of a pixel format.

    Returns
    -------
    str
        ``name`` itself where it is native; else what swscale converts it to without loss (expanding 5- and
        6-bit RGB, palettes and bits to 8 bits is not a loss).

    Raises
    ------
    UnsupportedError
        Floating point, Bayer, XYZ, hardware surfaces, and names that are unknown.
    """
    if name in _LAYOUTS:
        return name
    if name in _CONVERTED:
        return _CONVERTED[name]
    if name.endswith("be") and not name.startswith("y2") and name[:-2] + "le" in _LAYOUTS:  # no swscale input for y2
        return name[:-2] + "le"
    raise UnsupportedError(
        f"pixel format {name} cannot be read, nor converted without loss; expected 8- to 16-bit YUV, RGB or gray. "
        "Convert the file first: ffmpeg -i IN -pix_fmt yuv444p OUT"
    )


def _build() -> dict[str, Layout]:
    layouts: dict[str, Layout] = {}

    def add(
        name: str,
        family: Literal["yuv", "rgb", "gray"],
        components: tuple[Component, ...],
        chroma: str = "444",
        depth: int = 8,
        shift: int = 0,
        full_range: bool = False,
    ) -> None:
        word_bytes = 2 if depth + shift > 8 else 1
        layouts[name] = Layout(
            name, family, components, _SUBSAMPLING[chroma], word_bytes, shift, depth, full_range or family == "rgb"
        )

    planar = (Component(0), Component(1), Component(2))
    for chroma, depths in _PLANAR_DEPTHS.items():
        add(f"yuv{chroma}p", "yuv", planar, chroma)
        add(f"yuvj{chroma}p", "yuv", planar, chroma, full_range=True)
        for depth in depths:
            add(f"yuv{chroma}p{depth}le", "yuv", planar, chroma, depth)
    del layouts["yuvj410p"]  # FFmpeg has none
    for chroma in ("420", "422", "444"):
        add(f"yuva{chroma}p", "yuv", planar, chroma)
        for depth in (9, 10, 16) if chroma == "420" else (9, 10, 12, 16):
            add(f"yuva{chroma}p{depth}le", "yuv", planar, chroma, depth)

    gbr = (Component(2), Component(0), Component(1))  # as R, G, B
    for name, depths in (("gbrp", (9, 10, 12, 14, 16)), ("gbrap", (10, 12, 14, 16))):
        add(name, "rgb", gbr)
        for depth in depths:
            add(f"{name}{depth}le", "rgb", gbr, depth=depth)
    for depth in (10, 12):  # samples in the high bits
        add(f"yuv444p{depth}msble", "yuv", planar, depth=depth, shift=16 - depth)
        add(f"gbrp{depth}msble", "rgb", gbr, depth=depth, shift=16 - depth)

    add("gray", "gray", (Component(0),))
    add("ya8", "gray", (Component(0, 0, 2),))
    add("ya16le", "gray", (Component(0, 0, 2),), depth=16)
    for depth in (9, 10, 12, 14, 16):
        add(f"gray{depth}le", "gray", (Component(0),), depth=depth)

    uv = (Component(0), Component(1, 0, 2), Component(1, 1, 2))
    vu = (uv[0], uv[2], uv[1])
    for name, chroma in (("nv12", "420"), ("nv16", "422"), ("nv24", "444")):
        add(name, "yuv", uv, chroma)
    add("nv21", "yuv", vu, "420")
    add("nv42", "yuv", vu, "444")
    add("nv20le", "yuv", uv, "422", 10)
    for letter, chroma in (("0", "420"), ("2", "422"), ("4", "444")):
        for depth in (10, 12, 16):
            add(f"p{letter}{depth}le", "yuv", uv, chroma, depth, 16 - depth)

    for name in ("rgb24", "bgr24", "rgba", "bgra", "argb", "abgr", "rgb0", "bgr0", "0rgb", "0bgr"):
        letters = name.removesuffix("24")
        add(name, "rgb", tuple(Component(0, letters.index(c), len(letters)) for c in "rgb"))
    for name in ("rgb48le", "bgr48le", "rgba64le", "bgra64le"):
        letters = name[:-4]
        add(name, "rgb", tuple(Component(0, letters.index(c), len(letters)) for c in "rgb"), depth=16)

    for name, (y, u, v) in {"yuyv422": (0, 1, 3), "yvyu422": (0, 3, 1), "uyvy422": (1, 0, 2)}.items():
        add(name, "yuv", (Component(0, y, 2), Component(0, u, 4), Component(0, v, 4)), "422")
    for depth in (10, 12, 16):
        yuyv = (Component(0, 0, 2), Component(0, 1, 4), Component(0, 3, 4))
        add(f"y2{depth}le", "yuv", yuyv, "422", depth, 16 - depth)
    for name in ("vuyx", "vuya", "ayuv", "uyva", "vyu444"):
        letters = name.removesuffix("444")
        add(name, "yuv", tuple(Component(0, letters.index(c), len(letters)) for c in "yuv"))
    for name, letters, depth in (("xv36le", "uyvx", 12), ("xv48le", "uyvx", 16), ("ayuv64le", "ayuv", 16)):
        packed = tuple(Component(0, letters.index(c), 4) for c in "yuv")
        add(name, "yuv", packed, depth=depth, shift=16 - depth)
    return layouts


_SUBSAMPLING = {"444": (0, 0), "422": (0, 1), "420": (1, 1), "440": (1, 0), "411": (0, 2), "410": (2, 2)}
_PLANAR_DEPTHS: dict[str, tuple[int, ...]] = {
    "420": (9, 10, 12, 14, 16),
    "422": (9, 10, 12, 14, 16),
    "444": (9, 10, 12, 14, 16),
    "440": (10, 12),
    "411": (),
    "410": (),
}
_CONVERTED = {
    **dict.fromkeys(("pal8", "rgb8", "bgr8", "rgb4_byte", "bgr4_byte"), "rgb24"),
    # Not gray: bits are black and white whatever range the stream is tagged with.
    **dict.fromkeys(("monoblack", "monowhite", "monob", "monow"), "rgb24"),
    # Not the 444 ones, whose white swscale makes 240, nor the big-endian ones, whose bytes it swaps (FFmpeg 8.0).
    **dict.fromkeys(("rgb555le", "rgb565le", "bgr555le", "bgr565le"), "rgb24"),
    **dict.fromkeys(("x2rgb10le", "x2bgr10le"), "gbrp10le"),
    **dict.fromkeys(("xv30le", "v30xle"), "yuv444p10le"),
    "uyyvyy411": "yuv411p",
}
_LAYOUTS = _build()
