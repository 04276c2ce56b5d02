from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pulmofuse.errors import StudyError
from pulmofuse.report import write_report
from pulmofuse.report.doubts import split_text
from pulmofuse.report.study_files import read_study
from tests.report.builder import THREE, make_study, write
from tests.report.page import read_page

SECTIONS = [
    "answer", "question", "data", "examples", "split", "audit", "results", "curves", "confusion",
    "training", "calibration", "sites", "controls", "explanations", "left-out",
    "limits", "reproducibility",
]  # fmt: skip
METRIC_KEYS = [
    "roc_auc", "accuracy", "recall", "specificity", "precision", "f1", "average_precision", "brier",
    "ece",
]  # fmt: skip
OPTIONAL = [
    "config.resolved.yaml", "manifest.parquet", "excluded.csv", "audit.json", "checkpoints",
    "controls.csv",
    "metrics.json", "examples", "explanations", "study.json",
]  # fmt: skip
LARGEST_PAGE_BYTES = 6_000_000


@pytest.fixture(params=["two_class_study", "three_class_study"])
def study(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_every_section_is_there_in_order_and_well_formed(study: Path) -> None:
    page = read_page(study / "report.html")
    assert [name for name in page.ids() if name in SECTIONS] == SECTIONS
    assert len(page.ids()) == len(set(page.ids()))
    assert page.unbalanced == []
    assert dict(page.tags)["html"] == {"lang": "en"}
    assert "This section is empty" not in " ".join(page.texts.values())


def test_the_page_loads_nothing(study: Path) -> None:
    text = (study / "report.html").read_text(encoding="utf-8")
    page = read_page(study / "report.html")
    assert len(text.encode()) < LARGEST_PAGE_BYTES
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert "@import" not in text
    assert "url(" not in text
    sources = [value for _, a in page.tags for key, value in a.items() if key in {"src", "srcset"}]
    assert sources
    assert all(str(source).startswith("data:image/") for source in sources)
    links = [str(a["href"]) for tag, a in page.tags if tag == "a"]
    assert all(link.startswith("#") and link[1:] in page.ids() for link in links)


def test_every_picture_says_what_it_shows(study: Path) -> None:
    images = read_page(study / "report.html").images()
    assert len(images) > 30
    assert all(len(image["alt"] or "") > 10 for image in images)


def test_results_table_shows_the_figures_of_metrics_json(study: Path) -> None:
    metrics = pd.DataFrame(json.loads((study / "metrics.json").read_text()))
    metrics = metrics[(metrics["split"] == "test") & (metrics["site"] == "")]
    found = metrics.set_index(["subset", "method", "metric"])
    table = read_page(study / "report.html").tables["Results per patient"][1:]
    shown = {row[0]: row[1:] for row in table if row[1]}
    rules = {"mean": "mean", "weighted mean": "weighted_mean", "log-odds": "log_odds",
             "gated attention": "gated_attention", "alone": "unimodal"}  # fmt: skip
    assert len(shown) == 3 + 4 * 4
    for title, cells in shown.items():
        subset, _, rule = title.rpartition(",")
        key = subset.lower().replace(" ", "").strip(), rules[rule.strip()]
        for name, cell in zip(METRIC_KEYS, cells[:-1], strict=True):
            row = found.loc[(*key, name)]
            digits = 3 if name in {"brier", "ece"} else 2
            expected = [f"{row[column]:.{digits}f}" for column in ("value", "low", "high")]
            assert re.findall(r"[\d.]+", cell) == expected
        assert int(cells[-1]) == found.loc[(*key, "accuracy"), "n_patients"]


def test_bold_is_the_best_of_each_column_as_displayed(two_class_study: Path) -> None:
    html = (two_class_study / "report.html").read_text(encoding="utf-8")
    body = html.split('aria-label="Results per patient"')[1].split("</table>")[0]
    rows = re.findall(r"<tr.*?</tr>", body)
    cells = [re.findall(r'<td class="num">(.*?)<span', row) for row in rows]
    columns = list(zip(*(row for row in cells if len(row) == len(METRIC_KEYS)), strict=True))
    for name, column in zip(METRIC_KEYS, columns, strict=True):
        values = [float(re.sub(r"<.*?>", "", cell)) for cell in column]
        best = min(values) if name in {"brier", "ece"} else max(values)
        assert ["best" in cell for cell in column] == [value == best for value in values]


def test_the_question_is_shown_where_there_is_more_than_one(tmp_path: Path) -> None:
    folder = make_study(tmp_path, THREE)
    metrics = json.loads((folder / "metrics.json").read_text())
    for row in metrics:
        if row["subset"] == "ct":
            row["question"] = "normal|pneumonia, covid19"
    write(folder / "metrics.json", metrics)
    pair = {"family": "fusion_vs_best", "metric": "roc_auc", "subset_a": "ct+cxr", "subset_b": "ct",
            "method_a": "log_odds", "method_b": "unimodal", "difference": 0.1, "low": 0.0,
            "high": 0.2, "test": "bootstrap", "p_value": 0.1, "p_holm": 0.2}  # fmt: skip
    pairs = [pair | {"question": name} for name in ("normal|pneumonia, covid19", "")]
    pd.DataFrame(pairs).to_csv(folder / "comparisons.csv", index=False)
    page = read_page(write_report(folder))
    assert page.unbalanced == []
    coarse, fine = "normal or pneumonia, COVID-19", "normal, COVID-19, pneumonia"
    for name, column in (
        ("Results per patient", 1), ("Results per file", 1), ("Results per site", 1),
        ("Paired comparisons", 2),
    ):  # fmt: skip
        head, *rows = page.tables[name]
        assert head[column] == "Question", name
        assert {row[column] for row in rows if row[1]} == {coarse, fine}
    shown = {row[0]: row[1] for row in page.tables["Results per patient"][1:] if row[1]}
    assert [title for title, asked in shown.items() if asked == coarse] == ["CT , alone"]
    assert "| normal or pneumonia, COVID-19 |" in (folder / "model_card.md").read_text()


def test_one_question_has_no_column(study: Path) -> None:
    for table in read_page(study / "report.html").tables.values():
        assert "Question" not in table[0]


def test_per_site_table_shows_every_site(two_class_study: Path) -> None:
    table = read_page(two_class_study / "report.html").tables["Results per site"]
    titles = " ".join(row[0] for row in table)
    for site in ("medrxiv", "radiopaedia", "cohen", "nih", "call", "telegram"):
        assert site in titles


def test_answer_says_simulated_in_the_same_sentence(two_class_study: Path) -> None:
    text = read_page(two_class_study / "report.html").texts["answer"]
    sentence = next(part for part in text.split(". ") if "Fusion of" in part)
    assert "CT, CXR and cough by log-odds" in sentence
    assert "120 simulated test patients" in sentence
    assert "not a clinical gain" in sentence
    assert "Simulated patients." in text


def test_answer_of_paired_patients_does_not_say_simulated(three_class_study: Path) -> None:
    text = (three_class_study / "report.html").read_text(encoding="utf-8")
    assert "on 120 paired test patients" in text
    assert "simulated" not in text.lower()


def test_research_banner_stands_first(study: Path) -> None:
    body = (study / "report.html").read_text(encoding="utf-8").partition("<body>")[2]
    assert body.lstrip().startswith('<div class="banner"')
    assert "Research use only. Not a medical device." in body[:200]


def test_truth_stands_beside_what_was_reached(three_class_study: Path) -> None:
    truth = json.loads((three_class_study / "study.json").read_text())["truth"]
    table = read_page(three_class_study / "report.html").tables["Reached and attainable AUC"][1:]
    assert {row[0].lower().replace(" ", ""): row[2] for row in table} == {
        subset: f"{auc:.2f}" for subset, auc in truth.items()
    }


def test_truth_is_left_out_of_real_data(two_class_study: Path) -> None:
    assert "truth" not in read_page(two_class_study / "report.html").ids()
    assert not (two_class_study / "figures" / "truth.png").exists()


def test_left_out_files_are_counted_and_the_first_fifty_shown(two_class_study: Path) -> None:
    page = read_page(two_class_study / "report.html")
    reasons = page.tables["Left-out files by reason"][1:]
    assert [row[2] for row in reasons] == ["61", "2"]
    assert len(page.tables["Left-out files"][1:]) == 50


def test_same_study_gives_the_same_bytes(two_class_study: Path, study_copy: Path) -> None:
    write_report(study_copy)
    made = [p.relative_to(study_copy) for p in study_copy.rglob("*") if p.is_file()]
    assert Path("report.html") in made
    for name in made:
        assert (study_copy / name).read_bytes() == (two_class_study / name).read_bytes(), name


@pytest.mark.parametrize(
    ("name", "panels"),
    [("two_class_study", {"roc", "precision_recall"}),
     ("three_class_study", {"roc_1_normal", "roc_2_covid19", "roc_3_pneumonia",
                            "precision_recall_2_covid19", "truth"})],
)  # fmt: skip
def test_every_figure_is_written_as_png_and_svg(
    name: str, panels: set[str], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name) / "figures"
    png, svg = ({p.stem for p in folder.glob(f"*.{kind}")} for kind in ("png", "svg"))
    assert png == svg
    parts = ("ct", "cxr", "cough")
    assert png >= panels | {"forest", "confusion_ct_cxr_cough", "training_fusion_gated_attention"}
    assert png >= {
        f"{kind}_{m}" for kind in ("confusion", "training", "calibration") for m in parts
    }


def test_without_optional_files_each_section_says_why_it_is_empty(study_copy: Path) -> None:
    for name in OPTIONAL:
        path = study_copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = read_page(write_report(study_copy))
    assert [name for name in page.ids() if name in SECTIONS] == SECTIONS
    assert page.unbalanced == []
    for section, name in [
        ("data", "manifest.parquet"), ("data", "examples/index.json"), ("audit", "audit.json"),
        ("results", "metrics.json"), ("training", "history.csv"), ("sites", "metrics.json"),
        ("explanations", "explanations/index.json"), ("left-out", "excluded.csv"),
        ("reproducibility", "study.json"), ("reproducibility", "config.resolved.yaml"),
    ]:  # fmt: skip
        assert name in page.texts[section], section
    assert "There is no answer yet" in page.texts["answer"]
    assert (study_copy / "figures" / "roc.svg").is_file(), "curves need the predictions only"


def test_missing_predictions_are_an_error(study_copy: Path) -> None:
    (study_copy / "predictions.parquet").unlink()
    with pytest.raises(StudyError, match=r"predictions\.parquet: no such file"):
        write_report(study_copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [("metrics.json", b"{"), ("audit.json", b"\xff"), ("study.json", b""),
     ("manifest.parquet", b"PAR1"), ("predictions.parquet", b"PAR1"),
     ("explanations/index.json", b"[")],
)  # fmt: skip
def test_damaged_file_is_an_error_that_names_it(
    study_copy: Path, name: str, content: bytes
) -> None:
    (study_copy / name).write_bytes(content)
    with pytest.raises(StudyError, match=re.escape(name)):
        write_report(study_copy)


def test_lost_or_outside_picture_is_said_to_be_missing(study_copy: Path) -> None:
    index = json.loads((study_copy / "examples" / "index.json").read_text())
    outside = study_copy.parent / "outside.png"
    shutil.copy(study_copy / "examples" / index[0]["image"], outside)
    (study_copy / "examples" / index[1]["image"]).write_bytes(b"not a picture")
    index[0]["image"] = "../../outside.png"
    index[2]["image"] = "lost.png"
    write(study_copy / "examples" / "index.json", index)
    text = write_report(study_copy).read_text(encoding="utf-8")
    assert text.count("picture missing") == 3


HOSTILE = '<script>alert("1")</script>'


def test_hostile_names_are_text(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", truth=False)
    # Without a configuration the class names are those of the predictions, whatever they are.
    (folder / "config.resolved.yaml").unlink()
    for name in ("predictions.parquet", "manifest.parquet"):
        frame = pd.read_parquet(folder / name).replace({"covid19": HOSTILE, "nih": HOSTILE})
        renamed = {c: c.replace("_covid19", f"_{HOSTILE}") for c in frame if "not_covid19" not in c}
        frame.rename(columns=renamed).to_parquet(folder / name, index=False)
    excluded = pd.read_csv(folder / "excluded.csv")
    excluded.loc[0, ["path", "reason"]] = [f"{HOSTILE}.png", "$\\frac{$ | `x` \n# heading"]
    excluded.to_csv(folder / "excluded.csv", index=False)
    for name, key in [
        ("study.json", "name"),
        ("study.json", "question"),
        ("study.json", "split_hash"),
    ]:
        tree = json.loads((folder / name).read_text())
        write(folder / name, tree | {key: f"{HOSTILE} $\\frac{{$"})
    audit = json.loads((folder / "audit.json").read_text())
    for check in audit["checks"]:
        check |= {"detail": HOSTILE, "remedy": HOSTILE}
    audit["checks"][0]["verdict"] = '"><img src=http://x>'
    write(folder / "audit.json", audit)
    entries = json.loads((folder / "explanations" / "index.json").read_text())
    entries[0] |= {"record_id": HOSTILE, "y_true": '" onerror="x', "y_pred": HOSTILE}
    write(folder / "explanations" / "index.json", entries)

    page = read_page(write_report(folder))
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert all(str(a["src"]).startswith("data:") for a in page.images())
    assert page.unbalanced == []
    assert HOSTILE in page.texts["question"]
    assert f"{HOSTILE}.png" in page.tables["Left-out files"][1][0]
    assert "<script" not in card
    assert "<img" not in card
    drawn = [p.name for p in (folder / "figures").iterdir()]
    assert all(re.fullmatch(r"[a-z0-9_]+\.(png|svg)", name) for name in drawn)


def test_model_card_holds_every_part(study: Path) -> None:
    card = (study / "model_card.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", card, flags=re.MULTILINE)
    assert headings == [
        "Conclusion",
            "Intended use", "Not for", "Data", "Figures", "Audit verdict", "Limits", "Licence",
    ]  # fmt: skip
    assert "Research use only. Not a medical device." in card
    assert "**fail**" in card
    metrics = pd.DataFrame(json.loads((study / "metrics.json").read_text()))
    full = metrics.query(
        "subset == 'ct+cxr+cough' and method == 'log_odds' and metric == 'roc_auc'"
        " and split == 'test' and site == ''"
    ).iloc[0]
    line = next(li for li in card.splitlines() if li.startswith("| CT + CXR + cough | log-odds"))
    assert f"{full['value']:.2f} [{full['low']:.2f}, {full['high']:.2f}]" in line
    widths = {line.count("|") for line in card.split("## Figures")[1].splitlines() if "|" in line}
    assert len(widths) == 1, "every row of a Markdown table has the same cells"


def test_controls_are_told_in_words_and_figures(study: Path) -> None:
    text = read_page(study / "report.html").texts["controls"]
    assert "Lungs blanked, a probe" in text
    assert "lungs_blanked seen by the probe" in text
    assert "0.800 [0.700, 0.950]" in text or "0.80 [0.70, 0.95]" in text
    assert "too few matched" in text
    assert (study / "figures" / "controls.png").is_file()


def test_odd_files_are_counted_by_kind(study: Path) -> None:
    page = (study / "report.html").read_text(encoding="utf-8")
    assert '<td>burnt in text</td><td class="num">2</td><td class="num">0</td>' in page
    assert '<td>lateral</td><td class="num">1</td><td class="num">1</td>' in page
    assert "letters &lt;b&gt;" in page


def test_accepted_leaks_stand_on_every_page(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study")
    audit = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    leak = audit["checks"][0] | {"id": "leakage.near_duplicate", "verdict": "fail", "value": 3.0}
    write(folder / "audit.json", {"verdict": "fail", "checks": [leak]})
    write_report(folder)
    for name in ("report.html", "model_card.md"):
        text = (folder / name).read_text(encoding="utf-8").replace("\\", "")
        assert "Leaks were found and accepted" in text
        assert "leakage.near_duplicate" in text


def _with_checks(folder: Path, *checks: dict[str, object]) -> Path:
    base = {"value": 0.0, "low": None, "high": None, "remedy": "", "modality": ""}
    rows = [base | check for check in checks]
    verdict = "fail" if any(row["verdict"] == "fail" for row in rows) else "pass"
    write(folder / "audit.json", {"verdict": verdict, "checks": rows})
    write_report(folder)
    return folder


def test_the_split_is_told_in_the_words_of_the_audit(tmp_path: Path) -> None:
    folder = _with_checks(
        make_study(tmp_path / "study", THREE, simulated=False),
        {"id": "leakage.patient", "verdict": "pass", "detail": "No patient is in two splits."},
        {"id": "leakage.series", "verdict": "pass", "detail": "No volume is torn."},
    )
    page = read_page(folder / "report.html")
    assert "Patients, not files, are dealt out. No patient is in two splits." in page.texts["split"]
    assert "for the figures below only" in page.texts["split"]
    assert "Truly paired patients" in page.texts["answer"]
    assert "Leaks accepted" not in page.texts["answer"]
    assert "truly paired patients" in (folder / "model_card.md").read_text(encoding="utf-8")


def test_accepted_leaks_are_not_contradicted_further_down(tmp_path: Path) -> None:
    folder = _with_checks(
        make_study(tmp_path / "study", THREE, simulated=False),
        {"id": "leakage.patient", "verdict": "fail", "detail": "9 patients are in two splits."},
        {"id": "leakage.series", "verdict": "fail", "detail": "4 volumes are torn.", "value": 4.0},
    )
    page = read_page(folder / "report.html")
    assert "9 patients are in two splits." in page.texts["split"]
    assert "the study went on: leakage.patient (0), leakage.series (4);" in page.texts["split"]
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    for text in (*page.texts.values(), card):
        assert "No patient" not in text
        assert "stand on one side" not in text
        assert "figures below only" not in text
        assert "truly paired" not in text.lower()
    assert "Leaks accepted" in page.texts["answer"]
    assert "Paired patients" in page.texts["answer"]


def test_one_modality_pairs_nothing(study_copy: Path) -> None:
    predictions = pd.read_parquet(study_copy / "predictions.parquet")
    alone = predictions[(predictions["subset"] == "cough")].assign(simulated=False)
    alone.to_parquet(study_copy / "predictions.parquet", index=False)
    about = json.loads((study_copy / "study.json").read_text(encoding="utf-8"))
    write(study_copy / "study.json", about | {"patients": "paired"})
    rows = json.loads((study_copy / "metrics.json").read_text(encoding="utf-8"))
    write(study_copy / "metrics.json", [row for row in rows if row["subset"] == "cough"])
    write_report(study_copy)
    page = read_page(study_copy / "report.html")
    assert "One modality, nothing is paired" in page.texts["answer"]
    assert "Fusion cohort" not in page.texts["split"]


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"method": "stratified", "test": 0.3}, "otherwise 30% of the patients are for the test"),
        ({"method": "kfold", "folds": 4, "fold": 1}, "fold 1 of 4, counted from 0, is the test"),
        ({"method": "kfold", "unit": "record"}, "Records are dealt, not patients: this leaks"),
        ({"method": "held_out", "held_out": ["north"]}, "everybody with a record of north"),
        ({"method": "time"}, "the newest 20% of the dated patients"),
    ],
)
def test_the_method_of_the_split_is_told(study_copy: Path, split, words: str) -> None:
    path = study_copy / "config.resolved.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(tree | {"split": split}), encoding="utf-8")
    assert words in split_text(read_study(study_copy))
