"""TRIPOD+AI and CLAIM as tables: what the files answer is filled in, the rest is a person's.

TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378, 27 items for studies that develop or evaluate a
prediction model. CLAIM: Tejani et al. 2024, Radiology: AI 6(4):e240300, 44 items for AI in medical
imaging. The items are named in our words; the published wording is what a journal will ask for.

A machine answers only what it can point to: a figure, a setting, a file. Who the patients were, who
judged them and who paid is never guessed, and stays open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pulmofuse.report import checklist_answers as say
from pulmofuse.report.checklist_answers import OPEN
from pulmofuse.report.study_files import StudyFiles

Answer = Callable[[StudyFiles], str]


@dataclass(frozen=True)
class Item:
    """One item of a checklist; `answer` is null where a person must write it."""

    number: str
    topic: str
    asks: str
    answer: Answer | None = None
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """An item as shown: `text` is empty where it is open, and `hint` says what belongs there."""

    number: str
    topic: str
    asks: str
    text: str
    hint: str

    @property
    def open(self) -> bool:
        """Whether a person has to fill it."""
        return self.text == OPEN


def tripod_ai(study: StudyFiles) -> list[Row]:
    """The 27 items of TRIPOD+AI (with their parts), in order."""
    return _rows(TRIPOD_AI, study)


def claim(study: StudyFiles) -> list[Row]:
    """The 44 items of CLAIM 2024, in order."""
    return _rows(CLAIM, study)


def _rows(items: tuple[Item, ...], study: StudyFiles) -> list[Row]:
    return [
        Row(i.number, i.topic, i.asks, i.answer(study) if i.answer else OPEN, i.hint) for i in items
    ]


TRIPOD_AI: tuple[Item, ...] = (
    Item("1", "Title", "name the study as one of a prediction model, its population and outcome"),
    Item("2", "Abstract", "summarise by TRIPOD+AI for abstracts"),
    Item("3a", "Background", "the clinical context and the reason for the model"),
    Item("3b", "Background", "for whom and for what the model is meant"),
    Item("3c", "Background", "known inequalities of health between groups"),
    Item("4", "Objectives", "the question; development or evaluation", say.question),
    Item("5a", "Data", "where the data come from, and why they are fit", say.sources),
    Item("5b", "Data", "when they were collected", say.dates, "dates of recruitment and follow-up"),
    Item("6a", "Participants", "setting, number and place of the centres"),
    Item("6b", "Participants", "who was eligible", say.eligibility),
    Item("6c", "Participants", "treatments that were received, and how they were handled"),
    Item("7", "Data preparation", "cleaning, harmonising, quality control", say.preparation),
    Item("8a", "Outcome", "what is predicted, how and when it was judged", say.classes,
         "add how each data set established its labels (PCR, radiologist, report)"),
    Item("8b", "Outcome", "qualification of those who judged it"),
    Item("8c", "Outcome", "whether they were blinded to the predictors"),
    Item("9a", "Predictors", "which, and how they were chosen", say.predictors),
    Item("9b", "Predictors", "how they were measured (devices, protocols)"),
    Item("9c", "Predictors", "who judged them, if a person did"),
    Item("10", "Sample size", "how it was arrived at, and whether it suffices", say.sample_size),
    Item("11", "Missing data", "how they were handled", say.missing),
    Item("12a", "Analysis", "how data were divided for development and evaluation", say.partition),
    Item("12b", "Analysis", "how predictors were transformed", say.preparation),
    Item("12c", "Analysis", "kind of model, and how it was built", say.model),
    Item("12d", "Analysis", "differences between clusters (sites)", say.heterogeneity),
    Item("12e", "Analysis", "measures of performance", say.measures),
    Item("12f", "Analysis", "updating", lambda _: "Nothing was updated on test patients."),
    Item("12g", "Analysis", "how predictions are computed", say.specification),
    Item("13", "Class imbalance", "methods, and recalibration after them", say.imbalance),
    Item("14", "Fairness", "how it was looked at", say.fairness, "results by age, sex, ethnicity"),
    Item("15", "Output", "what the model gives, and thresholds", say.output),
    Item("16", "Training and evaluation", "how the two differ", say.versus),
    Item("17", "Ethics", "approval and consent"),
    Item("18a", "Open science", "funding"),
    Item("18b", "Open science", "interests of the authors"),
    Item("18c", "Open science", "protocol"),
    Item("18d", "Open science", "registration"),
    Item("18e", "Open science", "how to get the data", say.sources, "add addresses and licences"),
    Item("18f", "Open science", "how to get the code", say.code),
    Item("19", "Patients and public", "how they took part in the research"),
    Item("20a", "Participants", "their flow, with numbers by outcome", say.flow),
    Item("20b", "Participants", "their characteristics", say.demographics),
    Item("20c", "Participants", "how training and test differ", say.versus),
    Item("21", "Development", "participants and outcomes in each analysis", say.flow),
    Item("22", "Specification", "the full model, so that others can use it", say.specification),
    Item("23a", "Performance", "estimates with intervals, by subgroup too", say.performance),
    Item("23b", "Performance", "differences between clusters", say.heterogeneity),
    Item("24", "Updating", "its results", lambda _: "No model was updated after its test."),
    Item("25", "Interpretation", "what it means, beside the objectives and other studies"),
    Item("26", "Limitations", "of the study", say.limits),
    Item("27a", "Usability", "how input of poor quality is handled", say.inputs),
    Item("27b", "Usability", "what users must do, and with what skill"),
    Item("27c", "Usability", "next steps of research"),
)  # fmt: skip

CLAIM: tuple[Item, ...] = (
    Item("1", "Title", "say that AI is used, and which kind"),
    Item("2", "Abstract", "design, methods, results, conclusions"),
    Item("3", "Introduction", "background, and the role of the AI"),
    Item("4", "Introduction", "aims and hypotheses", say.question),
    Item("5", "Design", "prospective or not", lambda _: "Retrospective, on existing data."),
    Item("6", "Design", "goal of the study", say.question),
    Item("7", "Data", "sources", say.sources),
    Item("8", "Data", "who and what was included", say.eligibility),
    Item("9", "Data", "preprocessing", say.preparation),
    Item("10", "Data", "selection of parts of the data", say.eligibility),
    Item("11", "Data", "de-identification"),
    Item("12", "Data", "missing data", say.missing),
    Item("13", "Data", "protocol of acquisition"),
    Item("14", "Reference standard", "its definition", say.classes),
    Item("15", "Reference standard", "why it was chosen"),
    Item("16", "Reference standard", "who annotated"),
    Item("17", "Reference standard", "how test data were annotated"),
    Item("18", "Reference standard", "agreement between and within annotators"),
    Item("19", "Partitions", "how data were divided", say.partition),
    Item("20", "Partitions", "at which level they are apart", say.disjoint),
    Item("21", "Testing", "intended sample size", say.sample_size),
    Item("22", "Model", "architecture, inputs, outputs", say.model),
    Item("23", "Model", "software", say.software),
    Item("24", "Model", "how parameters were initialised", say.start),
    Item("25", "Training", "augmentation, hyperparameters", say.training),
    Item("26", "Training", "how the final model was chosen", say.selection),
    Item("27", "Training", "ensembles", say.members),
    Item("28", "Evaluation", "measures", say.measures),
    Item("29", "Evaluation", "significance and uncertainty", say.uncertainty),
    Item("30", "Evaluation", "robustness", say.robustness),
    Item("31", "Evaluation", "explanations", say.explained),
    Item("32", "Evaluation", "on internal data", say.performance),
    Item("33", "Evaluation", "on external data", say.versus),
    Item("34", "Evaluation", "registration of a clinical trial"),
    Item("35", "Results", "flow of participants", say.flow),
    Item("36", "Results", "demographics", say.demographics),
    Item("37", "Results", "performance on each part", say.performance),
    Item("38", "Results", "estimates of accuracy with intervals", say.performance),
    Item("39", "Results", "analysis of failures", say.failures),
    Item("40", "Discussion", "limitations", say.limits),
    Item("41", "Discussion", "what it means for practice"),
    Item("42", "Other", "where the protocol is"),
    Item("43", "Other", "where the software is", say.code),
    Item("44", "Other", "funding"),
)  # fmt: skip
