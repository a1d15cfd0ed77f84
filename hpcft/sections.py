"""The sections of a recipe: each key with its type, its default and what it means."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpcft.schema import Command, Constraint, Count, Mail, Memory, Section, SlurmName, Walltime, Webhook


class Model(Section):
    """Where the pretrained model comes from."""

    path: str
    """A folder, relative to the recipe's own; a hub id such as `openai-community/gpt2-xl`; or `run:NAME`, the model
    that a finished run has left, `run:NAME/best` its best weights."""
    revision: str | None = None
    """Commit or tag of a hub id, so that every job of the chain loads the same files."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """`random` takes the model's shape alone, and begins from weights that `train.seed` draws."""
    freeze: Literal["none", "body"] | Count = "none"
    """What is not trained: `body` leaves the head alone to learn; a number freezes the embeddings and that many of the
    lowest layers."""
    quantize: Literal["nf4", "int8"] | None = None
    """Frozen weights in 4 or 8 bits, for `lora` (QLoRA)."""


class Split(Section):
    """Held-out rows, drawn from those of `data.train`: the same ones in every run of these rows with this seed."""

    validation: Annotated[float, Field(gt=0)] | None = None
    """Rows for the validation loss: below 1 a share of all, else how many."""
    test: Annotated[float, Field(gt=0)] | None = None
    """Rows for the test, likewise."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the draw; `train.seed` has no part in it."""
    by: str | None = None
    """A column, as the task calls it, of whose values each part gets its share (stratified)."""

    def sizes(self, total: int) -> dict[str, int]:
        """Rows of the test and of the validation, drawn from so many."""
        asked = {"test": self.test or 0, "validation": self.validation or 0}
        return {part: max(1, round(n * total)) if 0 < n < 1 else int(n) for part, n in asked.items()}

    def excess(self, total: int) -> str | None:
        """That nothing is left to learn from of so many rows, in words."""
        sizes = self.sizes(total)
        if sum(sizes.values()) < total:
            return None
        counts = " and ".join(f"{count} for {part}" for part, count in sizes.items() if count)
        return f"data.split takes {counts} of its {total} rows, which leaves none to learn from."


class Filter(Section):
    """Rows that are left out of train, validation and test, each by itself, in this order. How many each of these has
    removed stands in the log and in `hpcft show`."""

    empty: Literal["drop"] | None = None
    """Rows without a value that the task needs; a fault when not given. A column in a prompt may be blank."""
    duplicates: Literal["drop", "keep"] | None = None
    """Rows that say what an earlier one says, or have its `id`. When not given, only a repeated id is a fault; `keep`
    takes that too."""
    min_tokens: Count | None = None
    """Tokens of a row at least: of its prompt, its completion and the end-of-text token, before any cut."""
    max_tokens: Count | None = None
    """At most."""
    balance: str | None = None
    """A column, as the task calls it, of each of whose values as many rows stay as the rarest has."""
    diverse: Count | None = None
    """So many training rows, which differ from each other in their words, in place of all."""


class Data(Section):
    """Rows and how they become features. [data.md](data.md) has what they can come from, with examples."""

    train: str
    """Rows to learn from: a .jsonl, .json, .csv or .parquet file or a folder that `save_to_disk` has made, relative to
    the recipe's folder, or a dataset of the hub, `owner/name`. Of several splits in one it is the one called train;
    `owner/name:other` takes another."""
    validation: str | None = None
    """Rows for the validation loss; none is computed without them."""
    test: str | None = None
    """Held-out rows, looked at before and after training: for `evaluate.choices`, or by a task with labels."""
    revision: str | None = None
    """Commit, tag or branch of a dataset of the hub."""
    config: str | None = None
    """Which of its configurations, where it has several."""
    columns: dict[str, str] = Field(default_factory=dict)
    """What columns are called in the data, by what the task or the template calls them: `{text: headline}`."""
    split: Split | None = None
    filter: Filter | None = None
    template: str | None = None
    """Markdown file with `{{column}}` placeholders (task instruct). What its last placeholder brings is the
    completion; all before it is the prompt."""
    labels: tuple[str, ...] | None = None
    """Classes in order (tasks classify and entail); those of the training rows, sorted, when not given. Of prefer: what
    stands for the first response, the second, and a tie; `[A, B, Tie]` when not given."""
    separator: Count | str | None = None
    """A text, or the number of a token such as 50256, between the two texts (task entail). When not given, what the
    tokenizer has for it, and for a decoder its end-of-text token."""
    pair: Literal["apart", "with_prompt"] = "apart"
    """What the model reads of each response (task prefer): it alone, or the prompt before it."""
    max_length: Annotated[int, Field(ge=2)] = 512
    """Tokens of a row at most, and of a block. What is longer is cut at the end; a text with a label in its middle, so
    that both ends stay, and of prefer each response is such a text."""
    loss_on: Literal["completion", "full"] = "completion"
    """Which tokens count (task instruct); the end-of-text token always does."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that stack batches, beside each training process."""

    def has(self, split: str) -> bool:
        """Whether there are rows for train, validation or test, given or drawn."""
        return bool(getattr(self, split) or (self.split and getattr(self.split, split, None)))


class Lora(Section):
    """Train low-rank adapters beside frozen weights (LoRA, arXiv 2106.09685), through peft."""

    rank: Count = 8
    """Columns of an adapter."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """An adapter's output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """On an adapter's input."""
    targets: tuple[str, ...] | None = None
    """Names of the modules that get an adapter, by their last part (`q_proj`); when not given, the attention's query,
    key and value, which GPT-2 holds in one and which are taken apart for it."""


class Train(Section):
    """How to learn. A step is one update of the optimizer."""

    steps: Count | None = None
    """Length of the run; the learning rate reaches zero at its end."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training rows, in place of `steps`."""
    batch_size: Count | None = 8
    """Rows of one step, over all processes and micro-batches: the same whatever the number of GPUs."""
    batch_tokens: Count | None = None
    """Tokens of one step, in place of `batch_size`: as many rows as hold about so many, padding not counted."""
    micro_batch_size: Count | Literal["auto"] = 1
    """Rows of one forward pass on one process; accumulation makes up the rest of the batch. With `batch_tokens` or
    `packed` it is the room of a pass: so many times `data.max_length` tokens. `auto` finds the most that the card's
    memory takes when the run begins."""
    grouping: Literal["plain", "bucketed", "packed"] = "bucketed"
    """Which rows meet in a batch. `plain`: in random order, padded to the longest; `bucketed`: rows of like length, so
    that hardly anything is padded; `packed`: in random order, with rows one behind the other in lines of at most
    `data.max_length` tokens, none of which sees another."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """Of AdamW, at its peak."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises to its peak; it then falls linearly to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """For matrices; biases and normalisation weights are left alone."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of AdamW, like `beta2` and `epsilon`."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the whole gradient."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """fp16 and bf16 are automatic mixed precision over fp32 weights."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is no number leads to: `stop` names its rows and keeps the last checkpoint; `skip`
    leaves the weights as they were before that step, and goes on."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: a third more time for a fraction of their memory."""
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    """`adamw-8bit` holds its moments in 8 bits (bitsandbytes): 2 bytes a parameter in place of 8."""
    sharding: Literal["none", "zero2", "full"] = "none"
    """What the processes share among them: `zero2` gradients and moments, `full` the weights too (FSDP)."""
    offload: bool = False
    """Keep what is sharded in the host's memory."""
    deterministic: bool = True
    """Choose only algorithms that give the same bits each time; without it a resumed run is sample-exact."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the order of rows and of all randomness."""
    log_every: Count = 1
    """Steps between two points of the training curve; a point is the token mean since the last one."""
    save_every: Count | Literal["auto"] = "auto"
    """Steps between two checkpoints, beside the one at the end of each job; `auto` weighs what a save costs against
    what a kill would lose."""
    keep_checkpoints: Count = 2
    """Newest ones that stay; an older one goes when a newer one is whole on disk."""
    keep_bytes: Memory | None = None
    """Disk for all checkpoints together, "60G", the one that is being written among them: the oldest go until they fit,
    the newest always stays."""
    keep_best: bool = False
    """Keep the weights of the lowest validation loss too, as a model in best/; nothing prunes them."""

    def epoch_steps(self, rows: int, tokens: int, longest: int) -> float:
        """Steps of one epoch of so many rows; with `batch_tokens` a whole number."""
        if self.batch_tokens is None:
            assert self.batch_size is not None
            return rows / self.batch_size
        # As many tokens a step as the longest row has, at least: then none is without a row.
        return max(1, min(round(tokens / self.batch_tokens), tokens // longest))

    def total_steps(self, rows: int, tokens: int, longest: int) -> int:
        """Steps of the run, on so many rows with so many tokens, `longest` in one of them."""
        return self.steps or max(1, round((self.epochs or 0) * self.epoch_steps(rows, tokens, longest)))


class Generate(Section):
    """How completions are written: in `evaluate`, for an accuracy by what the model writes, and by `hpcft generate`."""

    max_new_tokens: Count = 32
    """Tokens of a completion at most; the end-of-text token ends it earlier."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 takes the likeliest token each time (greedy); above, tokens are drawn, the more freely the higher it is."""
    top_k: Count | None = None
    """Draw among so many of the likeliest tokens only."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draw among the likeliest tokens that have this probability together only (arXiv 1904.09751)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of what is drawn; the training's randomness is another."""


class Evaluate(Section):
    """What is measured beside the training loss."""

    every: Count | None = None
    """Steps between two validation losses; without it only at the end."""
    batch_size: Count = 8
    """Rows of one forward pass on one process."""
    choices: tuple[str, ...] | None = None
    """Completions to choose from for each row of data.test: the likeliest is the answer, and accuracy is
    reported before and after training. Without them it is the loss of a token there (tasks instruct and corpus)."""
    generate: Generate | None = None
    """Let the model write its answers in place of scoring the choices; which of them it names is the answer.
    [evaluation.md](evaluation.md) has how that is read."""


class Resources(Section):
    """What one job asks for, and how long the chain may become."""

    nodes: Count = 1
    """Nodes of one job."""
    gpus: Annotated[int, Field(ge=0)] = 1
    """GPUs of one node; one training process each."""
    processes: Count | None = None
    """Training processes of one node where gpus is 0."""
    cpus_per_process: Count | None = None
    """Cores of each process, and its threads; when not given, the cluster's rule and one thread."""
    memory: Memory | None = None
    """Host memory of each node of a job as Slurm writes it, "60G"; the cluster's rule when not given."""
    walltime: Walltime | None = None
    """Length of one job; the cluster's longest when not given."""
    account: SlurmName | None = None
    """Slurm's account, in place of the cluster's; likewise the next three."""
    partition: SlurmName | None = None
    qos: SlurmName | None = None
    constraint: Constraint | None = None
    jobs: Count = 100
    """Jobs of the chain at most; `hpcft resume` grants as many again."""
    queued: Count = 2
    """Jobs kept waiting behind the running one: with two, a node that fails a job at once does not end the chain."""


class Track(Section):
    """Other trackers that get the curve too: one run of theirs for the whole chain, each step once.
    [trackers.md](trackers.md) has where it lies, and how it is brought from nodes without internet."""

    to: tuple[Literal["aim", "mlflow", "trackio", "wandb"], ...] = ()
    """Which of them. They are no part of hpcft: `pip install hpcft[trackers]`, or the one that you use."""
    project: str | None = None
    """What they file the run under; the recipe's name when not given."""


class Notify(Section):
    """Who is told when the run has finished, a job of it has failed, or the chain has halted; never of a mere cut.
    [notices.md](notices.md) has what is sent."""

    mail: Mail | None = None
    """Address that Slurm writes to, when the job ends in which it happened."""
    command: Command | None = None
    """A program with arguments, `./tell.sh --loud`, run on the job's first node without a shell; the variables
    HPCFT_RUN, HPCFT_EVENT, HPCFT_REASON, HPCFT_DIR and more tell it what happened."""
    webhook: Webhook | None = None
    """Web address that gets a JSON POST, as Slack and Mattermost take it."""
