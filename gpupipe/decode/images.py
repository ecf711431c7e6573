"""Still pictures: the choice of a backend, and many small files read ahead, in order.

>>> with open_images() as decoder:  # doctest: +SKIP
...     for index, outcome in Images(paths, decoder):
...         ...
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence

from gpupipe.decode.base import MAX_PIXELS
from gpupipe.decode.image_base import ImageDecoder, Outcome, Still
from gpupipe.decode.image_cpu import CpuImages
from gpupipe.decode.image_file import ImageFile, ImageInfo
from gpupipe.errors import InputError, UsageError

__all__ = ["BACKENDS", "ImageDecoder", "ImageFile", "ImageInfo", "Images", "Outcome", "Still", "open_images"]

BACKENDS = ("auto", "cpu", "dali")

Source = str | os.PathLike[str] | bytes


def open_images(
    backend: str = "auto", device: str = "cpu", max_pixels: int = MAX_PIXELS, threads: int = 1
) -> ImageDecoder:
    """Make a decoder of still pictures.

    Parameters
    ----------
    backend : str
        ``"cpu"``; ``"dali"``, which refuses what it does not hold; ``"auto"``: on a GPU, if DALI is installed, DALI for
        the JPEG files that it holds and the CPU for all others; else the CPU. Which it is, is a matter of the file's
        header alone, and of :meth:`~gpupipe.decode.image_base.ImageDecoder.identity`.
    device : str
        ``"cpu"`` or ``"cuda:N"``.
    max_pixels : int
        Height x width of the largest picture; more is refused before there is memory for it.
    threads : int
        That DALI keeps on the CPU.

    Raises
    ------
    UsageError
        No such backend or device, or DALI is asked for and cannot be had; the message says why not.
    """
    if backend not in BACKENDS:
        raise UsageError(f"image backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    if device != "cpu" and not (device.startswith("cuda:") and device[5:].isdecimal()):
        raise UsageError(f"device {device!r}; expected cpu or cuda:N")
    if backend == "cpu" or (backend == "auto" and device == "cpu"):
        return CpuImages(max_pixels)
    from gpupipe.decode.dali import DaliImages, missing

    reason = missing()
    if reason is None:
        dali = DaliImages(device, max_pixels, threads)
        return dali if backend == "dali" else RoutedImages(dali, CpuImages(max_pixels))
    if backend == "dali":
        raise UsageError(f"image backend dali: {reason}")
    return CpuImages(max_pixels)


class RoutedImages(ImageDecoder):
    """Each picture by the first backend if that prefers it, else, and whenever that fails, by the second.

    Parameters
    ----------
    first : ImageDecoder
    second : ImageDecoder
        Holds every line of the contract; what is an error is its verdict.
    """

    backend = "auto"

    def __init__(self, first: ImageDecoder, second: ImageDecoder) -> None:
        super().__init__(second.max_pixels)
        self._first = first
        self._second = second
        self.batch = first.batch

    def identity(self) -> str:
        """Both, in order."""
        return f"{self._first.identity()}; else {self._second.identity()}"

    def decode_all(self, files: Sequence[ImageFile]) -> list[Outcome]:
        """Decode pictures, those of one backend together."""
        taken = [place for place, file in enumerate(files) if self._first.prefers(file.info)]
        found: dict[int, Outcome] = {}
        if taken:
            done = self._first.decode_all([files[place] for place in taken])
            found = {place: outcome for place, outcome in zip(taken, done, strict=True) if isinstance(outcome, Still)}
        left = [place for place in range(len(files)) if place not in found]
        found.update(zip(left, self._second.decode_all([files[place] for place in left]), strict=True))
        return [found[place] for place in range(len(files))]

    def close(self) -> None:
        """Close both."""
        self._first.close()
        self._second.close()


class Images:
    """Pictures of many files, read ahead by a few threads and handed out in order; a bad one costs no other.

    Parameters
    ----------
    sources : iterable of path or bytes
        Asked for as they are needed: a million of them need not be in memory.
    decoder : ImageDecoder
        Shared by the threads, and not closed here.
    threads : int
        That read and decode.
    nbytes : int
        Memory for pictures that are being decoded or wait to be handed out; a single larger one is decoded when
        nothing else is held before it.

    Examples
    --------
    >>> for index, outcome in Images(paths, decoder):  # doctest: +SKIP
    ...     if isinstance(outcome, Still):
    ...         use(outcome.rgb)
    ...     else:
    ...         print(outcome)  # an InputError, not raised
    """

    def __init__(
        self, sources: Iterable[Source], decoder: ImageDecoder, threads: int = 2, nbytes: int = 256 << 20
    ) -> None:
        if threads < 1:
            raise UsageError(f"{threads} threads; expected at least 1")
        self._sources = sources
        self._decoder = decoder
        self._threads = threads
        self._nbytes = nbytes

    def __iter__(self) -> Iterator[tuple[int, Outcome]]:
        """Yield ``(index, Still or InputError)``; whatever else is raised ends the iteration with that error."""
        ahead = _Ahead(iter(self._sources), self._decoder, self._threads, self._nbytes)
        threads = [threading.Thread(target=ahead.work, name=f"images-{i}", daemon=True) for i in range(self._threads)]
        for thread in threads:
            thread.start()
        try:
            yield from ahead.outcomes()
        finally:
            ahead.stop()
            for thread in threads:
                thread.join()


class _Ahead:
    """What the threads of one iteration share; everything below the decoder's work is under one condition.

    A group is decoded if there is memory for it, or if it holds the picture that is wanted next: so the iteration
    always goes on, whatever the sizes.
    """

    def __init__(self, sources: Iterator[Source], decoder: ImageDecoder, threads: int, nbytes: int) -> None:
        self._sources = sources
        self._decoder = decoder
        self._nbytes = nbytes
        self._share = max(1, nbytes // threads)
        self._window = 4 * threads * decoder.batch
        self._change = threading.Condition()
        self._done: dict[int, tuple[Outcome, int]] = {}
        self._taken = 0
        self._wanted = 0
        self._held = 0
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        """Hand out in order what the threads find."""
        while True:
            with self._change:
                self._change.wait_for(self._ready)
                if self._error is not None:
                    raise self._error
                if self._wanted not in self._done:
                    return
                index = self._wanted
                outcome, nbytes = self._done.pop(index)
                self._held -= nbytes
                self._wanted += 1
                self._change.notify_all()
            yield index, outcome

    def stop(self) -> None:
        """Let the threads end."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def work(self) -> None:
        """Read and decode groups until nothing is left; one thread's life."""
        try:
            while group := self._group():
                files = {index: file for index, file in group.items() if isinstance(file, ImageFile)}
                costs = {index: _cost(file) for index, file in files.items()}
                if not self._admit(min(group), sum(costs.values())):
                    return
                found = dict(zip(files, self._decoder.decode_all(list(files.values())), strict=True))
                with self._change:
                    for index, file in group.items():
                        outcome = file if isinstance(file, InputError) else found[index]
                        self._done[index] = outcome, costs.get(index, 0)
                    self._change.notify_all()
        except BaseException as error:  # for the thread that iterates
            with self._change:
                self._error = error
                self._stopped = True
                self._change.notify_all()

    def _group(self) -> dict[int, ImageFile | InputError]:
        """Read the next few files."""
        group: dict[int, ImageFile | InputError] = {}
        cost = 0
        while len(group) < self._decoder.batch and cost < self._share:
            taken = self._take(wait=not group)
            if taken is None:
                break
            index, source = taken
            try:
                file = self._decoder.load(source)
            except InputError as error:
                group[index] = error
            else:
                group[index] = file
                cost += _cost(file)
        return group

    def _take(self, wait: bool) -> tuple[int, Source] | None:
        """The next source and its number; None if there is none, or none that may be read yet and `wait` is false."""
        with self._change:
            if wait:
                self._change.wait_for(lambda: self._stopped or self._ended or self._near())
            if self._stopped or self._ended or not self._near():
                return None
            try:
                source = next(self._sources)
            except StopIteration:
                self._ended = True
                self._change.notify_all()
                return None
            self._taken += 1
            return self._taken - 1, source

    def _admit(self, first: int, cost: int) -> bool:
        """Wait for memory; False once the iteration is given up."""
        with self._change:
            self._change.wait_for(lambda: self._stopped or first == self._wanted or self._held + cost <= self._nbytes)
            self._held += cost
            return not self._stopped

    def _near(self) -> bool:
        return self._taken - self._wanted < self._window

    def _ready(self) -> bool:
        over = self._ended and self._wanted == self._taken
        return self._wanted in self._done or over or self._error is not None


def _cost(file: ImageFile) -> int:
    """Bytes that decoding takes at most, about: the file, and the pixels three times (see :class:`CpuImages`)."""
    return len(file.data) + 9 * file.info.height * file.info.width
