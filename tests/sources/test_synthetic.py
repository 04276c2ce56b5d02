"""The synthetic cohort: its model, its files, its truth."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from statistics import NormalDist

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pulmofuse.errors import SourceError
from pulmofuse.files import sha256_file
from pulmofuse.schema import Label, Modality
from pulmofuse.sources import scan_source
from pulmofuse.sources.latents import DRAWN, draw_patient
from pulmofuse.sources.synthetic import SyntheticConfig, generate, oracle_auc, read_truth

BINARY = (Label.NORMAL, Label.COVID19)
MC_ERROR = 0.004  # four standard errors of an AUC from 100,000 draws


def small(**changes: object) -> SyntheticConfig:
    return SyntheticConfig.model_validate({"patients": 6, "image_size": 64} | changes)


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): sha256_file(path)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All five classes, ten patients."""
    root = tmp_path_factory.mktemp("cohort") / "c"
    generate(root, small(patients=10, classes=DRAWN))
    return root


class TestFiles:
    def test_every_patient_has_all_three(self, cohort: Path) -> None:
        scan = scan_source("synthetic", cohort)
        rows = scan.records
        assert not scan.excluded
        assert (rows.groupby("patient_id")["modality"].nunique() == 3).all()
        assert rows["patient_id"].nunique() == 10
        assert rows["patient_known"].all()
        assert set(rows["label"]) == {label.value for label in DRAWN}
        assert rows["age"].between(18, 95).all()
        assert set(rows["sex"]) <= {"F", "M"}

    def test_images_and_sounds_are_what_the_data_sheet_says(self, cohort: Path) -> None:
        rows = scan_source("synthetic", cohort).records
        for path, modality in zip(rows["path"], rows["modality"], strict=True):
            if modality == "cough":
                with wave.open(str(cohort / path)) as sound:
                    assert sound.getparams()[:3] == (1, 2, 16_000)
                    assert 2.0 <= sound.getnframes() / 16_000 <= 3.0
            else:
                image = cv2.imread(str(cohort / path), cv2.IMREAD_UNCHANGED)
                assert image is not None
                assert (image.shape, image.dtype) == ((64, 64), np.uint8)
                assert image.std() > 30

    def test_truth_names_every_patient_with_its_label(self, cohort: Path) -> None:
        truth = pd.read_csv(cohort / "truth.csv").set_index("patient_id")
        rows = scan_source("synthetic", cohort).records
        for patient, label in zip(rows["patient_id"], rows["label"], strict=True):
            assert truth.loc[patient.removeprefix("synthetic:"), "label"] == label
        assert {c for c in truth if c.startswith("z_ct_")} == {
            f"z_ct_{label.value}" for label in DRAWN if label is not Label.NORMAL
        }

    def test_the_same_seed_gives_the_same_bytes(self, cohort: Path, tmp_path: Path) -> None:
        generate(tmp_path / "again", small(patients=10, classes=DRAWN))
        assert digests(tmp_path / "again") == digests(cohort)

    def test_another_seed_gives_other_bytes(self, tmp_path: Path) -> None:
        one, two = tmp_path / "1", tmp_path / "2"
        generate(one, small(patients=2, seed=1))
        generate(two, small(patients=2, seed=2))
        contents = [set(digests(root).values()) for root in (one, two)]
        assert not contents[0] & contents[1]

    def test_a_larger_cohort_contains_the_smaller(self, tmp_path: Path) -> None:
        generate(tmp_path / "few", small(patients=2))
        generate(tmp_path / "many", small(patients=4))
        few, many = digests(tmp_path / "few"), digests(tmp_path / "many")
        pictures = {path for path in few if "/" in path}
        assert len(pictures) == 6
        assert {path: many[path] for path in pictures} == {path: few[path] for path in pictures}

    def test_an_interrupted_generation_goes_on(self, tmp_path: Path) -> None:
        root = tmp_path / "c"
        generate(root, small(patients=3))
        whole = digests(root)
        for path in list(whole)[:4]:
            if "/" in path:
                (root / path).unlink()
        seen: list[tuple[int, int]] = []
        generate(root, small(patients=3), lambda done, total: seen.append((done, total)))
        assert digests(root) == whole
        assert seen == [(1, 3), (2, 3), (3, 3)]

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(SourceError, match="not empty"):
            generate(tmp_path, small())
        generate(tmp_path / "c", small(patients=2))
        with pytest.raises(SourceError, match="another cohort"):
            generate(tmp_path / "c", small(patients=2, seed=99))

    def test_missing_records(self, tmp_path: Path) -> None:
        scan = generate(tmp_path / "c", small(patients=12, missing=0.6))
        per_patient = scan.records.groupby("patient_id").size()
        assert len(per_patient) == 12
        assert len(scan.records) < 30
        assert not scan.excluded


class TestShortcut:
    @pytest.mark.parametrize("modality", list(Modality))
    def test_a_trivial_reader_of_the_shortcut_finds_the_label(
        self, tmp_path: Path, modality: Modality
    ) -> None:
        config = small(patients=24, classes=BINARY, shortcut=modality, shortcut_agreement=1.0)
        rows = generate(tmp_path / "c", config).records
        own = rows[rows["modality"] == modality.value]
        trait = [self.trivial(tmp_path / "c" / path, modality) for path in own["path"]]
        y = own["label"] == "covid19"
        auc = roc_auc_score(y, trait)
        assert max(auc, 1 - auc) > 0.93

    def test_without_it_the_trivial_reader_finds_nothing_reliable(self, tmp_path: Path) -> None:
        rows = generate(tmp_path / "c", small(patients=24, classes=BINARY)).records
        own = rows[rows["modality"] == "ct"]
        trait = [self.trivial(tmp_path / "c" / path, Modality.CT) for path in own["path"]]
        auc = roc_auc_score(own["label"] == "covid19", trait)
        assert 0.2 < auc < 0.8

    def test_agreement_is_kept(self) -> None:
        config = SyntheticConfig(patients=400, shortcut=Modality.CXR)
        drawn = [draw_patient(config, i) for i in range(400)]
        share = np.mean([p.trait is p.label for p in drawn])
        assert share == pytest.approx(0.9, abs=0.05)

    @staticmethod
    def trivial(path: Path, modality: Modality) -> float:
        """One acquisition trait: darkest grey, a corner's grey, or the highest octave's energy."""
        if modality is Modality.COUGH:
            with wave.open(str(path)) as sound:
                samples = np.frombuffer(sound.readframes(-1), "<i2").astype(float)
            power = np.abs(np.fft.rfft(samples)) ** 2
            return float(np.log(power[len(power) * 3 // 4 :].sum() / power.sum()))
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        return float(image.min() if modality is Modality.CT else image[:5, -5:].mean())


class TestLatents:
    @pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
    def test_correlation_between_modalities_given_the_class(self, rho: float) -> None:
        config = SyntheticConfig(patients=3000, classes=BINARY, correlation=rho)
        drawn = [draw_patient(config, i) for i in range(config.patients)]
        z = np.array(
            [
                [p.latents[m, Label.COVID19] for m in Modality]
                for p in drawn
                if p.label in BINARY[:1]
            ]
        )
        measured = np.corrcoef(z.T)[np.triu_indices(3, 1)]
        assert measured == pytest.approx([rho] * 3, abs=0.08)

    def test_means_and_spread(self) -> None:
        config = SyntheticConfig(patients=3000)
        drawn = [draw_patient(config, i) for i in range(config.patients)]
        for m in Modality:
            sick = [p.latents[m, Label.COVID19] for p in drawn if p.label is Label.COVID19]
            rest = [p.latents[m, Label.COVID19] for p in drawn if p.label is not Label.COVID19]
            assert np.mean(sick) - np.mean(rest) == pytest.approx(config.strength[m], abs=0.12)
            assert np.std(sick) == pytest.approx(1.0, abs=0.08)

    @given(st.integers(min_value=12, max_value=200), st.integers(min_value=2, max_value=5))
    @settings(max_examples=15, deadline=None)
    def test_classes_keep_their_shares_in_small_cohorts(self, patients: int, classes: int) -> None:
        config = SyntheticConfig(patients=patients, classes=DRAWN[:classes])
        labels = [draw_patient(config, i).label for i in range(patients)]
        for label in config.classes:
            assert labels.count(label) == pytest.approx(patients / classes, abs=3)

    def test_prevalence(self) -> None:
        config = SyntheticConfig(
            patients=200,
            classes=BINARY,
            prevalence={Label.NORMAL: 9, Label.COVID19: 1},
        )
        labels = [draw_patient(config, i).label for i in range(200)]
        assert labels.count(Label.COVID19) == pytest.approx(20, abs=2)


class TestOracle:
    @pytest.mark.parametrize("strength", [(1.5, 1.2, 1.0), (0.0, 0.5, 2.0)])
    def test_two_classes_independent(self, strength: tuple[float, ...]) -> None:
        d = dict(zip(Modality, strength, strict=True))
        config = SyntheticConfig(classes=BINARY, strength=d)
        for subset, auc in oracle_auc(config).items():
            squares = sum(d[Modality(m)] ** 2 for m in subset.split("+"))
            wanted = NormalDist().cdf(np.sqrt(squares) / np.sqrt(2))
            assert auc == pytest.approx(wanted, abs=MC_ERROR), subset

    def test_two_equal_correlated_modalities(self) -> None:
        d = dict.fromkeys(Modality, 1.0)
        config = SyntheticConfig(classes=BINARY, strength=d, correlation=0.5)
        # Delta^2 = d^2 * 2 / (1 + rho) for two equally strong, equally correlated readers.
        wanted = NormalDist().cdf(np.sqrt(2 / 1.5) / np.sqrt(2))
        assert oracle_auc(config)["ct+cxr"] == pytest.approx(wanted, abs=MC_ERROR)

    def test_two_diseases_without_normal(self) -> None:
        config = SyntheticConfig(classes=(Label.COVID19, Label.PNEUMONIA))
        # The difference of the two statistics has twice the squared distance.
        assert oracle_auc(config)["ct"] == pytest.approx(NormalDist().cdf(1.5), abs=MC_ERROR)

    @pytest.mark.parametrize("rho", [0.0, 0.5, 0.95])
    def test_more_modalities_are_never_worse(self, rho: float) -> None:
        aucs = oracle_auc(SyntheticConfig(correlation=rho))
        for subset, auc in aucs.items():
            for single in subset.split("+"):
                assert auc >= aucs[single] - 1e-9

    def test_no_strength_means_no_information(self) -> None:
        config = SyntheticConfig(strength=dict.fromkeys(Modality, 0.0))
        assert set(oracle_auc(config).values()) == {0.5}

    def test_it_agrees_with_a_reader_trained_on_the_latents(self) -> None:
        config = SyntheticConfig(patients=6000, correlation=0.4)
        drawn = [draw_patient(config, i) for i in range(config.patients)]
        y = np.array([config.classes.index(p.label) for p in drawn])
        z = np.array([list(p.latents.values()) for p in drawn])
        reader = LogisticRegression(C=100.0).fit(z[:3000], y[:3000])
        auc = roc_auc_score(y[3000:], reader.predict_proba(z[3000:]), multi_class="ovr")
        assert oracle_auc(config)["ct+cxr+cough"] == pytest.approx(auc, abs=0.012)

    def test_a_study_with_fewer_classes_gets_the_truth_of_its_own_target(self) -> None:
        config = SyntheticConfig(classes=DRAWN[:3])
        mapping = {Label.NORMAL: "healthy", Label.COVID19: "covid19"}
        wanted = NormalDist().cdf(1.5 / np.sqrt(2))
        # Normal against COVID-19: the pneumonia latents tell nothing about the two.
        assert oracle_auc(config, mapping, "covid19")["ct"] == pytest.approx(wanted, abs=0.01)

    def test_stored_truth(self, cohort: Path, tmp_path: Path) -> None:
        stored = json.loads((cohort / "truth.json").read_text())
        assert read_truth(cohort) == stored["oracle_auc"]
        assert len(stored["oracle_auc"]) == 7
        assert SyntheticConfig.model_validate(stored["config"]) == small(patients=10, classes=DRAWN)
        pooled = dict.fromkeys(DRAWN, "sick") | {Label.NORMAL: "well"}
        target = read_truth(cohort, pooled, "sick")
        assert target is not None
        assert target["ct"] != stored["oracle_auc"]["ct"]
        assert read_truth(tmp_path) is None

    @pytest.mark.parametrize(
        ("mapping", "positive"),
        [
            ({Label.NORMAL: "well", Label.PNEUMONIA: "sick"}, "covid19"),
            (None, "influenza"),
            ({Label.NORMAL: "well"}, None),
            ({Label.NORMAL: "well"}, "well"),
            (dict.fromkeys(DRAWN, "all"), None),
            ({Label.OTHER_ABNORMAL: "sick"}, None),
        ],
        ids=["positive unmapped", "positive unknown", "one class", "one class, positive", "pooled",
             "none"],
    )  # fmt: skip
    def test_no_truth_for_a_target_that_the_cohort_has_not(
        self, cohort: Path, mapping: dict[Label, str] | None, positive: str | None
    ) -> None:
        assert read_truth(cohort, mapping, positive) is None

    @pytest.mark.parametrize("text", ["[]", "{}", "not json", '{"oracle_auc": 3}'])
    def test_a_damaged_truth_file_is_an_error(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "truth.json").write_text(text)
        with pytest.raises(SourceError):
            read_truth(tmp_path)


class TestPictures:
    """A picture changes with the strength of its sign, and with nothing but the stream else."""

    @pytest.mark.parametrize(
        ("kind", "disease"),
        [
            (kind, disease)
            for kind in ("ct", "cxr", "cough")
            for disease in DRAWN[1:]
            if (kind, disease) != ("cough", Label.TUBERCULOSIS)
        ],
    )
    def test_a_stronger_sign_changes_the_picture_more(self, kind: str, disease: Label) -> None:
        from pulmofuse.sources import phantom

        def draw(strength: float) -> np.ndarray:
            rng = np.random.default_rng(5)
            if kind == "cough":
                made = phantom.draw_cough(rng, {disease: strength}, female=False, coarse=False)
                return np.log1p(np.abs(np.fft.rfft(made.astype(float))))
            function = phantom.draw_ct if kind == "ct" else phantom.draw_cxr
            return function(rng, 96, {disease: strength}, female=False, coarse=False).astype(float)

        faint, half, full = draw(0.01), draw(0.5), draw(1.0)
        assert np.abs(half - faint).mean() > 0
        assert np.abs(full - faint).mean() > np.abs(half - faint).mean()

    def test_a_bout_of_tuberculosis_is_longer(self) -> None:
        from pulmofuse.sources.phantom import draw_cough

        def loud_share(strength: float) -> float:
            signs = {Label.TUBERCULOSIS: strength}
            shares = []
            for seed in range(8):
                rng = np.random.default_rng(seed)
                sound = draw_cough(rng, signs, female=True, coarse=False).astype(float)
                frames = np.sqrt((sound[: sound.size // 400 * 400].reshape(-1, 400) ** 2).mean(1))
                shares.append((frames > 0.1 * frames.max()).mean())
            return float(np.mean(shares))

        assert loud_share(0.0) < loud_share(0.5) < loud_share(1.0)

    def test_the_mean_grey_hardly_tells_the_label(self, tmp_path: Path) -> None:
        rows = generate(tmp_path / "c", small(patients=60, classes=BINARY)).records
        for modality in ("ct", "cxr"):
            own = rows[rows["modality"] == modality]
            grey = [cv2.imread(str(tmp_path / "c" / path), 0).mean() for path in own["path"]]
            assert 0.25 < roc_auc_score(own["label"] == "covid19", grey) < 0.75


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"classes": ("normal",)}, "two classes"),
        ({"classes": ("normal", "normal")}, "two classes"),
        ({"classes": ("normal", "not_covid19")}, "must be among"),
        ({"prevalence": {"normal": 1.0}}, "every class"),
        ({"prevalence": {"normal": 1, "covid19": 0, "pneumonia": 1}}, "above zero"),
        ({"strength": {"ct": 1.0}}, "ct, cxr and cough"),
        ({"correlation": 0.99}, "correlation"),
        ({"image_size": 16}, "image_size"),
        ({"wrong_key": 1}, "wrong_key"),
    ],
)
def test_an_impossible_configuration_is_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        small(**changes)
