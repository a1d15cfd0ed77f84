"""Room: the size of a model told without torch, and what cannot fit refused before the queue."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcft.launch.weights import count_parameters
from tests.desk import Desk

GIGA = 10**9


def write_safetensors(path: Path, tensors: Mapping[str, tuple[Sequence[int], str]]) -> None:
    """A file with this head; its tensors are not there, since nobody may look at them."""
    entries = {name: {"shape": shape, "dtype": kind, "data_offsets": [0, 0]} for name, (shape, kind) in tensors.items()}
    head = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head)


def model_of(desk: Desk, parameters: int) -> None:
    """Give the desk's model so many parameters."""
    write_safetensors(desk.folder / "model/model.safetensors", {"wte.weight": ([parameters], "F16")})


def disk_of(desk: Desk, free: int) -> None:
    """Leave so many bytes free wherever anybody looks."""
    desk.patch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free // 4096, f_frsize=4096))


def test_parameters_are_counted_over_all_files_of_the_index_and_masks_are_none(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"w": ([3, 5], "F32"), "h.0.attn.bias": ([1, 1, 8, 8], "F32")})
    write_safetensors(
        tmp_path / "b.safetensors",
        {"b": ([7], "BF16"), "scalar": ([], "F16"), "ids": ([4], "I64"), "positions": ([1, 9], "I64")},
    )
    weight_map = {"w": "a.safetensors", "h.0.attn.bias": "a.safetensors", "b": "b.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert count_parameters(tmp_path) == 15 + 7 + 1


@pytest.mark.parametrize("kind", ["I32", "U8", "F8_E4M3"])
def test_packed_weights_do_not_tell_their_number(tmp_path: Path, kind: str) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"w": ([3, 5], kind), "b": ([5], "F16")})
    assert count_parameters(tmp_path) is None


def test_what_is_no_safetensors_file_tells_nothing(tmp_path: Path) -> None:
    assert count_parameters(tmp_path) is None
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    assert count_parameters(tmp_path) is None
    for broken in (b"", b"\0" * 8, b"\xff" * 16, b"\2\0\0\0\0\0\0\0[]"):
        (tmp_path / "model.safetensors").write_bytes(broken)
        assert count_parameters(tmp_path) is None, broken


def test_checkpoints_that_have_no_room_on_the_disk_are_refused_with_the_mend(desk: Desk) -> None:
    model_of(desk, GIGA)
    disk_of(desk, 40 * GIGA)  # three checkpoints of 12 GB and a model of 4 GB are all of it
    assert "# disk         40.0 GB for 3 checkpoints and the model; 40.0 GB are free\n" in desk.accepts()
    assert desk.faults("--set", "train.keep_checkpoints=3") == [
        "--set train.keep_checkpoints: 4 checkpoints of 12.0 GB and the model take 52.0 GB, and 40.0 GB are free "
        "in runs. Keep fewer than train.keep_checkpoints = 3, or name another folder with --runs."
    ]
    disk_of(desk, 27 * GIGA)
    assert desk.faults("--set", "train.keep_checkpoints=1") == [
        "--set train.keep_checkpoints: 2 checkpoints of 12.0 GB and the model take 28.0 GB, and 27.0 GB are free "
        "in runs. Name another folder with --runs."
    ]


def test_a_limit_in_bytes_and_the_best_model_count(desk: Desk) -> None:
    model_of(desk, GIGA)
    disk_of(desk, 100 * GIGA)
    more = ("--set", "train.keep_checkpoints=9", "--set", "train.keep_best=true", "--set")
    assert "# disk         60.0 GB for 4 checkpoints and 3 models; " in desk.accepts(*more, "train.keep_bytes=45G")
    assert desk.faults(*more, "train.keep_bytes=20G") == [
        "--set train.keep_bytes: train.keep_bytes = 20G has no room for two checkpoints of 12.0 GB: the newest stays "
        'while the next one is written. Write "23G" or more.'
    ]


def test_what_is_not_trained_takes_no_room_in_checkpoints(desk: Desk) -> None:
    layer = {"h.{}.attn.c_attn.weight": ([1000, 3000], "F32"), "h.{}.ln.weight": ([1000], "F32")}
    layers = {name.format(number): facts for number in range(4) for name, facts in layer.items()}
    write_safetensors(desk.folder / "model/model.safetensors", {"wte.weight": ([5000, 1000], "F32"), **layers})
    disk_of(desk, 1000 * GIGA)

    def disk(*options: str) -> str:
        return next(line for line in desk.accepts(*options).splitlines() if line.startswith("# disk")).split(";")[0]

    whole, frozen, adapters = 17_004_000, 17_004_000 - 2 * 3_001_000, 4 * 8 * 3 * 4000
    assert disk() == f"# disk         {(3 * 12 + 4) * whole / 1e6:.1f} MB for 3 checkpoints and the model"
    taken = f"{(3 * 12 * frozen + 4 * whole) / 1e6:.1f} MB"
    assert disk("--set", "model.freeze=2") == f"# disk         {taken} for 3 checkpoints and the model"
    taken = f"{(3 * 12 + 4) * adapters / 1e6:.1f} MB"
    assert disk("--set", "lora={}") == f"# disk         {taken} for 3 checkpoints and the model"


def test_a_quota_that_is_too_small_is_said_and_a_purge_is_foretold(desk: Desk) -> None:
    model_of(desk, GIGA)
    disk_of(desk, 1000 * GIGA)
    desk.write("site.yaml", (desk.folder / "site.yaml").read_text() + "quota: 38G\npurge_days: 30\n")
    disk = next(line for line in desk.accepts().splitlines() if line.startswith("# disk"))
    assert disk == (
        "# disk         40.0 GB for 3 checkpoints and the model; 1000.0 GB are free, the quota of site is 40.8 GB; "
        "site deletes files that nobody touched for 30 days"
    )
    desk.change("quota: 38G", "quota: 37G", "site.yaml")
    assert desk.faults() == [
        "demo.yaml:9: 3 checkpoints of 12.0 GB and the model take 40.0 GB, and the quota of site is 39.7 GB. "
        "Keep fewer than train.keep_checkpoints = 2, or name another folder with --runs."
    ]
