"""The training log: what was written is read back, and cut back to a checkpoint."""

from __future__ import annotations

import json

import pytest

from graftlab.tracking.history import History


def filled(path, steps):
    history = History(path)
    history.cut_back(-1)
    history.add({"step": 0, "epoch": 0.0, "valid_loss": 3.25})
    for step in steps:
        history.add({"step": step, "epoch": step / 3, "loss": 1 / step, "learning_rate": 1e-5})
    return history


def test_rows_survive_exactly(tmp_path):
    history = filled(tmp_path / "train_log.csv", range(1, 8))
    again = History(tmp_path / "train_log.csv")
    assert again.rows == history.rows
    assert len(again.rows) == 8
    history.write_json()
    assert json.loads((tmp_path / "train_log.json").read_text()) == history.rows


def test_cutting_back_and_going_on_equals_never_stopping(tmp_path):
    filled(tmp_path / "whole.csv", range(1, 8))
    filled(tmp_path / "killed.csv", range(1, 6))
    with (tmp_path / "killed.csv").open("a") as file:
        file.write("6,2.0,0.16")  # the line a crash left half written
    resumed = History(tmp_path / "killed.csv")
    resumed.cut_back(4)
    for step in range(5, 8):
        resumed.add({"step": step, "epoch": step / 3, "loss": 1 / step, "learning_rate": 1e-5})
    resumed.sync()
    assert (tmp_path / "killed.csv").read_text() == (tmp_path / "whole.csv").read_text()


@pytest.mark.parametrize(
    "left",
    [
        "6,2.0,0.16,,1e-",
        "6,2.0,0.16,,1e-05,,,,,,,0.4",
        "6,2",
        "\0\0\0\n",
        "6,2.0,0.1x6,,1e-05,,,,,,,\n",
    ],
)
def test_whatever_a_crash_has_left_of_a_line_is_no_row(tmp_path, left):
    """Half a number, a number cut short that is one still, or blocks that were never written."""
    whole = filled(tmp_path / "train_log.csv", range(1, 6))
    with (tmp_path / "train_log.csv").open("a") as file:
        file.write(left)
    assert History(tmp_path / "train_log.csv").rows == whole.rows


def test_a_metric_of_an_objective_gets_a_column_and_survives_a_kill(tmp_path):
    def add(history, steps):
        for step in steps:
            history.add({"step": step, "loss": 1 / step, "nll": 2 / step})

    whole = filled(tmp_path / "whole.csv", [])
    add(whole, range(1, 6))
    killed = filled(tmp_path / "killed.csv", [])
    add(killed, range(1, 4))
    resumed = History(tmp_path / "killed.csv")
    assert resumed.columns[-1] == "nll"
    resumed.cut_back(2)
    add(resumed, range(3, 6))
    assert resumed.rows == whole.rows
    assert (tmp_path / "killed.csv").read_text() == (tmp_path / "whole.csv").read_text()
