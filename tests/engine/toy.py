"""A job without media: each item's rows follow from its number, and misdeeds can be planted."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gpupipe.errors import InputError, MissingInputError, OutputError
from gpupipe.job import Completion, Facts, ItemLoop
from gpupipe.memory import RowSpec
from gpupipe.sinks.base import Sample
from gpupipe.sinks.files import publish
from gpupipe.sinks.npy import NpySink
from gpupipe.sinks.samples import SamplesSink
from gpupipe.sinks.webdataset import WebDatasetSink


class GrudgeError(InputError):
    """An item that fails until it is forgiven."""


@dataclass(frozen=True)
class ToyJob:
    """`plan_file`: a JSON list of words, one an item: ok, needs-input, or a misdeed."""

    name = "toy"
    pace = 1.0
    beside = ()
    elsewhere = ()
    backend = "ffmpeg"
    format: str = "npy"
    shard_size: int = 8
    salt: int = 0
    delay: float = 0.0
    plan_file: str = ""
    marks: str = ""

    def options(self):
        return {key: value for key, value in asdict(self).items() if key not in ("plan_file", "marks", "delay")}

    def inputs(self):
        return {"plan_file": self.plan_file, "marks": self.marks, "delay": self.delay}

    def check(self):
        pass

    def source(self):
        return Path(self.plan_file)

    def write_items(self, writer):
        for word in json.loads(self.source().read_text()):
            writer.add(word)

    def item_id(self, ordinal, item):
        return f"{ordinal:06d}_{item}"

    def blob_name(self, ordinal, item):
        return f"{ordinal:06d}" if self.format == "webdataset" else f"sample_{ordinal:06d}_{item}"

    def input_file(self, item):
        return f"{self.marks}/input-{item}"

    def probe(self, item):
        if item == "absent":
            raise MissingInputError(f"{item}: no such file")
        if item == "crash-probe":
            os.abort()
        if item == "hang-probe":
            time.sleep(3600)
        return Facts(codec="toy", layout="flat", size=(2, 3), seconds=float(len(item)), backend="none")

    def rows(self):
        return [RowSpec("payload", (64,), "|u1"), RowSpec("pair", (2,), "<i8"), RowSpec("valid", (), "|b1")]

    def sink(self, place):
        kinds = {"samples": SamplesSink, "webdataset": WebDatasetSink}
        return NpySink(place, self.rows()) if self.format == "npy" else kinds[self.format](place)

    def operator(self, place, device):
        return ItemLoop(self._process, lambda: None)

    def _process(self, work):
        word = work.item
        if self.marks:
            with Path(self.marks, "tries").open("a") as tries:
                tries.write(f"{work.ordinal}\n")
        with work.stages("work"):
            if self.delay:
                time.sleep(self.delay)
            if word == "needs-input" and work.fingerprint == "absent":
                raise InputError(f"item {work.ordinal}: no input")
            misdeed(word, work.ordinal, self.marks)
            rows = work.slot.rows
            rows["payload"][:] = payload(work.ordinal, self.salt)
            rows["pair"][:] = (work.ordinal, self.salt)
            rows["valid"][...] = True
        data = rows["payload"].tobytes() * 20
        files = {"bin": [data], "json": [json.dumps({"n": work.ordinal}).encode()]}
        return Completion(
            work, Sample(self.blob_name(work.ordinal, word), rows, lambda: files), record=str(work.ordinal)
        )

    def thumbnail(self, place, ordinal, item, outcome):
        return None

    def finish(self, dataset):
        done = [outcome.ordinal for outcome in dataset.outcomes() if outcome.state == 1]
        publish(dataset.place.out / "dataset_info.json", [json.dumps(done).encode()], dataset.place.staging)

    def remains(self):
        return ["dataset_info.json"]


def misdeed(word, ordinal, marks):
    """What an item of this word does to its worker; nothing where the word names no misdeed."""
    if word == "fail":
        raise InputError(f"item {ordinal}: planted")
    if word == "grudge" and not Path(marks, "forgiven").exists():
        raise GrudgeError(f"item {ordinal}: not yet")
    if word == "bug":
        raise ZeroDivisionError("planted")
    if word == "full":
        raise OutputError(28, "cannot write x: No space left on device")
    if word == "crash":
        os.abort()
    if word == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "crash-once" and not Path(marks, f"crashed-{ordinal}").exists():
        Path(marks, f"crashed-{ordinal}").touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "hungry":
        np.ones(1 << 30, np.uint8)
    if word == "stuck":
        Path(marks, "stuck").touch()
        time.sleep(3600)


def payload(ordinal, salt=0):
    return np.random.default_rng((ordinal, salt)).integers(0, 256, 64, dtype=np.uint8)
