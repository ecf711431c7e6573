"""Where the networks run, how precisely, and what torch is told meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy.typing as npt
import torch

from gpupipe.errors import DeviceLostError, DeviceMemoryError, UsageError

PRECISIONS = ("fp32", "hybrid")
"""``"hybrid"``: the networks that give points compute in float16, those that find regions in float32."""

_WARM_UPS = 2  # before a capture: libraries choose and load their kernels

Tensors = tuple[Any, ...]
Array = npt.NDArray[Any]


class Runtime:
    """A device for one executor. Used by one thread at a time.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    precision : str
        One of :data:`PRECISIONS`.
    batch : int
        Images a batch. Every batch is filled up to it, so that the same kernels run whatever is in it; it decides the
        last bits of the numbers.

    Attributes
    ----------
    device : torch.device
    batch : int

    Raises
    ------
    UsageError
        There is no such device, or it does not compute so.
    """

    def __init__(self, device: str = "cpu", precision: str = "fp32", batch: int = 8) -> None:
        self.device = _device(device)
        if precision not in PRECISIONS:
            raise UsageError(f"precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
        if precision == "hybrid" and not self.on_card:
            raise UsageError("precision 'hybrid' on the CPU, which computes float16 no faster; use fp32, or a GPU")
        if batch < 1:
            raise UsageError(f"batches of {batch} images; expected at least 1")
        self._precision = precision
        self.batch = batch
        self._stream = torch.cuda.Stream(self.device) if self.on_card else None

    @property
    def on_card(self) -> bool:
        """The device is a GPU."""
        return bool(self.device.type == "cuda")

    def dtype(self, landmarks: bool) -> Any:
        """What a network computes in; `landmarks`: it gives points."""
        return torch.float16 if landmarks and self._precision == "hybrid" else torch.float32

    def identity(self) -> str:
        """What decides the numbers, in words, for a plan's hash."""
        place = f"cuda ({torch.cuda.get_device_name(self.device)})" if self.on_card else "cpu"
        release = str(torch.__version__).partition("+")[0]
        return f"torch {release} {place} {self._precision}"

    @contextmanager
    def work(self) -> Iterator[None]:
        """Everything of the executor happens inside; torch's settings are as before behind it.

        One thread on the CPU, as of every worker; float32 in full (no TF32); kernels that give the same every time.

        Raises
        ------
        DeviceMemoryError
            The device has not so much memory left.
        DeviceLostError
            The device no longer answers.
        """
        try:
            with ExitStack() as settings:
                settings.enter_context(torch.inference_mode())
                if self._stream is None:
                    settings.callback(torch.set_num_threads, torch.get_num_threads())
                    torch.set_num_threads(1)
                else:
                    settings.enter_context(torch.cuda.device(self.device))
                    settings.enter_context(torch.cuda.stream(self._stream))
                    settings.enter_context(_exact())
                yield
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(f"{self.device}: {error}") from error
        except torch.AcceleratorError as error:
            raise DeviceLostError(f"{self.device}: {error}; its items go to other workers") from error

    def captured(self, function: Callable[..., Tensors]) -> Callable[..., Tensors]:
        """The same function, on a GPU as one CUDA graph, captured at its first call.

        It takes and gives tensors of shapes that never change. On a GPU what it gives is overwritten by the next call.
        """
        return function if self._stream is None else _Captured(function, self._stream)

    def staging(self, nbytes: int) -> Any:
        """Host memory to be copied to the device, uint8 [nbytes], not cleared; page-locked for a GPU."""
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=self.on_card)

    def to_device(self, values: Array) -> Any:
        """A copy on the device; on a GPU it may still be on its way, in the order of the stream."""
        host = torch.from_numpy(values)
        return host.clone() if self._stream is None else host.pin_memory().to(self.device, non_blocking=True)

    def fetch(self, tensors: Sequence[Any]) -> Callable[[], list[Array]]:
        """Begin to copy results off the device; call what is returned for the arrays."""
        if self._stream is None:
            arrays = [tensor.numpy() for tensor in tensors]
            return lambda: arrays
        held = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        for here, there in zip(held, tensors, strict=True):
            here.copy_(there, non_blocking=True)
        done = torch.cuda.Event()
        done.record(self._stream)

        def wait() -> list[Array]:
            done.synchronize()
            return [here.numpy() for here in held]

        return wait

    def close(self) -> None:
        """Give back what torch keeps of the device's memory; what is still used stays."""
        if self.on_card:
            torch.cuda.empty_cache()


class _Captured:
    """A function as a CUDA graph, with inputs and outputs that stay where they are."""

    def __init__(self, function: Callable[..., Tensors], stream: Any) -> None:
        self._function, self._stream = function, stream
        self._graph: Any = None
        self._inputs: list[Any] = []
        self._outputs: Tensors = ()

    def __call__(self, *inputs: Any) -> Tensors:
        if self._graph is None:
            self._capture(inputs)
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        return self._outputs

    def _capture(self, inputs: Tensors) -> None:
        self._inputs = [given.clone() for given in inputs]
        for _ in range(_WARM_UPS):
            self._function(*self._inputs)
        graph = torch.cuda.CUDAGraph()
        # Other threads of this process may use the device meanwhile.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._outputs = self._function(*self._inputs)
        self._graph = graph


def _device(name: str) -> Any:
    kind, _, number = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise UsageError(f"device {name!r}; expected cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise UsageError(
            f"device {name!r}: torch {torch.__version__} sees {count} GPUs. Use cpu; or install a torch that is built "
            "for this machine's driver: pip install 'gpupipe[cu13]'"
        )
    return torch.device("cuda", int(number or 0))


@contextmanager
def _exact() -> Iterator[None]:
    """Float32 multiplied as such, by kernels that are chosen by shape alone."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        matmul.allow_tf32 = False
        try:
            yield
        finally:
            matmul.allow_tf32 = before
