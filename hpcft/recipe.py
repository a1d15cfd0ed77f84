"""The recipe: what to train, on what, with what resources; a YAML file checked whole before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import field_serializer

from hpcft.schema import Name, PhaseName, Section
from hpcft.sections import Data, Evaluate, Lora, Model, Notify, Resources, Track, Train

VERDICTS = ("A", "B", "Tie")
"""Labels of the task prefer, where a recipe names no others."""


@dataclass(frozen=True)
class TaskKind:
    """What is known of a task without loading it."""

    columns: tuple[str, ...] = ()
    """That its rows have; those of instruct are in the template."""
    classes: bool = False
    """Whether a row has a label, and the model a head with a class for each; else tokens are learnt."""


TASKS = {
    "instruct": TaskKind(),
    "corpus": TaskKind(("text",)),
    "classify": TaskKind(("text", "label"), classes=True),
    "entail": TaskKind(("first", "second", "label"), classes=True),
    "prefer": TaskKind(("prompt", "response_a", "response_b", "label"), classes=True),
}
"""The kinds of learning, by the name that a recipe calls them."""


def for_others(values: Any) -> Any:
    """The values of a recipe as others may see them: paths by their last part, and without `notify` and `track`.

    Whose disk the files lay on is nobody's business.

    >>> for_others({"data": {"train": "/scratch/me/train.csv"}, "env": "../envs/ft.yml", "notify": {"mail": "me@here"}})
    {'data': {'train': 'train.csv'}, 'env': 'ft.yml'}
    """
    if isinstance(values, str):
        return values.rstrip("/").rpartition("/")[2] if values.startswith(("/", "~", "./", "../")) else values
    if isinstance(values, list):
        return [for_others(value) for value in values]
    if not isinstance(values, dict):
        return values
    return {key: for_others(value) for key, value in values.items() if not str(key).startswith(("notify", "track"))}


class PhaseData(Data):
    """Keys of `data` that a phase has for itself."""

    train: str = ""


class Phase(Section):
    """A stretch of the run with its own rows, loss or schedule. It begins with the model of the phase before, and with
    a fresh optimizer; what it does not say is as in the recipe's own sections. [phases.md](phases.md) has examples."""

    name: PhaseName
    """What it is called, in `--set phases.NAME.train.steps=10`, in evaluation/NAME.json and in pictures."""
    data: PhaseData = PhaseData()
    """Keys of the section `data`, all but `test`, `split`, `filter` and `workers`."""
    train: Train = Train()
    """Keys of the section `train`: its length, batch and learning rate, with all that belongs to them."""

    @field_serializer("data", "train")
    def _given(self, section: Section) -> dict[str, Any]:
        """What was given alone: a default that is written down would override the recipe's own value."""
        return section.model_dump(mode="json", exclude_unset=True)


ALIKE = ("test", "split", "filter", "labels", "pair", "workers")
"""Keys of `data` that all phases share: rows of the test must be the same in each, and learnt in none."""
OF_PHASES = (
    *("steps", "epochs", "batch_size", "batch_tokens", "micro_batch_size", "grouping"),
    *("learning_rate", "warmup_steps", "weight_decay", "beta1", "beta2", "epsilon", "clip_norm"),
)
"""Keys of `train` that a phase may have for itself; the others are of the whole run."""
ONE_OF = (("steps", "epochs"), ("batch_size", "batch_tokens"))
"""Keys of `train` that are given in place of each other."""


class Recipe(Section):
    """One run as the user wrote it, with defaults filled in."""

    name: Name
    """What runs of this recipe are called."""
    task: Literal["instruct", "corpus", "classify", "entail", "prefer"]
    """`instruct`: prompt and completion; `corpus`: plain text in blocks; `classify`: a text and its class; `entail`:
    two texts and their class; `prefer`: two responses to a prompt and the verdict. [classes.md](classes.md) has the
    last three."""
    cluster: str = "orfeo"
    """A file of hpcft/launch/clusters or ~/.config/hpcft/clusters without its .yaml, or a path to one."""
    env: str | None = None
    """conda environment by name, by prefix, which has a slash, or by its file, `../envs/v100.yml`; the one that submits
    when not given."""
    model: Model
    data: Data
    lora: Lora | None = None
    train: Train = Train()
    phases: tuple[Phase, ...] = ()
    evaluate: Evaluate = Evaluate()
    resources: Resources = Resources()
    notify: Notify = Notify()
    track: Track = Track()
    matrix: dict[str, Any] | list[Any] | None = None
    """A run each for every choice of values, `train.seed: [0, 1]`, or of named settings; or a list of runs:
    [sweeps.md](sweeps.md)."""

    @property
    def has_classes(self) -> bool:
        """Whether rows have labels, and the model a head of classes."""
        return TASKS[self.task].classes

    @property
    def columns(self) -> tuple[str, ...]:
        """That the task reads of a row; none of instruct, whose template names them."""
        without = {"prompt"} if self.task == "prefer" and self.data.pair == "apart" else set()
        return tuple(name for name in TASKS[self.task].columns if name not in without)

    @property
    def is_tested(self) -> bool:
        """Whether held-out rows are looked at before and after training."""
        return self.data.has("test")

    @property
    def processes(self) -> int:
        """Training processes of one job."""
        return self.resources.nodes * self.local_processes

    @property
    def local_processes(self) -> int:
        """Training processes of one node."""
        return self.resources.gpus or self.resources.processes or 1

    def phase(self, number: int) -> Recipe:
        """The recipe of a phase, from 0: its sections put into the run's; the recipe itself where it has no phases."""
        if not self.phases:
            return self
        phase = self.phases[number]
        data = self.data.model_copy(update=_given(phase.data))
        train = self.train.model_copy(update=_given(phase.train))
        return self.model_copy(update={"data": data, "train": train, "phases": ()})

    def each_phase(self) -> list[Recipe]:
        """The recipe of every phase; of one without phases, itself."""
        return [self.phase(number) for number in range(max(1, len(self.phases)))]

    def phase_name(self, number: int) -> str | None:
        """What a phase is called; None of a recipe without phases."""
        return self.phases[number].name if self.phases else None

    def phase_key(self, number: int, key: str) -> str:
        """The dotted key that a phase has its value of, `train.steps`, from: `phases.full.train.steps` is its own."""
        section, _, word = key.partition(".")
        own = self.phases and word in _given(getattr(self.phases[number], section))
        return f"phases.{self.phases[number].name}.{key}" if own else key

    def features_folder(self, number: int) -> str:
        """Where the features of a phase lie, below those of the run: phases on the same data share a folder."""
        if not self.phases:
            return ""
        each = self.each_phase()
        first = next(place for place, other in enumerate(each) if other.data == each[number].data)
        return self.phases[first].name

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; None where some are given in epochs, so that rows have to be counted."""
        lengths = [each.train.steps for each in self.each_phase()]
        return sum(length or 0 for length in lengths) if all(lengths) else None


def _given(section: Section) -> dict[str, Any]:
    """What a phase says for itself; of two keys that stand in place of each other, one that is not given is none."""
    given = {key: getattr(section, key) for key in section.model_fields_set}
    for pair in ONE_OF:
        for one, other in (pair, pair[::-1]):
            if given.get(one) is not None and other not in given:
                given[other] = None
    return given
