"""The models of a bundle, each made ready for its runtime when it is first asked for."""

from __future__ import annotations

import threading

from pulmofuse.inference.bundle import Bundle
from pulmofuse.inference.examples import drawn_inputs
from pulmofuse.inference.runtime import find_runtime, run_by
from pulmofuse.models import Classifier, frozen
from pulmofuse.schema import Modality


class RunModels:
    """Modality to a model that is run by a runtime; may be asked from several threads.

    Args:
        bundle: the trained models.
        runtime: a key of `RUNTIMES`, or "auto"; see `run_by`.

    Raises:
        RuntimeUnavailable: no such runtime, or it is not installed; what a model cannot be handed
            over to says so when it is asked for.
    """

    def __init__(self, bundle: Bundle, runtime: str) -> None:
        if runtime != "auto":
            find_runtime(runtime)
        self._bundle, self._runtime = bundle, runtime
        self._ready: dict[Modality, Classifier] = {}
        self._one_at_a_time = threading.Lock()

    def __getitem__(self, modality: Modality) -> Classifier:
        with self._one_at_a_time:
            if modality not in self._ready:
                part = self._bundle.unimodal[modality]
                self._ready[modality] = (
                    frozen(part.model)
                    if self._runtime == "torch"
                    else run_by(self._runtime, part.model, drawn_inputs(part))
                )
            return self._ready[modality]
