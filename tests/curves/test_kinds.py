"""Pictures, histograms, texts, graphs and hyperparameters, as torch's writer logs them, in TensorBoard over a chain."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpcft.curves.server import TensorBoard
from hpcft.curves.stitch import JobCurve
from hpcft.curves.view import View
from tests.curves.chains import job_curve
from tests.curves.conftest import Start
from tests.curves.test_cases import wait_until

ALL = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),  # which the writer of torch uses
]


def log(job: JobCurve, last: int) -> None:
    """What torch's SummaryWriter makes of each kind: a picture and a histogram at every tenth step."""
    import torch
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(job.directory))
    # As `add_hparams` does it, less the folder of its own.
    from torch.utils.tensorboard.summary import hparams

    for part in hparams({"lr": 1e-3, "job": job.number}, {"train/loss": 0.0}):
        writer._get_file_writer().add_summary(part)
    writer.add_text("config", f"job **{job.number}**", 0)
    writer.add_graph(torch.nn.Linear(3, job.number), torch.zeros(1, 3))
    assert job.resume_step is not None
    for step in range(job.resume_step + 1, last + 1):
        writer.add_scalar("train/loss", job.number + step / 1e4, step)
        writer.add_scalar("train/new_style", job.number + step / 1e4, step, new_style=True)
        if step % 10 == 0:
            writer.add_image("picture", torch.full((3, job.number, step), 0.5), step)
            writer.add_histogram("weights", torch.arange(step * job.number), step)
    writer.close()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[JobCurve]:
    """Killed at 35 behind the checkpoint at 20, done at 50."""
    root = tmp_path_factory.mktemp("kinds")
    chain = [job_curve(root, 1, 0), job_curve(root, 2, 20)]
    for job, last in zip(chain, (35, 50), strict=True):
        log(job, last)
    return chain


def test_each_kind_stands_where_it_belongs_with_the_surviving_steps(tmp_path: Path, jobs: list[JobCurve]) -> None:
    View(tmp_path / "view").poll(jobs)
    found = {
        path.name: EventAccumulator(str(path), ALL).Reload() for path in (tmp_path / "view").iterdir() if path.is_dir()
    }
    assert set(found) == {"job001-4701", "job002-4702", "stitched"}
    stitched = found["stitched"]
    pictures = [(image.step, image.width, image.height) for image in stitched.Images("picture")]
    assert pictures == [(10, 10, 1), (20, 20, 1), (30, 30, 2), (40, 40, 2), (50, 50, 2)]
    histograms = [(h.step, h.histogram_value.num) for h in stitched.Histograms("weights")]
    assert histograms == [(10, 10), (20, 20), (30, 60), (40, 80), (50, 100)]
    for tag in ("train/loss", "train/new_style"):
        points = [(event.step, round(event.value, 4)) for event in stitched.Scalars(tag)]
        assert points == [(step, round(1 + (step > 20) + step / 1e4, 4)) for step in range(1, 51)]
    assert [name for name in found if "picture" in found[name].Tags()["images"]] == ["stitched"]
    texts = {name: [e.tensor_proto.string_val[0] for e in found[name].Tensors("config/text_summary")]
             for name in found if "config/text_summary" in found[name].Tags()["tensors"]}  # fmt: skip
    assert texts == {"job001-4701": [b"job **1**"], "job002-4702": [b"job **2**"]}
    own = EventAccumulator(str(jobs[1].directory), ALL).Reload()
    assert found["job002-4702"].Graph() == own.Graph() != found["job001-4701"].Graph()
    assert found["job002-4702"].RunMetadata("step1") == own.RunMetadata("step1")
    assert not found["stitched"].Tags()["graph"]


def ask(server: TensorBoard, path: str, **query: str) -> object:
    url = f"{server.url}data/plugin/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_tensorboard_has_their_tabs_and_one_trial_for_the_chain(
    tmp_path: Path, start: Start, jobs: list[JobCurve], load_fast: str
) -> None:
    table = "| job | steps |\n|---|---|\n| one | 1 to 20 |"
    View(tmp_path / "view").poll(jobs, (), lambda stitched: table)
    server = start(tmp_path / "view", load_fast)
    wait_until(lambda: "stitched" in (ask(server, "images/tags") or {}) and "chain" in (ask(server, "text/tags") or {}))
    steps = [10, 20, 30, 40, 50]
    for plugin, tag in (("images/images", "picture"), ("histograms/histograms", "weights")):
        rows = ask(server, plugin, run="stitched", tag=tag, sample="0")
        assert isinstance(rows, list)
        assert [row["step"] if isinstance(row, dict) else row[1] for row in rows] == steps
    (words,) = ask(server, "text/text", run="chain", tag="jobs")  # type: ignore[misc]
    assert "<td>1 to 20</td>" in words["text"]
    wanted = {
        "startIndex": 0,
        "sliceSize": 100,
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_RUNNING", "STATUS_SUCCESS"],
        "colParams": [],
    }
    groups = ask(server, "hparams/session_groups", request=json.dumps(wanted))
    assert isinstance(groups, dict)
    assert [group["hparams"]["job"] for group in groups["sessionGroups"]] == [1.0]
