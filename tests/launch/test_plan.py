"""The plan: what a recipe asks for against what there is; each refusal whole, and nothing left on disk."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from hpcft.launch.plan import first_jobs, make_plan
from tests.desk import Desk

MODEL_FIX = "Name a folder that save_pretrained has made, or a hub id, owner/name."
JSONL_FIX = 'Write {"column": value, ...}, one row a line.'
TEMPLATE_FIX = "Write it as `... {{column}} ... {{completion}}`."


def test_a_good_recipe_becomes_a_plan(desk: Desk) -> None:
    plan = make_plan(Path("demo.yaml"), (), None)
    assert (plan.recipe.name, plan.cluster.name, plan.walltime, plan.queued) == ("demo", "site", 7200, 3)


# --- the model ---


def test_a_model_that_is_no_folder_is_refused_and_a_hub_id_is_not(desk: Desk) -> None:
    desk.change("path: model", "path: ./modell")
    assert desk.faults() == [f"demo.yaml:5: modell is no folder. {MODEL_FIX}"]
    assert "model        openai-community/gpt2-xl (hub id)" in desk.accepts(
        "--set", "model.path=openai-community/gpt2-xl"
    )


def test_a_folder_without_config_is_no_model(desk: Desk) -> None:
    (desk.folder / "model/config.json").unlink()
    assert desk.faults() == [f"demo.yaml:5: model is no model folder: it has no config.json. {MODEL_FIX}"]


# --- the data ---


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", None, "a.jsonl cannot be read: no such file or directory. Name a file of rows."),
        ("a.jsonl", "", f"a.jsonl holds no row. {JSONL_FIX}"),
        ("a.jsonl", "\n \n", f"a.jsonl holds no row. {JSONL_FIX}"),
        (
            "a.jsonl",
            '{"text": "a"}\n',
            'a.jsonl has no column "label", which prompt.md asks for. It has "text". '
            "Correct prompt.md, or give its name: `columns: {label: ...}` in data.",
        ),
        (
            "a.jsonl",
            '{"body": "a", "mood": "b"}\n',
            'a.jsonl has no column "text", "label", which prompt.md asks for. It has "body", "mood". '
            "Correct prompt.md, or give their names: `columns: {text: ..., label: ...}` in data.",
        ),
        ("a.csv", "", "a.csv holds no row. Write a header and a row for each line below it."),
        (
            "a.csv",
            "text,label\n\n\n",
            "a.csv holds no row. Write a header and a row for each line below it.",
        ),
        (
            "a.csv",
            "text, label\nhi,glad\n",
            'a.csv has no column "label", which prompt.md asks for. It has "text", " label". '
            'Correct prompt.md, or give its name: `columns: {label: " label"}` in data.',
        ),
        (
            "a.csv",
            "text;label\nhi;glad\n",
            'a.csv has no column "text", "label", which prompt.md asks for. '
            'Its one column is "text;label": write commas in place of ";".',
        ),
        ("a.parquet", "text", "a.parquet is no parquet file. Write it with pandas' to_parquet."),
        (
            "a.txt",
            "text",
            "a.txt is of no format known here. Give a file that ends in .jsonl, .json, .csv or .parquet, "
            "or a folder of save_to_disk.",
        ),
        (
            "model",
            None,
            "model is no folder of rows: it has no dataset_info.json. "
            "Write it with datasets' save_to_disk, or name a file.",
        ),
    ],
)
def test_data_that_cannot_work_are_refused(desk: Desk, name: str, text: str | bytes | None, message: str) -> None:
    if text is not None:
        desk.write(name, text)
    desk.change("train: train.jsonl", f"train: {name}")
    assert desk.faults() == [f"demo.yaml:7: {message}"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '\n\n{"label": "glad", "text": "hi", "more": 1}\n'),
        ("a.json", ' [{"label": "glad", "text": "hi"}]\n'),
        ("a.json", '{"label": "glad", "text": "hi"}\n'),  # a row a line is called so too
        ("a.csv", 'text,label\n"two\nlines, one cell",glad\n'),
        ("a.csv", b"\xef\xbb\xbftext,label\r\nhi,glad\r\n"),  # as spreadsheets write it
        ("a.parquet", pandas.DataFrame([{"text": "hi", "label": "glad"}]).to_parquet()),
    ],
)
def test_data_that_may_work_are_taken(desk: Desk, name: str, text: str | bytes) -> None:
    desk.write(name, text)
    desk.change("train: train.jsonl", f"train: {name}")
    desk.accepts()


def test_every_file_of_rows_is_looked_at(desk: Desk) -> None:
    gone = "cannot be read: no such file or directory. Name a file of rows."
    assert desk.faults("--set", "data.validation=v.jsonl", "--set", "data.test=t.jsonl") == [
        f"--set data.validation: v.jsonl {gone}",
        f"--set data.test: t.jsonl {gone}",
    ]


def test_a_corpus_needs_its_text_column_and_no_template(desk: Desk) -> None:
    desk.change("task: instruct", "task: corpus")
    desk.change("  template: prompt.md\n", "")
    desk.accepts()
    assert desk.faults("--set", "data.columns.text=body") == [
        'demo.yaml:7: train.jsonl has no column "body". It has "text", "label". '
        "Give its name: `columns: {text: text}` in data."
    ]
    assert desk.faults("--set", "data.template=prompt.md") == [
        "--set data.template: data.template says nothing to the task corpus. It goes with instruct. Remove it."
    ]


def test_what_a_template_asks_for_and_no_file_has_is_said_once(desk: Desk) -> None:
    desk.write("prompt.md", "{{txt}}\n{{label}}")
    desk.write("test.jsonl", '{"text": "a", "label": "glad"}\n')
    assert desk.faults("--set", "data.test=test.jsonl", "--set", "evaluate.choices=[glad, sad]") == [
        'demo.yaml:7: train.jsonl has no column "txt", which prompt.md asks for. It has "text", "label". '
        "Correct prompt.md, or give its name: `columns: {txt: text}` in data."
    ]


# --- the template ---


def test_the_task_instruct_needs_a_template(desk: Desk) -> None:
    desk.change("  template: prompt.md\n", "")
    assert desk.faults() == ["demo.yaml:6: the task instruct needs data.template. Name a Markdown file."]


def test_a_template_that_is_not_there_is_refused(desk: Desk) -> None:
    (desk.folder / "prompt.md").unlink()
    missing = "prompt.md cannot be read: no such file or directory. Name a Markdown file."
    assert desk.faults() == [f"demo.yaml:8: {missing}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Say {text}", "has no {{column}} placeholder."),
        ("{{text}} is {{label}}!", "has text behind its last placeholder {{label}}, which is the completion."),
        ("{{label}} {{text}} {{label}}", 'shows the completion "label" in the prompt already.'),
        ("\n{{label}}\n", "has no prompt before its only placeholder."),
        ("Tweet: {{text}\nMood: {{label}}", "has a placeholder that lacks a brace: {{text}."),
        ("Tweet: {text}}\nMood: {{label}}", "has a placeholder that lacks a brace: {text}}."),
    ],
)
def test_a_text_that_is_no_template_is_refused_at_its_own_file(desk: Desk, text: str, message: str) -> None:
    desk.write("prompt.md", text)
    assert desk.faults() == [f"prompt.md: {message} {TEMPLATE_FIX}"]


# --- steps, batches, evaluation ---


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        (
            ["train.epochs=1"],
            ["demo.yaml:9: both train.steps and train.epochs are given. Write one of the two."],
        ),
        (
            ["train.steps=null"],
            ["demo.yaml:9: neither train.steps nor train.epochs is given. Write one of the two."],
        ),
        (
            ["train.batch_size=9", "train.micro_batch_size=2", "resources.gpus=2"],
            [
                "--set train.batch_size: train.batch_size = 9 is no multiple of "
                "micro_batch_size x processes = 4. Write 8."
            ],
        ),
        (
            ["train.micro_batch_size=16"],
            ["demo.yaml:9: train.batch_size = 8 is no multiple of micro_batch_size x processes = 16. Write 16."],
        ),
        (
            ["train.batch_size=8", "train.batch_tokens=4096"],
            ["demo.yaml:9: both train.batch_size and train.batch_tokens are given. Write one of the two."],
        ),
        (
            ["train.batch_size=null"],
            ["demo.yaml:9: neither train.batch_size nor train.batch_tokens is given. Write one of the two."],
        ),
        (
            ["train.batch_tokens=2000", "resources.gpus=2", "train.micro_batch_size=2"],
            [
                "--set train.batch_tokens: train.batch_tokens = 2000 is less than micro_batch_size x processes x "
                "data.max_length = 2048, so that some processes would have nothing to do. "
                "Write that at least, or lower one of the three."
            ],
        ),
        (
            ["train.warmup_steps=10"],
            ["--set train.warmup_steps: train.warmup_steps = 10 leaves none of the 10 steps to fall. Write 9 at most."],
        ),
        (
            ["resources.processes=2"],
            [
                "--set resources.processes: resources.processes = 2 goes with `gpus: 0`; each GPU has one process. "
                "Remove it, or write `gpus: 0`."
            ],
        ),
        (
            ["resources.gpus=0", "train.precision=fp16"],
            ['--set train.precision: train.precision = "fp16" needs a GPU. Use "fp32".'],
        ),
        (
            ["evaluate.every=5"],
            ["--set evaluate.every: evaluate.every = 5 needs data.validation. Name a file there, or remove it."],
        ),
        (
            ["evaluate.choices=[glad, sad]"],
            ["--set evaluate.choices: evaluate.choices needs data.test. Name a file of held-out rows there."],
        ),
        *(
            (
                [f"evaluate.choices={choices}", "data.test=train.jsonl"],
                [
                    "--set evaluate.choices: evaluate.choices is no choice. "
                    "Write two completions or more, all different."
                ],
            )
            for choices in ("[]", "[glad]", "[glad, glad, sad]", "[glad, '']")
        ),
        (
            ["evaluate.generate={max_new_tokens: 8, top_p: 0.9}"],
            [
                "--set evaluate.generate: evaluate.generate has no labels to look for in what the model writes. "
                "Write them as evaluate.choices.",
                "--set evaluate.generate: evaluate.generate.top_p is for drawing, and temperature is 0, which draws "
                "nothing. Write `temperature: 1.0` beside it, or remove it.",
            ],
        ),
        (
            ["evaluate.choices=[a, b]", "task=corpus", "data.template=null"],
            ["--set evaluate.choices: evaluate.choices goes with the task instruct. Remove it."],
        ),
    ],
)
def test_numbers_that_do_not_fit_each_other_are_refused(desk: Desk, given: list[str], messages: list[str]) -> None:
    assert desk.faults(*(word for text in given for word in ("--set", text))) == messages


# --- the cluster ---


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "resources.gpus=3",
            "--set resources.gpus: resources.gpus = 3: a node of site has 2. Ask for 2 at most.",
        ),
        (
            "resources.walltime=2:00:01",
            '--set resources.walltime: resources.walltime = "2:00:01": your association on site allows '
            "2:00:00. "
            "The chain goes on past it by itself: write a walltime within it.",
        ),
        (
            "train.precision=bf16",
            '--set train.precision: train.precision = "bf16": site\'s V100 has no bf16. Use "fp16" or "fp32".',
        ),
        (
            "resources.queued=20",
            "--set resources.queued: resources.queued = 20: site takes 20 jobs of a user. Write 19 at most.",
        ),
    ],
)
def test_what_the_cluster_does_not_give_is_refused(desk: Desk, given: str, message: str) -> None:
    desk.change("steps: 10", "steps: 10\n  batch_size: 12")
    assert desk.faults("--set", given) == [message]


def test_what_the_cluster_just_gives_is_taken(desk: Desk) -> None:
    for given in ("resources.gpus=2", "resources.walltime=2:00:00", "train.precision=fp16", "resources.queued=19"):
        desk.accepts("--set", given)


def test_a_cluster_that_cannot_be_asked_for_gpus_or_names_no_walltime_says_so(desk: Desk) -> None:
    desk.change("gpu_request: gres=gpu:V100:{gpus}\n", "", "site.yaml")
    desk.change("max_walltime: 2:00:00\n", "", "site.yaml")
    assert desk.faults() == [
        "demo.yaml:12: the file of site has no gpu_request, so none can be asked for. Add it there.",
        'demo.yaml:11: resources.walltime is missing, and site has no max_walltime. Write "2:00:00".',
    ]


def test_a_site_that_needs_an_account_says_where_to_write_it(desk: Desk) -> None:
    desk.write("site.yaml", (desk.folder / "site.yaml").read_text() + "account_needed: true\n")
    assert desk.faults() == [
        "demo.yaml:11: site takes no job without an account. Write `account: ...` into the recipe's resources, or "
        "`extends: site` and `account: ...` into home/.config/hpcft/clusters/site.yaml."
    ]
    assert "#SBATCH --account=lab-7\n" in desk.accepts("--set", "resources.account=lab-7")
    desk.write("mine.yaml", "extends: ./site.yaml\naccount: lab-8\n")
    assert "#SBATCH --account=lab-8\n" in desk.accepts("--cluster", "./mine.yaml")


def test_a_walltime_beyond_the_partitions_limit_names_that_limit(desk: Desk) -> None:
    desk.write("site.yaml", (desk.folder / "site.yaml").read_text() + "partition_walltime: 1:00:00\n")
    assert desk.faults("--set", "resources.walltime=1:30:00") == [
        '--set resources.walltime: resources.walltime = "1:30:00": the partition GPU on site allows 1:00:00. '
        "The chain goes on past it by itself: write a walltime within it."
    ]
    desk.accepts("--set", "resources.walltime=1:30:00", "--set", "resources.partition=DGX")


BATCH = ("--set", "train.batch_size=40")


def test_more_cores_than_a_node_has_and_more_nodes_than_this_machine_is_are_refused(desk: Desk) -> None:
    desk.write("site.yaml", (desk.folder / "site.yaml").read_text() + "cpus_per_node: 24\n")
    given = ("--set", "resources.gpus=2", "--set", "resources.cpus_per_process=13")
    assert desk.faults(*given) == [
        "--set resources.cpus_per_process: resources.cpus_per_process = 13: 26 cores for the 2 processes of a node, "
        "and one of site has 24. Write 12 at most."
    ]
    there = "cores for the 40 processes of a node, and one of site has 24."
    for more, cores in ((), 40), (("--set", "resources.cpus_per_process=2"), 80):
        assert desk.faults("--set", "resources.gpus=0", "--set", "resources.processes=40", *more, *BATCH) == [
            f"--set resources.processes: resources.processes = 40: {cores} {there} Write {24 * 40 // cores} at most."
        ]
    here = ("--cluster", "./here.yaml", "--set", "resources.walltime=1:00", "--set", "resources.gpus=0")
    assert desk.faults(*here, "--set", "resources.nodes=2") == [
        "--set resources.nodes: resources.nodes = 2: this machine is one node. Write 1."
    ]


def test_the_file_of_another_site_is_refused_on_a_login_node_that_a_file_knows(desk: Desk) -> None:
    desk.patch.setattr("socket.gethostname", lambda: "login07.leonardo.local")
    assert desk.faults() == [
        'demo.yaml:3: site is not here: login07.leonardo.local is a login node of leonardo. Write "leonardo".'
    ]
    desk.write("site.yaml", (desk.folder / "site.yaml").read_text() + "hosts: ['login*']\n")
    desk.accepts()


def test_without_sbatch_on_path_nothing_is_submitted_to_slurm(desk: Desk) -> None:
    (desk.folder / "bin/sbatch").unlink()
    assert desk.faults() == ["cluster site: sbatch is not on PATH. Submit on a login node there."]
    here = ("--cluster", "./here.yaml", "--set", "resources.walltime=1:00", "--set", "resources.gpus=0")
    assert "exec " in desk.accepts(*here)


def test_the_first_jobs_are_the_whole_chain_where_jobs_cannot_queue_the_next(desk: Desk) -> None:
    plan = make_plan(Path("demo.yaml"), (), None)
    alone = plan.cluster.model_copy(update={"jobs_may_submit": False})
    few = plan.recipe.model_copy(update={"resources": plan.recipe.resources.model_copy(update={"jobs": 2})})
    assert [first_jobs(*pair) for pair in ((plan.recipe, plan.cluster), (plan.recipe, alone), (few, alone))] == [
        3,
        20,
        2,
    ]
    assert first_jobs(few, plan.cluster) == 2


def test_rows_longer_than_a_model_with_learnt_positions_can_take_are_refused(desk: Desk) -> None:
    desk.write("model/config.json", '{"n_positions": 256}')
    assert desk.faults("--set", "data.max_length=257") == [
        "--set data.max_length: data.max_length = 257: the model has 256 positions (n_positions). Write 256 at most."
    ]
    desk.accepts("--set", "data.max_length=256")


def test_a_completion_that_leaves_no_position_for_the_prompt(desk: Desk) -> None:
    desk.write("model/config.json", '{"n_positions": 256}')
    more = ("data.max_length=200", "data.test=train.jsonl", "evaluate.choices=[glad, sad]")
    words = [word for text in (*more, "evaluate.generate.max_new_tokens=256") for word in ("--set", text)]
    assert desk.faults(*words) == [
        "--set evaluate.generate.max_new_tokens: evaluate.generate.max_new_tokens = 256: the model has 256 positions. "
        "Leave most of them to the prompt."
    ]


# --- what is trained of the model ---


@pytest.mark.parametrize(
    ("line", "more", "message"),
    [
        (
            "quantize: nf4",
            "",
            'model.quantize = "nf4" needs lora: weights in so few bits are not trained themselves.'
            " Add `lora: {}`, or remove it.",
        ),
        (
            "freeze: 2",
            "lora: {}\n",
            "model.freeze and lora are both given: lora freezes the model. Remove one of the two.",
        ),
        (
            "weights: random",
            "lora: {}\n",
            'model.weights = "random" with lora: the weights below the adapters would stay as they were drawn.'
            " Remove one of the two.",
        ),
        ("freeze: 5", "", "model.freeze = 5: the model has 4 layers. Write 4 at most."),
        (
            "freeze: body",
            "",
            'model.freeze = "body": the head of this model is its input embedding, so nothing is left to train.'
            " Freeze a number of layers, or use lora.",
        ),
    ],
)
def test_what_does_not_go_together_in_a_model_is_refused(desk: Desk, line: str, more: str, message: str) -> None:
    desk.write("model/config.json", '{"n_layer": 4, "tie_word_embeddings": true}')
    desk.change("  path: model\n", f"  path: model\n  {line}\n")
    desk.change("train:\n  steps", f"{more}train:\n  steps")
    faults = [fault for fault in desk.faults("--set", "env=./env") if fault.startswith("demo.yaml:6: ")]
    assert faults == [f"demo.yaml:6: {message}"]


def test_eight_bits_are_refused_on_a_card_that_cannot_multiply_them(desk: Desk) -> None:
    lora = ("--set", "lora={}", "--set", "model.quantize=int8")
    what = 'model.quantize = "int8": bitsandbytes multiplies so from compute capability 7.5 on,'
    fault = f'--set model.quantize: {what} and site\'s V100 has 7.0. Use "nf4".'
    assert fault in desk.faults(*lora)
    desk.change("gpu: V100\n", "gpu: A100\ngpu_arch: sm_80\n", "site.yaml")
    assert "int8" not in "".join(desk.run("submit", "demo.yaml", "--dry-run", *lora).err)


# --- memory ---


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ("train.offload=true",),
            "--set train.offload: train.offload puts into the host's memory what is sharded, and train.sharding = "
            '"none". Write "zero2" or "full" there, or remove train.offload.',
        ),
        (
            ("train.sharding=full",),
            '--set train.sharding: train.sharding = "full" shares among processes, and there is one. '
            "Write `offload: true` beside it, or remove it, or ask for more GPUs.",
        ),
        (
            ("train={steps: 10, sharding: zero2, offload: true}", "resources={gpus: 0, walltime: 1:00}"),
            "--set train: train.offload needs a GPU to take the load off. Remove it.",
        ),
        (
            ("train={steps: 10, sharding: zero2, optimizer: adamw-8bit}", "resources.gpus=2"),
            '--set train: train.sharding = "zero2": train.optimizer = "adamw-8bit" quantises blocks that a shard '
            'would cut. Use "adamw", whose moments are shared then, or remove train.sharding.',
        ),
        (
            ("train.sharding=zero2", "resources.gpus=2", "lora={rank: 8}"),
            '--set train.sharding: train.sharding = "zero2" is for training all weights, and lora is given. '
            "Remove it: what is not trained needs neither gradients nor moments.",
        ),
    ],
)
def test_settings_of_memory_that_contradict_each_other_are_refused(
    desk: Desk, sets: tuple[str, ...], message: str
) -> None:
    assert desk.faults(*(word for text in sets for word in ("--set", text))) == [message]
