"""The routes: what they answer, to whom, and what they refuse."""

from __future__ import annotations

import io
import json
import sqlite3
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pulmofuse import __version__
from pulmofuse.inference import Predictor
from pulmofuse.service import Trail, answering
from pulmofuse.service.batching import MicroBatcher
from pulmofuse.service.schemas import ANSWER_EXAMPLE, Answer
from tests.service import material
from tests.service.conftest import Serve, Served

KEYED = [
    ("POST", "/v1/predict"),
    ("GET", "/v1/model"),
    ("GET", "/v1/predictions/" + 32 * "0"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
]


def problem(response: Any, status: int, kind: str) -> dict[str, Any]:
    """The body of an error, checked for what every error must have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"] == f"urn:pulmofuse:problem:{kind}"
    assert body["status"] == status
    assert body["detail"]
    assert body["remedy"]
    assert "Traceback" not in response.text
    return body


class TestPredict:
    @pytest.mark.parametrize(
        "given", [["ct"], ["cxr"], ["cough"], ["ct", "cough"], ["ct", "cxr", "cough"]]
    )
    def test_answers_what_the_predictor_answers(
        self, served: Served, predictor: Predictor, given: list[str]
    ) -> None:
        files = {name: getattr(material, name)(1) for name in given}
        expected = predictor.predict(**files).to_dict()

        answer = served.predict(files).json()

        assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
        for key in ("subset", "method", "predicted", "threshold", "findings", "attention"):
            assert answer[key] == expected[key]
        assert answer["warnings"] == list(expected["warnings"])
        assert answer["research_use_only"] is True
        assert answer["model"] == {
            "name": "tiny", "bundle_sha256": "f" * 64, "version": __version__,
        }  # fmt: skip
        Answer.model_validate(answer)
        assert set(answer) == set(Answer.model_fields) == set(ANSWER_EXAMPLE)

    def test_method_is_used(self, served: Served, predictor: Predictor) -> None:
        files = {"ct": material.ct(), "cxr": material.cxr()}
        expected = predictor.predict(**files, method="mean").probabilities

        answer = served.predict(files, data={"method": "mean"}).json()

        assert answer["method"] == "mean"
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-5)

    def test_a_modality_left_out_is_not_used(self, served: Served, predictor: Predictor) -> None:
        files = {"ct": b"not even an image", "cxr": material.cxr()}
        expected = predictor.predict(cxr=files["cxr"]).probabilities

        answer = served.predict(files, data={"leave_out": "ct"}).json()

        assert (answer["subset"], answer["left_out"]) == ("cxr", "ct")
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-5)

    def test_prevalence_changes_the_prior_and_not_the_decision(
        self, served: Served, predictor: Predictor
    ) -> None:
        usual = served.predict({"cxr": material.cxr()}).json()
        rare = served.predict({"cxr": material.cxr()}, data={"prevalence": "0.1"}).json()

        # Odds times the ratio of the odds of the two priors: .1 / .9 against .5 / .5.
        p = usual["probabilities"]["covid19"]
        odds = p / (1 - p) / 9
        assert rare["probabilities"]["covid19"] == pytest.approx(odds / (1 + odds), abs=1e-6)
        assert rare["predicted"] == usual["predicted"]
        assert rare["threshold"] == pytest.approx(0.4 / (0.4 + 0.6 * 9))
        assert rare["prevalence"] == 0.1

    def test_remarks_name_the_modality(self, served: Served) -> None:
        noise = np.random.default_rng(0).normal(0, 3000, 32_000).astype(np.int16)
        answer = served.predict({"cough": material.wav(noise)}).json()

        assert {remark["modality"] for remark in answer["remarks"]} == {"cough"}
        assert all(set(r) == {"modality", "code", "text", "remedy"} for r in answer["remarks"])

    def test_explanations_come_from_the_hook_and_are_not_stored(self, serve: Serve) -> None:
        def explain(model: Predictor, files: Any, answer: Any) -> Any:
            return {
                m: [len(prepared.instances), answer["predicted"]] for m, prepared in files.items()
            }

        served = serve(explain=explain)
        data = material.cxr()
        again = {"Idempotency-Key": "one"}
        answers = [
            served.predict({"cxr": data}, data={"explain": "true"}, headers=again).json()
            for _ in range(2)
        ]

        assert answers[0]["explanations"] == {"cxr": [1, answers[0]["predicted"]]}
        assert answers[1] == answers[0]
        stored = served.client.get(f"/v1/predictions/{answers[0]['id']}", headers=served.auth)
        assert stored.json()["explanations"] is None

    def test_a_failed_explanation_does_not_take_the_answer_away(
        self, serve: Serve, caplog: pytest.LogCaptureFixture
    ) -> None:
        def explain(*_: object) -> None:
            raise RuntimeError("patient Miller")

        served = serve(explain=explain)
        response = served.predict({"cxr": material.cxr()}, data={"explain": "true"})

        answer = self.unexplained(response, "could not be explained")
        assert served.client.get(f"/v1/predictions/{answer['id']}", headers=served.auth).is_success
        lines = [r.fields for r in caplog.records if r.message == "explanation failed"]
        assert [line["error"] for line in lines] == ["RuntimeError"]
        assert "Miller" not in response.text + json.dumps(lines)

    def test_a_late_explanation_does_not_keep_the_answer_back(self, serve: Serve) -> None:
        free = threading.Event()
        served = serve({"predict_timeout_s": 2.0}, explain=lambda *_: free.wait(30))
        once = {"Idempotency-Key": "once"}
        asked = {"files": {"cxr": material.cxr()}, "data": {"explain": "true"}, "headers": once}
        late = self.unexplained(served.predict(**asked), "was not explained in time")
        free.set()
        again = served.predict(**asked).json()
        assert (again["id"], again["explanations"]) == (late["id"], True)

    def test_another_model_does_not_explain_an_answer_given_again(self, serve: Serve) -> None:
        once = {"Idempotency-Key": "once"}
        asked = {"files": {"cxr": material.cxr()}, "data": {"explain": "true"}, "headers": once}
        first, second = (
            serve(explain=lambda *_: "a map", bundle_sha256=sha, name=name)
            for sha, name in (("a" * 64, "one"), ("b" * 64, "two"))
        )
        answer = first.predict(**asked).json()
        response = replace(second, key=first.key).predict(**asked)
        again = self.unexplained(response, "no longer here to explain it")
        assert (answer["explanations"], again["id"]) == ("a map", answer["id"])

    @staticmethod
    def unexplained(response: Any, why: str) -> dict[str, Any]:
        """The body of an answer that says why it has no explanations."""
        answer: dict[str, Any] = response.json()
        Answer.model_validate(answer)
        assert (response.status_code, answer["explanations"]) == (200, None)
        (remark,) = [r for r in answer["remarks"] if r["code"] == "not_explained"]
        assert (remark["modality"], why in remark["text"]) == ("cxr", True)
        return answer

    @pytest.mark.parametrize(
        ("files", "data", "words"),
        [
            ({"cxr": b"x"}, {"method": "magic"}, "method"),
            ({"cxr": b"x"}, {"method": "é" * 10}, "method"),
            ({"cxr": b"x"}, {"leave_out": "cxr"}, "nothing is left"),
            ({"cxr": b"x"}, {"leave_out": "mri"}, "leave_out"),
            ({"cxr": b"x"}, {"prevalence": "nan"}, "prevalence"),
            ({"cxr": b"x"}, {"prevalence": "1"}, "prevalence"),
            ({"cxr": b"x"}, {"explain": "maybe"}, "explain"),
            ({"cxr": b"x"}, {"explain": "true"}, "explanations"),
            ({"mri": b"x"}, {}, "field"),
            ({}, {"method": "mean"}, ""),
        ],
    )
    def test_impossible_requests_are_refused(
        self, served: Served, files: dict[str, bytes], data: dict[str, str], words: str
    ) -> None:
        response = served.predict(files, data=data)
        if not files:
            problem(response, 415, "unsupported-media-type")
        else:
            assert words in problem(response, 422, "invalid-request")["detail"].lower()

    def test_a_modality_sent_twice_is_refused(self, served: Served) -> None:
        both = [("cxr", material.cxr(0)), ("cxr", material.cxr(1))]
        response = served.client.post("/v1/predict", files=both, headers=served.auth)

        assert problem(response, 422, "invalid-request")["modality"] == "cxr"

    @pytest.mark.parametrize(
        ("modality", "data", "status", "kind"),
        [
            ("cxr", b"", 422, "unreadable-file"),
            ("cxr", material.cxr()[:400], 422, "unreadable-file"),
            ("ct", b"%PDF-1.7 a letter", 415, "unsupported-media-type"),
            ("cxr", material.cough(), 415, "unsupported-media-type"),
            ("cough", material.cxr(), 415, "unsupported-media-type"),
            ("cough", material.wav(np.zeros(16_000)), 422, "unreadable-file"),
        ],
    )
    def test_unreadable_files_are_refused_with_a_remedy(
        self, served: Served, modality: str, data: bytes, status: int, kind: str
    ) -> None:
        # A patient's name as file name must come back nowhere.
        response = served.predict({modality: ("Miller_John.png", io.BytesIO(data))})

        body = problem(response, status, kind)
        assert body["modality"] == modality
        assert "Miller" not in response.text

    def test_the_first_bad_file_is_named_though_others_are_good(self, served: Served) -> None:
        response = served.predict({"ct": material.ct(), "cxr": b"bad", "cough": b"worse"})

        assert problem(response, 415, "unsupported-media-type")["modality"] == "cxr"

    def test_what_nobody_foresaw_is_500_with_an_id_and_one_log_line(
        self, serve: Serve, predictor: Predictor, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken:
            bundle, check, methods = predictor.bundle, predictor.check, predictor.methods

            def prepare(self, *_: object) -> None:
                raise RuntimeError("patient Miller")

        served = serve(predictor=Broken())
        with caplog.at_level("INFO", "pulmofuse.service"):
            response = served.predict({"cxr": material.cxr()})

        body = problem(response, 500, "unexpected-error")
        lines = [r.fields for r in caplog.records if r.message == "unexpected error"]
        assert [line["id"] for line in lines] == [body["id"]]
        assert lines[0]["error"] == "RuntimeError"
        assert "Miller" not in response.text + json.dumps(lines)
        assert served.client.get("/healthz").status_code == 200


class TestKeys:
    @pytest.mark.parametrize(("method", "path"), KEYED)
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"X-API-Key": ""},
            {"X-API-Key": "pf_000000000000_" + 43 * "A"},
            {"Authorization": "Bearer nonsense"},
            {"Authorization": "Basic dTpw"},
            {"X-API-Key": "' OR 1=1 --"},
        ],
    )
    def test_no_route_without_a_key(
        self, served: Served, method: str, path: str, headers: dict[str, str]
    ) -> None:
        response = served.client.request(method, path, headers=headers)

        problem(response, 401, "key-needed")
        assert response.headers["www-authenticate"] == "Bearer"

    def test_every_route_that_needs_no_key_is_named_here(self, served: Served) -> None:
        """A new route without a key shall be somebody's decision."""
        from pulmofuse.service.app import _STATIC

        page = {f"/{p.relative_to(_STATIC).as_posix()}" for p in _STATIC.rglob("*")}
        paths = {route.path for route in served.client.app.routes}
        open_paths = {
            path
            for path in paths
            if served.client.request(
                "POST" if path == "/v1/predict" else "GET",
                path.replace("{prediction_id}", 32 * "0"),
            ).status_code
            != 401
        }
        assert open_paths - page == {"/", "/healthz", "/readyz"}

    @pytest.mark.parametrize("form", ["Bearer", "X-API-Key"])
    def test_a_key_opens_by_either_header(self, served: Served, form: str) -> None:
        header = {"Authorization": f"Bearer {served.key}"} if form == "Bearer" else served.auth
        assert served.client.get("/v1/model", headers=header).status_code == 200

    def test_a_key_with_one_letter_changed_is_refused(self, served: Served) -> None:
        changed = served.key[:-1] + ("A" if served.key[-1] != "A" else "B")
        response = served.client.get("/v1/model", headers={"X-API-Key": changed})
        problem(response, 401, "key-needed")

    def test_a_revoked_key_is_refused_at_once(self, served: Served) -> None:
        served.trail.revoke_key("tester")
        problem(served.client.get("/v1/model", headers=served.auth), 401, "key-needed")

    def test_the_database_holds_no_key(self, served: Served) -> None:
        with sqlite3.connect(served.database) as connection:
            dump = "\n".join(connection.iterdump())
        assert served.key not in dump
        assert served.key.split("_", 2)[2] not in dump

    def test_another_key_does_not_see_the_prediction(self, served: Served) -> None:
        answer = served.predict({"cxr": material.cxr()}).json()
        path = f"/v1/predictions/{answer['id']}"
        other = {"X-API-Key": served.trail.add_key("other")}

        assert served.client.get(path, headers=served.auth).json() == answer
        problem(served.client.get(path, headers=other), 404, "not-found")

    def test_each_key_has_a_rate(self, serve: Serve) -> None:
        now = [0.0]
        served = serve({"rate_per_minute": 60, "burst": 3}, clock=lambda: now[0])
        other = {"X-API-Key": served.trail.add_key("other")}

        def ask(headers: dict[str, str]) -> Any:
            return served.client.get("/v1/model", headers=headers)

        assert [ask(served.auth).status_code for _ in range(3)] == [200, 200, 200]
        refused = ask(served.auth)
        problem(refused, 429, "rate-limit")
        assert refused.headers["retry-after"] == "1"
        assert ask(other).status_code == 200
        now[0] += float(refused.headers["retry-after"])
        assert [ask(served.auth).status_code for _ in range(2)] == [200, 429]


class TestOtherRoutes:
    def test_model_says_what_it_can_do(self, served: Served) -> None:
        body = served.client.get("/v1/model", headers=served.auth).json()

        assert body["study"] == "tiny"
        assert body["classes"] == ["normal", "covid19"]
        assert body["modalities"] == ["ct", "cxr", "cough"]
        assert body["methods"][0] == body["default_method"] == "log_odds"
        assert set(body["methods"]) == {"log_odds", "mean", "weighted_mean", "product", "vote"}
        assert body["warnings"] == ["the channel tells the class"]
        assert body["limits"]["max_file_bytes"] == 64 << 20

    def test_a_lost_database_is_not_ready_and_answers_nothing(self, served: Served) -> None:
        assert served.client.get("/readyz").json() == {"status": "ready"}

        def lost(*_: object) -> None:
            from sqlalchemy.exc import OperationalError

            raise OperationalError("", {}, Exception("disk full"))

        object.__setattr__(served.trail, "ping", lost)
        object.__setattr__(served.trail, "record", lost)
        problem(served.client.get("/readyz"), 503, "database-unavailable")
        refused = served.predict({"cxr": material.cxr()})
        problem(refused, 503, "database-unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert served.client.get("/healthz").json() == {"status": "alive"}

    def test_a_silent_database_is_given_up(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(answering, "_DATABASE_S", 0.2)
        speaks = threading.Event()
        for name in ("ping", "authenticate"):
            monkeypatch.setattr(Trail, name, lambda *_: speaks.wait(30))
        problem(served.client.get("/readyz"), 503, "database-unavailable")
        problem(served.predict({"cxr": material.cxr()}), 503, "database-unavailable")
        speaks.set()

    def test_networks_that_have_stopped_are_not_ready(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(MicroBatcher, "runs", False)
        problem(served.client.get("/readyz"), 503, "not-running")

    def test_metrics_count(self, served: Served) -> None:
        served.predict({"cxr": material.cxr()})
        served.predict({"cxr": b""})
        text = served.client.get("/metrics", headers=served.auth).text

        assert 'pulmofuse_predictions_total{subset="cxr"} 1.0' in text
        assert 'pulmofuse_refusals_total{problem="unreadable-file"} 1.0' in text
        assert 'route="/v1/predict",status="200"} 1.0' in text
        assert "pulmofuse_predictions_in_flight 0.0" in text
        assert "pulmofuse_buffered_bytes 0.0" in text

    @pytest.mark.parametrize(
        ("method", "path", "status", "kind"),
        [
            ("GET", "/nothing", 404, "not-found"),
            ("GET", "/../pyproject.toml", 404, "not-found"),
            ("GET", "/docs", 404, "not-found"),
            ("GET", "/v1/predict", 405, "method-not-allowed"),
            ("DELETE", "/healthz", 405, "method-not-allowed"),
            ("GET", "/v1/predictions/1", 422, "invalid-request"),
        ],
    )
    def test_framework_errors_are_problems_too(
        self, served: Served, method: str, path: str, status: int, kind: str
    ) -> None:
        problem(served.client.request(method, path, headers=served.auth), status, kind)

    def test_openapi_documents_every_error_body(self, served: Served) -> None:
        schema = served.client.get("/openapi.json", headers=served.auth).json()

        assert set(schema["paths"]) == {
            "/v1/predict", "/v1/predictions/{prediction_id}", "/v1/model", "/healthz", "/readyz",
            "/metrics",
        }  # fmt: skip
        for path in schema["paths"].values():
            for operation in path.values():
                for status, answer in operation["responses"].items():
                    if int(status) >= 400:
                        example = answer["content"]["application/problem+json"]["example"]
                        assert example["status"] == int(status)
        Answer.model_validate(
            schema["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"][
                "application/json"
            ]["example"]
        )

    @pytest.mark.parametrize("path", ["/", "/healthz", "/v1/model", "/nothing"])
    def test_every_answer_carries_the_protecting_headers(self, served: Served, path: str) -> None:
        headers = served.client.get(path, headers=served.auth).headers

        policy = dict(
            part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
        )
        assert policy == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
            "img-src": "'self' blob: data:", "connect-src": "'self'", "media-src": "blob:",
            "frame-ancestors": "'none'", "base-uri": "'none'", "form-action": "'none'",
        }  # fmt: skip
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == ("no-cache" if path == "/" else "no-store")

    def test_the_page_says_research_use_only(self, served: Served) -> None:
        response = served.client.get("/")
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert "research use only" in response.text.lower()


def test_prevalence_of_the_study_changes_nothing(predictor: Predictor) -> None:
    prediction = predictor.predict(cxr=material.cxr())
    same = predictor.predict(cxr=material.cxr(), prevalence=0.5)

    assert same.probabilities == pytest.approx(prediction.probabilities)
    assert same.threshold == pytest.approx(prediction.threshold)
