"""The view in real TensorBoard servers, with the data server and with the Python loader, over HTTP."""

import json
import re
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from hpcft.curves import view as view_module
from hpcft.curves.server import TensorBoard, pages, start_tensorboard, tunnel_command
from hpcft.curves.view import View
from tests.curves.chains import add_points, job_curve, log_job, three_jobs
from tests.curves.conftest import Start
from tests.curves.test_view import Shown, by_job, expected_of_three_jobs, read_with_accumulator


def shown_by(query: str, key: str) -> str:
    """The value of a key in a page's query."""
    assert query.startswith("?") and query.endswith("#timeseries")
    (value,) = urllib.parse.parse_qs(query.strip("?").removesuffix("#timeseries"))[key]
    return value


def test_the_two_pages_show_the_jobs_or_the_whole_and_the_losses_first() -> None:
    jobs, whole = ["job001-4711", "sst2/job002-4712.2"], ["stitched", "job1-sst2/stitched"]
    for queries, shown in ((pages()["by-job"], jobs), (pages()["stitched"], whole)):
        for _, query in queries:
            pattern = shown_by(query, "runFilter")
            assert [run for run in jobs + whole if re.search(pattern, run)] == shown
            pinned = [card["tag"] for card in json.loads(shown_by(query, "pinnedCards"))]
            assert pinned == ["train/loss", "validation/loss"]
    assert [shown_by(query, "smoothing") for _, query in pages()["by-job"]] == ["0"] * 3


def test_jobs_of_several_runs_are_grouped_so_that_the_next_one_is_in_another_group() -> None:
    (one, alone), (three, few), (no_limit, many) = pages()["by-job"]
    assert (one, three, no_limit) == (1, 3, None) and "runColorGroup" not in alone
    runs = [[f"{run}/job{job:03d}-47{job}" for job in (9, 10, 11)] for run in "ab"]

    def groups(query: str) -> list[list[tuple[object, ...]]]:
        pattern = re.compile(shown_by(query, "runColorGroup").removeprefix("regex:"))
        found = [[pattern.search(job) for job in [*jobs, f"{jobs[0]}.2"]] for jobs in runs]
        return [[match.groups() for match in of_run if match] for of_run in found]

    (nine, ten, eleven, again), other = groups(few)
    assert nine == eleven != ten and again not in (nine, ten) and not {*other} & {nine, ten, again}
    (nine, ten, eleven, again), other = groups(many)
    assert len({nine, ten, eleven, again}) == 4 and other == [nine, ten, eleven, again]


def test_the_tunnel_ends_where_tensorboard_listens() -> None:
    assert tunnel_command(6006, "ada@login.hpc.org") == "ssh -N -L 6006:127.0.0.1:6006 ada@login.hpc.org"
    by_login = "ssh -N -L 6006:127.0.0.1:6006 -J ada@login.hpc.org ada@gpu7"
    assert tunnel_command(6006, "ada@login.hpc.org", "gpu7") == by_login


def ask(server: TensorBoard, path: str) -> object:
    with urllib.request.urlopen(server.url + "data/" + path, timeout=20) as answer:
        return json.loads(answer.read())


def read_over_http(server: TensorBoard) -> Shown:
    tags = ask(server, "plugin/scalars/tags")
    assert isinstance(tags, dict)
    shown: Shown = {}
    for run, of_run in tags.items():
        for tag in of_run:
            query = urllib.parse.urlencode({"run": run, "tag": tag})
            rows = ask(server, f"plugin/scalars/scalars?{query}")
            assert isinstance(rows, list)
            shown.setdefault(run, {})[tag] = [(step, round(value, 4)) for _, step, value in rows]
    return shown


def wait_for(server: TensorBoard, expected: Shown, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            shown = read_over_http(server)
        except urllib.error.HTTPError:  # between two of its reloads a tag may be listed and not be there yet
            shown = {}
        if shown == expected or time.monotonic() > deadline:
            assert shown == expected
            return
        time.sleep(0.3)


@pytest.mark.server
@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_tensorboard_shows_a_finished_chain_as_one_curve_per_job(tmp_path: Path, start: Start, load_fast: str) -> None:
    View(tmp_path / "view").poll(three_jobs(tmp_path))
    server = start(tmp_path / "view", load_fast)
    wait_for(server, expected_of_three_jobs())
    # TensorBoard hands out colours in this order, so neighbouring jobs differ.
    assert ask(server, "runs") == ["job001-4701", "stitched", "job002-4702", "job003-4703"]


@pytest.mark.server
@pytest.mark.slow
def test_a_running_tensorboard_follows_jobs_that_supersede_each_other(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "SECONDS_AWAY", 4)
    jobs = [job_curve(tmp_path, 1, 0), job_curve(tmp_path, 2, 200), job_curve(tmp_path, 3, 120)]
    view = View(tmp_path / "view")
    log_job(jobs[0], 234)
    view.poll(jobs)
    servers = [start(tmp_path / "view", load_fast) for load_fast in ("true", "false")]

    def all_show(expected: Shown) -> None:
        assert read_with_accumulator(tmp_path / "view") == expected
        for server in servers:
            wait_for(server, expected)

    train, validation = by_job(1, range(1, 235)), by_job(1, range(0, 201, 50))
    first = {"train/loss": train, "validation/loss": validation}
    all_show({"job001-4701": first, "stitched": first})

    # Job 2 takes over at 200: 34 steps of job 1 are superseded.
    log_job(jobs[1], 260)
    view.poll(jobs)
    first = {"train/loss": train[:200], "validation/loss": validation}
    second = {"train/loss": by_job(2, range(201, 261)), "validation/loss": by_job(2, range(250, 251))}
    all_show({
        "job001-4701": first,
        "job002-4702": {tag: first[tag][-1:] + second[tag] for tag in first},
        "stitched": {tag: first[tag] + second[tag] for tag in first},
    })  # fmt: skip

    # Job 3 falls back to 120: job 2 is superseded as a whole, and validation ends behind the cut.
    log_job(jobs[2], 180)
    view.poll(jobs)
    first = {"train/loss": train[:120], "validation/loss": validation[:3]}
    third = {"train/loss": by_job(3, range(121, 181)), "validation/loss": by_job(3, range(150, 151))}
    third_shown = {
        "job001-4701": first,
        "job003-4703": {tag: first[tag][-1:] + third[tag] for tag in first},
        "stitched": {tag: first[tag] + third[tag] for tag in first},
    }
    all_show(third_shown)

    # A tag seen only behind the next cut: its runs leave, are forgotten, and come back without it.
    add_points(jobs[2].directory, "gradient/norm", [179], 3, 3_000_000.0)
    view.poll(jobs)
    with_norm = {name: dict(curves) for name, curves in third_shown.items()}
    with_norm["job003-4703"]["gradient/norm"] = with_norm["stitched"]["gradient/norm"] = by_job(3, range(179, 180))
    all_show(with_norm)
    jobs.append(job_curve(tmp_path, 4, 170))
    log_job(jobs[3], 175)
    view.poll(jobs)
    time.sleep(4.5)
    view.poll(jobs)
    third = {"train/loss": by_job(3, range(121, 171)), "validation/loss": by_job(3, range(150, 151))}
    fourth = {"train/loss": by_job(4, range(171, 176))}
    all_show({
        "job001-4701": first,
        "job003-4703": {tag: first[tag][-1:] + third[tag] for tag in first},
        "job004-4704": {"train/loss": third["train/loss"][-1:] + fourth["train/loss"]},
        "stitched": {tag: first[tag] + third[tag] + fourth.get(tag, []) for tag in first},
    })  # fmt: skip


@pytest.mark.server
def test_a_port_that_is_taken_is_an_error_in_tensorboards_own_words(tmp_path: Path, start: Start) -> None:
    server = start(tmp_path, "false")
    with pytest.raises(RuntimeError) as caught:
        start_tensorboard(tmp_path, port=server.port)
    reason = f"TensorBoard could not bind to port {server.port}, it was already in use"
    assert str(caught.value) == f"TensorBoard ended with code 255:\n{reason}"


@pytest.mark.server
def test_the_secret_path_stands_nowhere_for_other_users(tmp_path: Path, start: Start) -> None:
    server = start(tmp_path / "view", "true")
    secret = server.url.split("/")[3]
    assert len(secret) >= 16
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert lines
    assert not any(secret.encode() in line for line in lines)
    said = [path for path in tmp_path.parent.rglob("pid-*.info") if secret in path.read_text()]
    assert said and all(server.private in path.parents for path in said), "TensorBoard writes it down"
    assert server.private.stat().st_mode & 0o077 == 0
    public = Path(tempfile.gettempdir(), ".tensorboard-info")
    assert not any(secret in path.read_text() for path in public.glob("*.info"))
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/data/runs", timeout=5)
