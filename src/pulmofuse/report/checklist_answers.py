"""What the files of a study answer of the reporting checklists, one function per question.

Each gives a sentence that points at a figure, a setting or a file, or `OPEN` where the files do not
say. They are called by `checklists`.
"""

from __future__ import annotations

from pulmofuse.report.data_tables import left_out
from pulmofuse.report.doubts import split_text
from pulmofuse.report.names import class_title, method_title, subset_in_words
from pulmofuse.report.results import headline
from pulmofuse.report.study_files import StudyFiles
from pulmofuse.schema import Modality, Split

#: What stands where only a person knows.
OPEN = ""


def classes(study: StudyFiles) -> str:
    """The outcome and its classes."""
    names = ", ".join(class_title(name) for name in study.classes)
    positive = f"; positive: {class_title(study.positive)}" if study.positive else ""
    where = "from the labels of the data sets by the mapping in config.resolved.yaml"
    return f"Classes {names}{positive}, {where}."


def _modalities(study: StudyFiles) -> list[str]:
    present = set(study.predictions["subset"].astype(str))
    return [m.value for m in Modality if m.value in present]


def question(study: StudyFiles) -> str:
    """The study's question."""
    return study.about.question or OPEN


def sources(study: StudyFiles) -> str:
    """Where the records come from."""
    if study.manifest is None:
        return OPEN
    groups = study.manifest.groupby(["source", "modality"], sort=True)
    parts = [f"{s} ({m}, {len(rows):,} files)" for (s, m), rows in groups]
    return f"Public or given data sets, retrospectively: {', '.join(parts)}."


def dates(study: StudyFiles) -> str:
    """Span of the recordings."""
    if study.manifest is None or "date" not in study.manifest:
        return OPEN
    dates = study.manifest["date"].dropna()
    if dates.empty:
        return OPEN
    return (
        f"Recordings of {dates.min()} to {dates.max()}, where the data say ({len(dates):,} files)."
    )


def eligibility(study: StudyFiles) -> str:
    """What was taken in and left out."""
    return (
        "Every readable file of the named data sets with a label of the mapping;"
        f" {left_out(study).total} left out, each with its reason in excluded.csv."
        if study.excluded is not None
        else OPEN
    )


def preparation(study: StudyFiles) -> str:
    """Preprocessing of each modality."""
    if study.config is None:
        return OPEN
    sizes = [
        f"{m.value}: {study.config.of(m).preprocessing.model_dump(mode='json')}"
        for m in Modality
        if m.value in _modalities(study)
    ]
    return f"One path for training, evaluation and use, stored in the bundle. {'; '.join(sizes)}."


def predictors(study: StudyFiles) -> str:
    """What the models get to see."""
    kinds = subset_in_words("+".join(_modalities(study)))
    return f"The pixels and samples of {kinds}; no clinical variable enters a model."


def sample_size(study: StudyFiles) -> str:
    """What the audit says of the study's size."""
    checks = study.audit.checks if study.audit else ()
    found = [c.detail for c in checks if c.id.startswith(("power", "support")) and c.detail]
    return " ".join(found) or OPEN


def missing(study: StudyFiles) -> str:  # noqa: ARG001
    """How what is missing is handled."""
    return (
        "A modality that a patient lacks is left out of the fusion, never filled in; files that"
        " cannot be read are listed in excluded.csv."
    )


def partition(study: StudyFiles) -> str:
    """How patients were dealt."""
    return split_text(study)


def model(study: StudyFiles) -> str:
    """Architectures and ways to fuse."""
    if study.config is None:
        return OPEN
    parts = []
    for m in Modality:
        if m.value not in _modalities(study):
            continue
        chosen = study.config.of(m).model
        name = getattr(chosen, "architecture", None) or getattr(chosen, "backbone", "")
        parts.append(f"{m.value}: {name}, started from {chosen.weights}")
    methods = [method_title(m) for m in _fusions(study)]
    joined = f"; joined by {', '.join(methods)}" if methods else ""
    return f"{'; '.join(parts)}{joined}. Every setting is in config.resolved.yaml."


def _fusions(study: StudyFiles) -> list[str]:
    rows = study.predictions
    fused = rows.loc[rows["subset"].astype(str).str.contains("+", regex=False), "method"]
    return list(dict.fromkeys(fused.astype(str)))


def measures(study: StudyFiles) -> str:
    """Metrics of the study."""
    names = ", ".join(dict.fromkeys(study.metrics["metric"].astype(str)))
    return (
        f"{names}, with intervals by patient; curves, confusion matrices, calibration."
        if names
        else OPEN
    )


def heterogeneity(study: StudyFiles) -> str:
    """Results by site."""
    sites = study.metrics["site"].fillna("").astype(str)
    named = sorted(set(sites[sites != ""]))
    return f"Results by site ({', '.join(named)}) in this report." if named else OPEN


def imbalance(study: StudyFiles) -> str:
    """Sampling and weights."""
    if study.config is None:
        return OPEN
    parts = []
    for m in Modality:
        if m.value in _modalities(study):
            training = study.config.of(m).training
            weights = "weighted loss" if training.class_weights else "no weights"
            parts.append(f"{m.value}: {training.sampling} sampling, {weights}")
    return f"{'; '.join(parts)}. Probabilities are calibrated afterwards on validation data."


def fairness(study: StudyFiles) -> str:
    """Age and sex as predictors."""
    checks = study.audit.checks if study.audit else ()
    found = [c.detail for c in checks if c.id.startswith("confounding.demographics") and c.detail]
    return (
        f"Measured for age and sex as predictors of the label only: {' '.join(found)}"
        if found
        else OPEN
    )


def output(study: StudyFiles) -> str:
    """What a model gives."""
    point = study.config.evaluation.threshold if study.config else "argmax"
    return f"A calibrated probability for each class; operating point by validation ({point})."


def versus(study: StudyFiles) -> str:
    """Test against training sources."""
    if study.manifest is None:
        return OPEN
    split = study.manifest["split"]
    train = set(study.manifest.loc[split != Split.TEST.value, "source"])
    test = set(study.manifest.loc[split == Split.TEST.value, "source"])
    outside = sorted(test - train)
    if outside:
        return f"The test holds sources that training never saw: {', '.join(outside)}."
    return "The test patients come from the sources of training; see the audit and the controls."


def flow(study: StudyFiles) -> str:
    """Patients by part."""
    if study.manifest is None:
        return OPEN
    groups = study.manifest.groupby(["modality", "split"])
    parts = [f"{m} {s} {rows['patient_id'].nunique():,}" for (m, s), rows in groups]
    return f"Patients: {', '.join(parts)}; files left out are in excluded.csv."


def demographics(study: StudyFiles) -> str:
    """Age and sex of the patients."""
    if study.manifest is None:
        return OPEN
    people = study.manifest.drop_duplicates("patient_id")
    known = people["age"].notna().sum(), people["sex"].notna().sum()
    if not any(known):
        return OPEN
    age = people["age"].dropna()
    years = (
        f"median age {age.median():.0f} years ({known[0]:,} known)" if known[0] else "age not known"
    )
    sex = people["sex"].value_counts()
    sexes = ", ".join(f"{name} {n:,}" for name, n in sex.items()) or "sex not known"
    return f"{years}; {sexes}, of {len(people):,} patients."


def performance(study: StudyFiles) -> str:
    """Headline figures."""
    head = headline(study)
    parts = [f"{s.title} AUC {s.text}" for s in head.scores]
    return f"{'; '.join(parts)}. All figures: comparison.csv, metrics.json." if parts else OPEN


def specification(study: StudyFiles) -> str:
    """Where the whole model is."""
    if not (study.folder / "bundle" / "bundle.json").is_file():
        return OPEN
    return "The folder bundle/: weights, preprocessing, classes, priors, calibration, thresholds."


def software(study: StudyFiles) -> str:
    """Licence and versions."""
    versions = ", ".join(f"{k} {v}" for k, v in study.about.versions.items())
    return f"Pulmofuse under Apache-2.0; {versions}." if versions else "Pulmofuse under Apache-2.0."


def start(study: StudyFiles) -> str:
    """Starting weights and seed."""
    if study.config is None:
        return OPEN
    chosen = [f"{m}: {study.config.of(Modality(m)).model.weights}" for m in _modalities(study)]
    return f"Starting weights: {', '.join(chosen)}; seed {study.about.seed}."


def training(study: StudyFiles) -> str:
    """Epochs, batch, rate."""
    if study.config is None:
        return OPEN
    parts = []
    for m in _modalities(study):
        t = study.config.of(Modality(m)).training
        parts.append(f"{m}: {t.epochs} epochs, batch {t.batch_size}, rate {t.lr_backbone:g}")
    return f"{'; '.join(parts)}; augmentation and the rest in config.resolved.yaml."


def selection(study: StudyFiles) -> str:
    """On what choices were made."""
    opened = study.about.test_opened
    times = "" if opened is None else f" The test set was opened {opened} time(s) by this folder."
    return f"Epoch, calibration, threshold and fusion weights come from validation patients.{times}"


def members(study: StudyFiles) -> str:
    """Size of ensembles."""
    if study.config is None:
        return OPEN
    sizes = [f"{m} {study.config.of(Modality(m)).training.members}" for m in _modalities(study)]
    return f"Networks per modality: {', '.join(sizes)}."


def uncertainty(study: StudyFiles) -> str:
    """Intervals and tests."""
    if study.config is None:
        return OPEN
    e = study.config.evaluation
    return (
        f"{100 * e.confidence:g} % intervals from {e.bootstrap:,} bootstrap resamples of patients;"
        " paired comparisons in comparisons.csv, corrected by Holm."
    )


def robustness(study: StudyFiles) -> str:
    """Controls."""
    if study.controls is None:
        return OPEN
    kinds = ", ".join(dict.fromkeys(study.controls["control"].astype(str)))
    return f"Negative controls: {kinds} (controls.csv); the audit's checks of shortcuts."


def explained(study: StudyFiles) -> str:
    """Explanations."""
    return (
        f"Class activation maps of {len(study.explanations)} test records."
        if study.explanations
        else OPEN
    )


def limits(study: StudyFiles) -> str:  # noqa: ARG001
    """Where the limits stand."""
    return 'The section "What this does not say" is written from the figures.'


def failures(study: StudyFiles) -> str:
    """Where wrong calls are found."""
    wrong = study.test[(study.test["y_true"] != study.test["y_pred"])]
    if wrong.empty:
        return OPEN
    return (
        "Each wrong call is a row of predictions.parquet; confusion matrices are in this report."
        " Why they fail, a person must look."
    )


def code(study: StudyFiles) -> str:  # noqa: ARG001
    """Where the software is."""
    return "The software is open (Apache-2.0) and makes this study again from config.resolved.yaml."


def disjoint(study: StudyFiles) -> str:
    """Level at which parts are apart."""
    if study.manifest is None:
        return OPEN
    unknown = int((~study.manifest["patient_known"].astype(bool)).sum())
    if unknown:
        return (
            f"By patient where the data name patients; {unknown:,} files of unknown patients count"
            " as one patient each."
        )
    return "By patient: no patient stands in two parts."


def inputs(study: StudyFiles) -> str:  # noqa: ARG001
    """How bad input is handled."""
    return (
        "Unreadable or odd input is refused with the reason and a remedy; an absent modality is"
        " left out."
    )
