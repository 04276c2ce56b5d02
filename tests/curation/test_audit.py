"""The audit: each check on data made to trip it, and on data made not to."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pulmofuse.curation import Audit, audit, confounding
from pulmofuse.curation.copies import no_pairs
from pulmofuse.curation.sample_size import auc_standard_error, smallest_difference
from pulmofuse.schema import manifest_frame

IDS = {
    "leakage.patient",
    "leakage.exact_duplicate",
    "leakage.near_duplicate",
    "leakage.series",
    "labels.contradiction",
    "confounding.source",
    "confounding.traits",
    "confounding.demographics",
    "power",
    "support",
}


def _cohort(*modalities: str) -> pd.DataFrame:
    """Two records of each of 100 patients; sources, traits, age and sex say nothing of class."""
    rng = np.random.default_rng(3)
    rows = []
    for modality in modalities:
        for i in range(200):
            patient = i // 2
            source = rng.choice(["east", "west"]) if i % 2 == 0 else rows[-1]["source"]
            traits = {"width": int(rng.integers(300, 600)), "format": str(rng.choice(["a", "b"]))}
            rows.append(
                {
                    "record_id": f"{modality}{i}",
                    "patient_id": f"{modality}-p{patient}",
                    "patient_known": True,
                    "modality": modality,
                    "path": f"{modality}/{i}.png",
                    "label": "covid19" if patient % 2 else "normal",
                    "source": str(source),
                    "split": ("train", "train", "val", "test")[patient // 2 % 4],
                    "age": float(rng.integers(20, 80)),
                    "sex": str(rng.choice(["F", "M"])),
                    "traits": json.dumps(traits),
                }
            )
    return manifest_frame(rows)


@pytest.fixture
def clean() -> pd.DataFrame:
    return _cohort("ct")


@pytest.fixture
def plain(clean) -> pd.DataFrame:
    """One source and nothing known of acquisition and patient: nothing to fit a forest to."""
    return clean.assign(source="east", traits=None, age=np.nan, sex=None)


@pytest.fixture
def both() -> pd.DataFrame:
    return _cohort("ct", "cough")


def _pairs(*rows: tuple[str, str, str]) -> pd.DataFrame:
    """Pairs from (record, record, kind)."""
    if not rows:
        return no_pairs()
    table = pd.DataFrame(rows, columns=["record_a", "record_b", "kind"])
    return table.assign(score=np.where(table["kind"] == "exact", 1.0, 0.97))


def _audit(frame: pd.DataFrame, *pairs: tuple[str, str, str], **columns: object) -> Audit:
    """Audit of a manifest whose labels are the classes, all records used unless said otherwise."""
    records = frame.assign(**({"y_true": frame["label"], "used": True} | columns))
    return audit(records, _pairs(*pairs), 5)


def _checks(found: Audit, name: str, modality: str = ""):
    return [c for c in found.checks if c.id == name and c.modality == modality]


def test_clean_data_pass_every_check_of_leakage_labels_and_confounding(both) -> None:
    found = _audit(both)
    assert {check.id for check in found.checks} == IDS
    bad = [c for c in found.checks if c.id not in {"power"} and c.verdict != "pass"]
    assert not bad
    for check in found.checks:
        assert check.detail.endswith(".")
        assert bool(check.remedy) == (check.verdict != "pass")
        assert check.modality in {"", "ct", "cough"}


def test_json_has_the_agreed_shape(clean) -> None:
    tree = json.loads(json.dumps(_audit(clean).to_json(), allow_nan=False))
    assert set(tree) == {"verdict", "checks"}
    keys = ["id", "verdict", "value", "low", "high", "detail", "remedy", "modality"]
    more = ["p_value", "null_95", "thresholds", "table"]
    assert all(list(check) == keys + more for check in tree["checks"])


def test_the_order_of_rows_does_not_matter(clean) -> None:
    pairs = [("ct0", "ct8", "near"), ("ct3", "ct9", "exact")]
    first = _audit(clean, *pairs)
    again = _audit(clean.sample(frac=1, random_state=4), *pairs[::-1])
    assert again.to_json() == first.to_json()
    pd.testing.assert_frame_equal(again.duplicates, first.duplicates)


def test_a_patient_in_two_splits_is_leakage(plain) -> None:
    plain.loc[0, "split"], plain.loc[1, "split"] = "train", "test"
    found = _audit(plain)
    (check,) = _checks(found, "leakage.patient")
    assert (check.verdict, check.value) == ("fail", 1.0)
    assert "ct-p0 (test, train)" in check.detail
    assert found.verdict == "fail"


def test_unknown_patients_are_named_as_a_blind_spot(plain) -> None:
    plain.loc[:99, "patient_known"] = False
    (check,) = _checks(_audit(plain), "leakage.patient")
    assert check.verdict == "pass"
    assert "100 records of 200" in check.detail


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_copies_in_two_splits_are_leakage_of_their_kind(plain, kind: str) -> None:
    plain.loc[[0, 8], "split"] = ["train", "test"]
    found = _audit(plain, ("ct0", "ct8", kind))
    other = "near" if kind == "exact" else "exact"
    (check,) = _checks(found, f"leakage.{kind}_duplicate")
    assert (check.verdict, check.value) == ("fail", 1.0)
    assert "1 pair of files" in check.detail
    assert "1 test file" in check.detail
    assert "ct/0.png (train) and ct/8.png (test)" in check.detail
    assert _checks(found, f"leakage.{other}_duplicate")[0].verdict == "pass"


@pytest.mark.parametrize(
    ("splits", "used"),
    [(("train", "train"), True), (("train", "test"), False)],
    ids=["one split", "left out before"],
)
def test_copies_that_are_not_used_on_both_sides_leak_nothing(plain, splits, used: bool) -> None:
    plain.loc[[0, 8], "split"] = list(splits)
    found = _audit(plain, ("ct0", "ct8", "exact"), used=[i != 0 or used for i in range(200)])
    (check,) = _checks(found, "leakage.exact_duplicate")
    assert check.verdict == ("pass" if used else "warn")
    assert ("parts 1 pair" in check.detail and "(train and test: 1)" in check.detail) is not used


def test_slices_of_one_volume_in_two_splits_are_leakage(plain) -> None:
    plain["series_id"] = [f"v{i // 4}" for i in range(200)]
    plain["split"] = [("train", "test")[i // 4 % 2] for i in range(200)]
    assert _checks(_audit(plain), "leakage.series")[0].verdict == "pass"
    plain.loc[0, "split"] = "test"
    (check,) = _checks(_audit(plain), "leakage.series")
    assert (check.verdict, check.value) == ("fail", 1.0)
    assert "east/ct/v0 (test, train)" in check.detail


def test_volumes_of_two_sources_may_have_one_number(plain) -> None:
    plain["series_id"] = "1"
    plain["source"] = plain["split"]
    assert _checks(_audit(plain), "leakage.series")[0].verdict == "pass"


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_one_content_under_two_classes_fails(plain, kind: str) -> None:
    assert plain.loc[0, "label"] != plain.loc[2, "label"]
    contents, people = _checks(_audit(plain, ("ct0", "ct2", kind)), "labels.contradiction")
    assert (contents.verdict, contents.value, people.verdict) == ("fail", 1.0, "pass")
    assert "ct/0.png (normal) and ct/2.png (covid19)" in contents.detail


def test_contradictions_left_out_before_warn_and_are_counted_by_content(plain) -> None:
    pairs = [("ct0", "ct2", "exact"), ("ct2", "ct4", "near"), ("ct8", "ct10", "exact")]
    out = plain["record_id"].isin(["ct0", "ct2", "ct4", "ct8", "ct10"])
    contents, people = _checks(_audit(plain, *pairs, used=~out), "labels.contradiction")
    assert (contents.verdict, contents.value, people.verdict) == ("warn", 2.0, "pass")
    assert "2 contents (5 files) stand under two classes" in contents.detail
    assert "left out before the split" in contents.detail
    # One copy that slipped back in is worse than all that are out.
    contents, _ = _checks(
        _audit(plain, *pairs, used=~out | (plain.index == 8)), "labels.contradiction"
    )
    assert (contents.verdict, contents.value) == ("fail", 1.0)


@pytest.mark.parametrize(
    ("labels", "classes", "verdict"),
    [
        (("normal", "not_covid19"), ("normal", "not_covid19"), "pass"),
        (("covid19", "not_covid19"), ("covid19", "not_covid19"), "fail"),
        (("normal", "pneumonia"), ("negative", "negative"), "pass"),
        (("normal", "tuberculosis"), ("normal", None), "fail"),
        (("normal", "unknown"), ("normal", None), "pass"),
        (("normal", "not_covid19"), ("normal", None), "pass"),
    ],
)
def test_what_contradicts(plain, labels, classes, verdict: str) -> None:
    plain.loc[[0, 8], "label"] = list(labels)
    y_true = plain["label"].astype(object)
    y_true[[0, 8]] = list(classes)
    found = _audit(plain, ("ct0", "ct8", "exact"), y_true=y_true)
    assert _checks(found, "labels.contradiction")[0].verdict == verdict


def test_duplicates_lists_every_pair_gravest_first(plain) -> None:
    plain["split"] = "train"
    plain.loc[8, "split"] = "test"
    pairs = [("ct0", "ct1", "exact"), ("ct0", "ct8", "near"), ("ct2", "ct4", "near")]
    found = _audit(plain, *pairs, used=[i != 4 for i in range(200)])
    table = found.duplicates
    assert table["path_a"].tolist() == ["ct/2.png", "ct/0.png", "ct/0.png"]
    assert table["path_b"].tolist() == ["ct/4.png", "ct/8.png", "ct/1.png"]
    assert table.iloc[0].to_dict() == {
        "path_a": "ct/2.png", "path_b": "ct/4.png", "kind": "near", "score": 0.97,
        "label_a": "covid19", "label_b": "normal", "split_a": "train", "split_b": "train",
        "patient_a": "ct-p1", "patient_b": "ct-p2", "contradicting": True,
    }  # fmt: skip


def test_one_patient_under_two_classes_warns(plain) -> None:
    plain.loc[0, "label"] = "covid19"
    files, people = _checks(_audit(plain), "labels.contradiction")
    assert (files.verdict, people.verdict, people.value) == ("pass", "warn", 1.0)
    assert "ct-p0 (covid19, normal)" in people.detail


def test_sources_of_one_class_fail_and_are_named(both) -> None:
    ct = both["modality"] == "ct"
    both.loc[ct, "source"] = both.loc[ct, "label"].map({"normal": "nih", "covid19": "cohen"})
    found = _audit(both)
    (check,) = _checks(found, "confounding.source", "ct")
    assert check.verdict == "fail"
    assert check.value == pytest.approx(1.0)
    assert check.detail.startswith(
        "In ct, source alone (cohen, nih) tells covid19 from normal: AUC 1.00 [1.00, 1.00]"
    )
    assert "2 sources of one class only: cohen (covid19), nih (normal)" in check.detail
    assert _checks(found, "confounding.source", "cough")[0].verdict == "pass"


def test_a_site_can_give_the_class_away_within_one_source(plain) -> None:
    rng = np.random.default_rng(0)
    telling = np.where(rng.random(len(plain)) < 0.85, plain["label"], "normal")
    plain["site"] = np.where(telling == "normal", "phone", "app")
    found = _audit(plain.assign(source="covid19_cough"))
    (check,) = _checks(found, "confounding.source", "ct")
    assert check.verdict in {"warn", "fail"}
    assert check.low < check.value < check.high
    figure = f"{check.value:.2f} [{check.low:.2f}, {check.high:.2f}]".replace("0.", ".")
    assert check.detail.startswith(
        "In ct, site alone (the recording channel: phone, app) tells covid19 from normal: AUC"
        f" {figure} (.50 is chance)."
    )
    assert "source" not in check.detail
    assert "every site holds the classes in equal shares" in check.remedy
    # Of a source that says nothing of its sites they are only named.
    (check,) = _checks(_audit(plain), "confounding.source", "ct")
    assert "site alone (phone, app) tells" in check.detail


def test_one_source_and_site_tell_nothing(plain) -> None:
    (check,) = _checks(_audit(plain), "confounding.source", "ct")
    assert (check.verdict, check.value) == ("pass", 0.5)


@pytest.mark.parametrize(("flips", "verdict"), [(0.02, "fail"), (0.2, "warn")])
def test_the_trait_that_predicts_the_class_is_named(plain, flips: float, verdict: str) -> None:
    rng = np.random.default_rng(1)
    covid = (plain["label"] == "covid19").to_numpy()
    fast = covid ^ (rng.random(len(plain)) < flips)
    plain["traits"] = [
        json.dumps({"sample_rate_hz": 48000 if f else 8000, "duration_s": rng.random(), "tag": [1]})
        for f in fast
    ]
    (check,) = _checks(_audit(plain), "confounding.traits", "ct")
    assert check.verdict == verdict
    assert check.value == pytest.approx(roc_auc_score(covid, fast), abs=0.04)
    assert check.low < check.value < check.high <= 1
    assert check.detail.startswith("In ct, sample rate alone tells covid19 from normal: AUC .")
    assert "duration" not in check.detail, "what tells nothing is not accused"


def test_a_missing_trait_can_tell_too(plain) -> None:
    plain["traits"] = [
        json.dumps({"manufacturer": "acme"} if label == "covid19" else {"width": 5})
        for label in plain["label"]
    ]
    (check,) = _checks(_audit(plain), "confounding.traits", "ct")
    assert check.verdict == "fail"


@pytest.mark.parametrize("traits", [None, "{}", "not json", "[1]", '{"width": 3}'])
def test_no_traits_tell_nothing(plain, traits: str | None) -> None:
    (check,) = _checks(_audit(plain.assign(traits=traits)), "confounding.traits", "ct")
    assert (check.verdict, check.value) == ("pass", 0.5)


def test_a_trait_shared_by_the_records_of_a_patient_is_not_predicted_from_themselves(plain) -> None:
    """A unique number per patient would give everything away if folds were drawn by record."""
    rng = np.random.default_rng(2)
    number = {patient: rng.random() for patient in plain["patient_id"].unique()}
    plain["traits"] = [json.dumps({"bytes": number[p]}) for p in plain["patient_id"]]
    (check,) = _checks(_audit(plain), "confounding.traits", "ct")
    assert check.verdict == "pass"


def test_three_classes_are_macro_averaged(plain) -> None:
    target = pd.Series(np.arange(len(plain)) // 2 % 3, index=plain.index).map(
        {0: "normal", 1: "covid19", 2: "pneumonia"}
    )
    plain["traits"] = [json.dumps({"width": 300 if t == "covid19" else 200}) for t in target]
    found = _audit(plain, y_true=target)
    (check,) = _checks(found, "confounding.traits", "ct")
    # COVID-19 is told from the rest with AUC 1, each of the others with .75 at best.
    assert check.value == pytest.approx((1 + 0.75 + 0.75) / 3, abs=0.05)
    assert "tells the classes apart" in check.detail
    # The mean is no failure, but a class that is given away is.
    assert check.value < check.thresholds["fail_above"]
    assert check.verdict == "fail"
    assert "covid19 is told from all others: AUC 1.00." in check.detail


def test_a_class_of_few_patients_raises_no_alarm_by_chance() -> None:
    """Three hundred of two classes and two of a third; age has a little to do with the first."""
    verdicts = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y = np.repeat(["a", "b", "c"], [300, 300, 2])
        rows = pd.DataFrame(
            {
                "patient_id": [f"p{i}" for i in range(len(y))],
                "y_true": y,
                "age": rng.normal(50, 15, len(y)) + 4 * (y == "a"),
                "sex": rng.choice(["F", "M"], len(y)),
            }
        )
        check = confounding.demographics(rows, "ct", seed)
        assert "c is told" not in check.detail
        verdicts.append(check.verdict)
    assert "fail" not in verdicts


def test_age_that_predicts_the_class_is_found(plain) -> None:
    plain["age"] = np.where(plain["label"] == "covid19", 60.0, 8.0)
    (check,) = _checks(_audit(plain), "confounding.demographics", "ct")
    assert check.verdict == "fail"


def test_unknown_age_and_sex_are_said_to_be_unmeasured(plain) -> None:
    found = _audit(plain)
    (check,) = _checks(found, "confounding.demographics", "ct")
    assert (check.verdict, check.value) == ("pass", None)
    assert "not be measured" in check.detail


def test_support_counts_patients_and_names_the_fewest(plain) -> None:
    cell = (plain["label"] == "covid19") & (plain["split"] == "val")
    few = plain[cell]["patient_id"].unique()[:2]
    frame = plain[~cell | plain["patient_id"].isin(few)].reset_index(drop=True)
    (check,) = _checks(_audit(frame), "support", "ct")
    assert (check.verdict, check.value) == ("warn", 2.0)
    assert "The fewest are 2 patients of covid19 (val)" in check.detail
    (check,) = _checks(_audit(plain[~cell].reset_index(drop=True)), "support", "ct")
    assert (check.verdict, check.value) == ("fail", 0.0)


def test_a_manifest_without_splits_is_audited_too(plain) -> None:
    found = _audit(plain.assign(split=None))
    assert _checks(found, "leakage.patient")[0].verdict == "pass"
    (check,) = _checks(found, "support", "ct")
    assert check.value == 50.0
    (check,) = _checks(found, "power", "ct")
    assert (check.verdict, check.value) == ("warn", None)


@pytest.mark.parametrize("splits", [(None, "test"), (None, None)])
def test_copies_that_wait_for_a_split_are_a_warning(plain, splits) -> None:
    plain.loc[[0, 8], "split"] = splits
    (check,) = _checks(_audit(plain, ("ct0", "ct8", "near")), "leakage.near_duplicate")
    assert (check.verdict, check.value) == ("warn", 1.0)
    assert "not split yet" in check.detail


def test_a_class_that_is_absent_from_a_fold_leaves_the_null_a_number(plain) -> None:
    plain.loc[plain.index[:2], "y_true"] = "rare"
    (check,) = _checks(_audit(plain), "confounding.traits", "ct")
    assert "nan" not in check.detail
    assert check.null_95 is None or 0.4 < check.null_95 < 1


def test_records_without_a_class_are_left_out(both) -> None:
    found = _audit(both, y_true=both["label"].where(both["modality"] == "ct"))
    assert {check.modality for check in found.checks} == {"", "ct", "cough"}
    (check,) = [check for check in found.checks if check.modality == "cough"]
    assert (check.id, check.verdict, check.value) == ("support", "warn", None)
    assert "No record of cough has a class" in check.detail
    assert found.verdict == "warn"


def test_a_class_that_only_another_modality_has_is_a_warning_at_most(both) -> None:
    ct = both["modality"] == "ct"
    found = _audit(both, y_true=both["label"].mask(ct & (both["label"] == "normal"), "not_covid19"))
    (check,) = _checks(found, "support", "ct")
    assert (check.verdict, check.value) == ("warn", 12.0)
    assert "Other modalities have normal, ct has no record of it." in check.detail
    assert [c.verdict for c in _checks(found, "support", "cough")] == ["warn"]


def test_a_handful_of_records_is_no_crash(plain) -> None:
    found = _audit(plain.iloc[[0, 2]].reset_index(drop=True))
    (check,) = _checks(found, "confounding.traits", "ct")
    assert check.value is None
    (check,) = _checks(found, "support", "ct")
    assert check.verdict == "fail"


@pytest.mark.parametrize("n", [20, 50, 200])
def test_standard_error_equals_that_of_simulated_exponential_scores(n: int) -> None:
    rng = np.random.default_rng(n)
    # P(X > Y) of exponentials with means 4 and 1 is 4 / 5.
    aucs = [
        (rng.exponential(4, size=(n, 1)) > rng.exponential(1, size=(1, n))).mean()
        for _ in range(3000)
    ]
    assert auc_standard_error(0.8, n, n) == pytest.approx(np.std(aucs), rel=0.05)


def test_power_agrees_with_a_simulation_of_its_definition() -> None:
    n = 150
    difference = smallest_difference(n, n)
    assert difference is not None
    null = auc_standard_error(0.8, n, n)
    other = auc_standard_error(0.8 + difference, n, n)
    rng = np.random.default_rng(6)
    covariance = [[null**2, 0.5 * null * other], [0.5 * null * other, other**2]]
    draws = rng.multivariate_normal([0.8, 0.8 + difference], covariance, size=100_000)
    observed = draws[:, 1] - draws[:, 0]
    # Tested against the spread under the null, where both have AUC .80: sd = null * sqrt(2 - 1).
    shown = observed > 1.959964 * null
    assert shown.mean() == pytest.approx(0.80, abs=0.01)


@pytest.mark.parametrize("n", [20, 50, 100, 500, 5000])
def test_more_patients_show_smaller_differences(n: int) -> None:
    less, more = smallest_difference(n, n), smallest_difference(2 * n, 2 * n)
    assert more is not None
    assert more < (math.inf if less is None else less)


def test_a_tiny_test_set_can_show_nothing(plain) -> None:
    assert smallest_difference(3, 3) is None
    assert smallest_difference(0, 10) is None
    test = plain["split"] == "test"
    few = plain[test].groupby("label").head(4)
    frame = pd.concat([plain[~test], few]).reset_index(drop=True)
    (check,) = _checks(_audit(frame), "power", "ct")
    assert (check.verdict, check.value) == ("warn", None)
    assert "too few" in check.detail


def test_two_traits_that_tell_only_together_are_found(plain) -> None:
    """Exclusive or: neither trait alone tells anything, nor does any sum of the two."""
    rng = np.random.default_rng(8)
    one = rng.integers(0, 2, len(plain))
    other = one ^ (plain["label"] == "covid19").to_numpy()
    plain["traits"] = [
        json.dumps({"a": int(a), "b": int(b)}) for a, b in zip(one, other, strict=True)
    ]
    (check,) = _checks(_audit(plain), "confounding.traits", "ct")
    assert check.verdict == "fail"
    assert check.low > check.null_95
    assert "acquisition traits together, without any content, tell covid19" in check.detail
    assert "None of them does so alone." in check.detail


def test_a_high_figure_of_few_patients_is_said_to_be_possible_chance(plain) -> None:
    """Of 12 patients and 30 random traits one looks telling: that is no alarm."""
    rng = np.random.default_rng(4)
    few = plain.iloc[::2].head(12).reset_index(drop=True)
    few["traits"] = [
        json.dumps({f"t{j}": float(x) for j, x in enumerate(rng.normal(size=30))})
        for _ in range(12)
    ]
    (check,) = _checks(_audit(few), "confounding.traits", "ct")
    assert check.value > check.thresholds["warn_above"]
    assert check.p_value > check.thresholds["p_at_most"]
    assert check.verdict == "pass"
    assert "with so few patients this may be chance" in check.detail
    assert "95 % of a simpler classifier's figures are below" in check.detail


def test_traits_table_lists_every_feature_and_support_every_source(clean) -> None:
    found = _audit(clean)
    (traits,) = _checks(found, "confounding.traits", "ct")
    assert {row["feature"] for row in traits.table} == {"width", "format"}
    (support,) = _checks(found, "support", "ct")
    people = clean.drop_duplicates("patient_id").groupby(["source", "label"]).size()
    assert support.table == tuple(
        {"source": s, "covid19": people[s, "covid19"], "normal": people[s, "normal"]}
        for s in ("east", "west")
    )


def test_support_counts_sites_below_their_source(clean) -> None:
    people = clean["patient_id"].str.extract(r"(\d+)", expand=False).astype(int)
    # Patients 0 to 49 came by phone, the others by app, five of whom nobody knows the site of.
    frame = clean.assign(source="one", site=np.where(people < 50, "phone", "app"))
    frame.loc[people >= 95, "site"] = None
    (support,) = _checks(_audit(frame), "support", "ct")
    assert support.verdict == "pass"
    assert support.table == (
        {"source": "one", "site": "all", "covid19": 50, "normal": 50},
        {"source": "one", "site": "app", "covid19": 22, "normal": 23},
        {"source": "one", "site": "phone", "covid19": 25, "normal": 25},
        {"source": "one", "site": "unknown", "covid19": 3, "normal": 2},
    )


def test_a_class_from_one_site_of_the_only_source_warns(plain) -> None:
    plain["site"] = np.where(plain["label"] == "covid19", "article", ["book", "web"] * 100)
    (check,) = _checks(_audit(plain), "support", "ct")
    assert check.verdict == "warn"
    assert "From one site only: covid19 (article)" in check.detail
    assert "add ct data of covid19 from another site" in check.remedy


def test_a_class_from_one_source_only_warns_where_there_are_more(plain) -> None:
    plain["source"] = np.where(np.arange(200) // 2 % 4 == 1, "west", "east")
    (check,) = _checks(_audit(plain), "support", "ct")
    assert check.verdict == "warn"
    assert "From one source only: normal (east)" in check.detail
    assert "add ct data of normal from another source" in check.remedy


def test_a_handful_of_patients_told_apart_by_chance_are_no_alarm() -> None:
    """Twenty draws of ten records with classes at random: the interval has no width if all fit."""
    verdicts = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = rng.permutation(["a", "b"] * 5)
        traits = [json.dumps({f"t{j}": float(x) for j, x in enumerate(rng.normal(size=12))})
                  for _ in y]  # fmt: skip
        rows = pd.DataFrame({"patient_id": [f"p{i}" for i in range(10)], "y_true": y,
                             "traits": traits})  # fmt: skip
        verdicts.append(confounding.traits(rows, "ct", seed).verdict)
    assert verdicts.count("fail") == 0
    assert verdicts.count("warn") <= 1


def test_age_known_for_one_class_only_is_said_so(plain) -> None:
    plain["age"] = np.where(plain["label"] == "covid19", 50.0, np.nan)
    (check,) = _checks(_audit(plain), "confounding.demographics", "ct")
    assert check.verdict == "warn"
    assert "all of them covid19: whether it is known gives the class away" in check.detail


def test_two_data_sets_that_share_files_are_named(plain) -> None:
    plain["source"] = np.where(np.arange(len(plain)) % 2, "south", "north")
    found = _audit(plain, ("ct0", "ct1", "near"), ("ct0", "ct3", "near"), ("ct2", "ct4", "near"))
    (check,) = _checks(found, "leakage.near_duplicate")
    assert "The data sets north and south share 1 file." in check.detail
