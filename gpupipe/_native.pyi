from collections.abc import Sequence
from typing import Any

ARITHMETIC_VERSION: int
COLOUR_SHIFT: int
MID_BITS: int

def simd_levels() -> list[str]: ...
def simd_level() -> str: ...
def set_simd(level: str | None) -> None: ...

class Resize:
    def __init__(
        self,
        *,
        size: tuple[int, int],
        crop: tuple[int, int, int, int],
        out: tuple[int, int],
        subsampling: tuple[int, int],
        siting: tuple[int, int],
        sample: tuple[int, int, int],
        components: Sequence[tuple[int, int, int, bool]],
        colour: Sequence[tuple[Sequence[int], int]],
        rotation: int,
        mirrored: bool,
    ) -> None: ...
    @property
    def planes(self) -> int: ...
    def run(self, planes: Sequence[Any], strides: Sequence[int], out: Any) -> None: ...
