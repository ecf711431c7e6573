"""CuPy, as far as it is asked whether it can compile."""

from cupy import cuda

__all__ = ["cuda"]
__version__ = "14.2.0"
