"""Events that are no plain scalars: pictures, histograms, texts, hyperparameters; carried as they are."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.util import tensor_util

WHOLE = ("graph_def", "meta_graph_def", "tagged_run_metadata")
"""What an event is as a whole, where it is no summary: a model's graph, and what a step of it took."""


RAW = "\0"
"""Begins the key of what is no scalar."""


class Place(Enum):
    """Where in the view an event belongs."""

    STITCHED = "stitched"
    """By its step, as a scalar."""
    JOB = "job"
    """What a job says of itself at its start: texts, the graph."""
    ONCE = "once"
    """What holds for the whole run, of the first job that says it: hyperparameters, layouts."""


_PLACES = {"text": Place.JOB, "hparams": Place.ONCE, "custom_scalars": Place.ONCE}
"""By TensorBoard's plugin; of any other, and of values without one, STITCHED."""


class Showable(Protocol):
    """Something that can be shown at a step."""

    def event(self, step: int, wall_time: float) -> bytes:
        """As it goes into the view. Raises OSError, and DecodeError where the file it is in is another by now."""


@dataclass(frozen=True)
class RawEvent:
    """An event in some file, to be copied from there."""

    path: Path
    offset: int
    """Where its data begin."""
    length: int
    value: int
    """Which value of its summary."""
    metadata: SummaryMetadata | None
    """To be put in where the value has none: writers give it with the first value of a tag alone."""
    print: int
    """Fingerprint of what stood there when it was found."""

    def event(self, step: int, wall_time: float) -> bytes:
        """That value at this step."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            event = Event.FromString(file.read(self.length))
        found = [said for said in describe(event, {}) if said.value == self.value]
        if not found or (event.WhichOneof("what") in WHOLE and found[0].print != self.print):
            raise DecodeError("another event stands there by now")
        if event.WhichOneof("what") in WHOLE:
            event.step, event.wall_time = step, wall_time
            return bytes(event.SerializeToString())
        value = _whole(event.summary.value[self.value], self.metadata)
        if fingerprint(value) != self.print:
            raise DecodeError("another event stands there by now")
        return event_of(value, step, wall_time)


@dataclass(frozen=True)
class Png:
    """A picture in a file; its size in pixels stands in the first bytes of the PNG itself."""

    tag: str
    path: Path

    def value(self) -> Summary.Value:
        """As it is shown. Raises OSError."""
        png = self.path.read_bytes()
        width, height = (int.from_bytes(png[place : place + 4], "big") for place in (16, 20))
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
        return Summary.Value(tag=self.tag, image=image)

    def event(self, step: int, wall_time: float) -> bytes:
        """The picture at this step."""
        return event_of(self.value(), step, wall_time)


@dataclass(frozen=True)
class Text:
    """Markdown for the text tab."""

    tag: str
    words: str

    def value(self) -> Summary.Value:
        """As it is shown."""
        plugin = SummaryMetadata.PluginData(plugin_name="text")
        tensor = TensorProto(dtype=DT_STRING, string_val=[self.words.encode()])
        tensor.tensor_shape.dim.add(size=1)
        return Summary.Value(tag=self.tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)

    def event(self, step: int, wall_time: float) -> bytes:
        """The words at this step."""
        return event_of(self.value(), step, wall_time)


@dataclass(frozen=True)
class Said:
    """One value of an event that is no scalar."""

    tag: str
    place: Place
    print: int
    """A fingerprint of what will be shown, 32 bits."""
    value: int
    metadata: SummaryMetadata | None


def scalar_of(value: Summary.Value, known: Mapping[str, SummaryMetadata]) -> float | None:
    """The value where it is a scalar, in the old form or as a tensor; None of all else."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if value.HasField("tensor") and plugin_of(value, known) == "scalars":
        try:
            array = tensor_util.make_ndarray(value.tensor)
            return float(array.reshape(-1)[0]) if array.size == 1 else None
        except (TypeError, ValueError):  # a tensor of words, or one that is not as large as it says
            return None
    return None


def plugin_of(value: Summary.Value, known: Mapping[str, SummaryMetadata]) -> str:
    """Who shows it; empty where nothing says so. `known`: metadata by tag, from earlier events of the file."""
    metadata = value.metadata if value.HasField("metadata") else known.get(value.tag)
    return str(metadata.plugin_data.plugin_name) if metadata is not None else ""


def sound_tag(tag: str) -> bool:
    """Whether a tag can be shown: an empty one cannot, and one that begins with NUL is ours."""
    return bool(tag) and not tag.startswith(RAW)


def raw_key(place: Place, tag: str) -> str:
    """What stands for the tag where scalars have theirs: a tag may have both, and values of several kinds."""
    return RAW + place.value + RAW + tag


def describe(event: Event, known: Mapping[str, SummaryMetadata]) -> list[Said]:
    """All that an event says that is no scalar."""
    if (kind := event.WhichOneof("what")) in WHOLE:
        content = getattr(event, kind)
        data = content if isinstance(content, bytes) else content.SerializeToString(deterministic=True)
        return [Said(f"{kind} {getattr(content, 'tag', '')}", Place.JOB, zlib.crc32(data), 0, None)]
    found = []
    for index, value in enumerate(event.summary.value):
        if scalar_of(value, known) is not None or plugin_of(value, known) == "scalars" or not sound_tag(value.tag):
            continue
        if not value.WhichOneof("value") and not value.metadata.plugin_data.content:
            continue  # hyperparameters stand in the metadata
        metadata = None if value.HasField("metadata") else known.get(value.tag)
        place = _PLACES.get(plugin_of(value, known), Place.STITCHED)
        found.append(Said(value.tag, place, fingerprint(_whole(value, metadata)), index, metadata))
    return found


def fingerprint(value: Summary.Value) -> int:
    """32 bits that are others if what is shown is something else."""
    return zlib.crc32(value.SerializeToString(deterministic=True))


def event_of(value: Summary.Value, step: int, wall_time: float) -> bytes:
    return bytes(Event(wall_time=wall_time, step=step, summary=Summary(value=[value])).SerializeToString())


def _whole(value: Summary.Value, metadata: SummaryMetadata | None) -> Summary.Value:
    if metadata is None:
        return value
    whole = Summary.Value()
    whole.CopyFrom(value)
    whole.metadata.CopyFrom(metadata)
    return whole
