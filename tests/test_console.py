"""Tables and progress on the terminal."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from pulmofuse import console
from pulmofuse.evaluation import METRICS


def test_paths_that_look_like_markup_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["[covid] 1.png", "[b]", "[/b]", ":lungs:.png"]
    table = pd.DataFrame({"path": names, "reason": "cut", "remedy": "[/red] none"})
    console.print_exclusions(table)
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*names, "[/red] none"])
    with console.Display() as display:
        display.step("Read [/b]")
        display.finish("runs/[/b]")
    assert "Read [/b]: runs/[/b]" in capsys.readouterr().err


def test_the_progress_bar_shows_markup_as_it_is_and_goes_when_the_work_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    def work(display: console.Display) -> None:
        with display:
            display.step("Read")
            display.update(1, 2, "[/b].png")
            raise ValueError("within")

    display = console.Display()
    with pytest.raises(ValueError, match="within"):
        work(display)
    assert display._progress is None
    assert "[/b].png" in capsys.readouterr().err


def test_undefined_figures_are_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {f"{m}{end}": [None, math.nan] for m in METRICS for end in ("", "_low", "_high")}
    table = pd.DataFrame(
        {
            "subset": ["ct", "cxr"],
            "method": "unimodal",
            **figures,
            "n_patients": 3,
            "simulated": False,
        }
    )
    console.print_comparison(table)
    shown = capsys.readouterr().out
    assert shown.count("–") == 2 * (1 + len(console._SHOWN))
    assert "nan" not in shown
    assert "None" not in shown


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        ((0.5, 0.25, 0.75), "0.500 [0.250, 0.750]"),
        ((0.5, None, None), "0.500"),
        ((math.nan, math.nan, math.nan), "–"),
        ((None, None, None), "–"),
    ],
)
def test_an_interval_is_shown_as_far_as_it_is_defined(
    figures: tuple[float | None, float | None, float | None], shown: str
) -> None:
    assert console.interval(*figures) == shown
