"""Notices: told once, to whom the recipe names, of what is worth it; with a real server and a real program."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from hpcft.disk import read_json, write_json
from hpcft.job.verdict import Halt, halt
from hpcft.launch import notice
from hpcft.rundir import JobDir, RunDir


@dataclass
class Server:
    """A web server that keeps what is posted to it."""

    address: str
    posts: list[dict[str, Any]] = field(default_factory=list)
    answer: int = 200


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            said.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(said.answer)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        said = Server(f"http://127.0.0.1:{web.server_port}/hooks/secret")
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        yield said
        web.shutdown()


def make_run(folder: Path, **notify: str) -> RunDir:
    """A run of two jobs at most, with one that has begun."""
    run = RunDir(folder / "de $(touch x) mo")
    recipe = {"name": "demo", "task": "corpus", "model": {"path": "gpt2"}, "data": {"train": "/t.jsonl"}}
    run.job(1).path.mkdir(parents=True)
    write_json(run.path / "recipe.json", {**recipe, "train": {"steps": 90}, "resources": {"jobs": 2}, "notify": notify})
    write_json(run.job(1).path / "submitted.json", {"slurm_id": "4711", "walltime": 60, "time": 0})
    return run


def end(run: RunDir, number: int, ending: str, **facts: Any) -> JobDir:
    """The job, which has ended so."""
    job = run.job(number)
    job.path.mkdir(exist_ok=True)
    write_json(job.path / "ended.json", {"ending": ending, "time": 1, "last_step": 7, **facts})
    return job


def recorder(folder: Path) -> tuple[str, Path]:
    """A command that writes each variable of ours, and its arguments, as a line of JSON; and the file it writes to."""
    program, out = folder / "tell me.py", folder / "told"
    program.write_text(
        "#!/usr/bin/env python3\nimport json, os, sys\n"
        f"ours = {{k: v for k, v in os.environ.items() if k.startswith('HPCFT_')}}\n"
        f"open({str(out)!r}, 'a').write(json.dumps([sys.argv[1:], ours, os.getcwd()]) + '\\n')\n"
    )
    program.chmod(0o755)
    return f"'{program}' --loud '$HOME; `id`'", out


def test_a_mere_cut_a_stop_and_a_preemption_are_told_to_nobody(tmp_path: Path, server: Server) -> None:
    run = make_run(tmp_path, webhook=server.address)
    for ending in ("walltime", "terminated", "killed", "stopped", "idle", "cancelled", "locked"):
        notice.tell(run, end(run, 1, ending))
    run.stop_file.touch()
    notice.tell(run, end(run, 2, "walltime"))
    assert server.posts == [] and not (run.path / "notices").exists()


def test_a_finished_run_is_told_once_whoever_looks_again(tmp_path: Path, server: Server) -> None:
    run = make_run(tmp_path, webhook=server.address)
    write_json(run.path / "finished.json", {"step": 90})
    notice.tell(run, end(run, 1, "finished"))
    notice.tell(run, run.job(1))
    notice.tell(run, end(run, 2, "idle"))
    (post,) = server.posts
    assert post["text"] == f"hpcft: run {run.name} has finished after 90 steps. Its model: {run.final_model}"
    told = {key: post[key] for key in ("event", "run", "step", "steps", "job", "slurm_id", "reason")}
    assert told == {"event": "finished", "run": run.name, "step": 90, "steps": 90, "job": 1, "slurm_id": "4711",
                    "reason": ""}  # fmt: skip


def test_a_command_gets_what_happened_in_variables_and_no_shell_sees_them(tmp_path: Path) -> None:
    command, out = recorder(tmp_path)
    run = make_run(tmp_path, command=command)
    halt(run, end(run, 1, "refused"), Halt('it "broke"; $(touch y)\nin two lines.', "Mend it."))
    notice.tell(run, run.job(1))
    ((arguments, ours, folder),) = map(json.loads, out.read_text().splitlines())
    assert arguments == ["--loud", "$HOME; `id`"] and folder == str(run.path)
    assert (ours["HPCFT_EVENT"], ours["HPCFT_RUN"], ours["HPCFT_DIR"]) == ("halted", run.name, str(run.path))
    assert ours["HPCFT_REASON"] == 'it "broke"; $(touch y)\nin two lines.'
    assert ours["HPCFT_TEXT"] == f"hpcft: run {run.name} has halted: {ours['HPCFT_REASON']} Mend it."
    assert not list(run.path.glob("[xy]"))


def test_a_crash_is_told_and_when_the_chain_halts_over_it_that_is_told_instead(tmp_path: Path, server: Server) -> None:
    run = make_run(tmp_path, webhook=server.address)
    notice.tell(run, end(run, 1, "crashed", reason="the GPU ran out of memory"))
    halt(run, end(run, 2, "crashed", reason="the GPU ran out of memory"), Halt("2 jobs in a row.", "Use less."))
    notice.tell(run, run.job(2))
    notice.tell(run, end(run, 3, "idle"))
    assert [(post["event"], post["text"]) for post in server.posts] == [
        ("failed", f"hpcft: job 1 of run {run.name} has failed: the GPU ran out of memory. "
         "The next one tries once more."),
        ("halted", f"hpcft: run {run.name} has halted: 2 jobs in a row. Use less."),
    ]  # fmt: skip


def test_a_chain_that_has_used_up_its_jobs_has_failed(tmp_path: Path, server: Server) -> None:
    run = make_run(tmp_path, webhook=server.address)
    notice.tell(run, end(run, 1, "walltime"))
    notice.tell(run, end(run, 2, "walltime"))
    (post,) = server.posts
    assert post["text"] == (
        f"hpcft: run {run.name} has ended: it has had its 2 jobs and is not finished. `hpcft extend {run.name} N` "
        "grants N more."
    )


def test_a_second_halt_after_a_resume_is_another_event(tmp_path: Path, server: Server) -> None:
    run = make_run(tmp_path, webhook=server.address)
    for number in (1, 2):
        halt(run, end(run, number, "refused"), Halt("it broke.", "Mend it."))
        notice.tell(run, run.job(number))
    assert [post["job"] for post in server.posts] == [1, 2]


def test_what_a_killed_job_had_not_told_is_told_by_the_next_one_and_no_more_than_twice(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, webhook=server.address)
    halt(run, end(run, 1, "refused"), Halt("it broke.", "Mend it."))

    def killed(*arguments: object) -> None:
        notice_post(*arguments)  # type: ignore[arg-type]
        raise SystemExit  # not caught, as a SIGKILL is not: the answer is never recorded

    notice_post = notice.post
    monkeypatch.setattr(notice, "post", killed)
    for number in (1, 2, 3):
        with pytest.raises(SystemExit) if number < 3 else pytest.MonkeyPatch.context():
            notice.tell(run, run.job(number) if number == 1 else end(run, number, "idle"))
    assert len(server.posts) == 2 and server.posts[0]["id"] == server.posts[1]["id"]


def test_a_server_that_refuses_and_a_program_that_fails_are_recorded_and_harm_nothing(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notice, "COMMAND_PATIENCE", 0.3)
    server.answer = 500
    run = make_run(tmp_path, webhook=server.address, command="sleep 60")
    write_json(run.path / "finished.json", {"step": 90})
    notice.tell(run, end(run, 1, "finished"))
    (path,) = (run.path / "notices").iterdir()
    results = {channel: facts["result"] for channel, facts in (read_json(path) or {})["channels"].items()}
    assert results == {
        "command": "failed: RuntimeError: it was killed after 0.3 s",
        "webhook": "failed: HTTPError: HTTP Error 500: Internal Server Error",
    }
    assert "hpcft: finished, told by webhook: failed: HTTPError" in capfd.readouterr().err
    for bad in ({"command": "/no/such/program"}, {"webhook": "http://127.0.0.1:1/"}):
        other = make_run(tmp_path / next(iter(bad)), **bad)
        write_json(other.path / "finished.json", {"step": 90})
        notice.tell(other, end(other, 1, "finished"))
    (run.path / "recipe.json").write_text("{")
    notice.tell(run, run.job(1))
    assert "nobody could be told: ValidationError" in capfd.readouterr().err
