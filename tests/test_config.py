"""The configuration tree: what is accepted, and what a person reads when it is not."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.config import StudyConfig, ThresholdTarget, dump_config, load_config, parse_config
from pulmofuse.errors import ConfigError
from pulmofuse.schema import Label, Modality

# Lines 1 to 5; what a test adds begins in line 6.
MINIMAL = """\
name: mine
question: Who coughs?
sources:
  - name: folder
    root: mine
"""

STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.yaml"))


def message(text: str, *overrides: str) -> str:
    """What the person reads."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, overrides, "my.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestUnknownKey:
    @pytest.mark.parametrize(
        ("text", "line", "key", "nearest"),
        [
            (MINIMAL + "sead: 1", 6, "sead", "'seed'"),
            (MINIMAL.replace("name: mine", "nam: mine"), 1, "nam", "'name'"),
            (MINIMAL.replace("sources:", "source:"), 3, "source", "'sources'"),
            (MINIMAL.replace("root:", "rot:"), 5, "sources.0.rot", "'root'"),
            (MINIMAL + "ct:\n  training:\n    epoch: 3", 8, "ct.training.epoch", "'epochs'"),
            (MINIMAL + "ct: {training: {lr: 1}}", 6, "ct.training.lr", None),
            (MINIMAL + "ct:\n  epochs: 3", 7, "ct.epochs", "'ct.training.epochs'"),
            (MINIMAL + "fusion: {feature: {viws: 2}}", 6, "fusion.feature.viws", "'views'"),
            (MINIMAL + "target: {class: [a, b]}", 6, "target.class", "'classes'"),
            (MINIMAL + "hop_length: 80", 6, "hop_length", "'cough.preprocessing.hop_length'"),
            (MINIMAL + "wibble: 1", 6, "wibble", None),
        ],
    )
    def test_names_the_line_and_the_nearest_key(
        self, text: str, line: int, key: str, nearest: str | None
    ) -> None:
        expected = f"my.yaml, line {line}: unknown key {key!r}. "
        expected += f"The nearest key is {nearest}." if nearest else "Known keys: "
        assert message(text).startswith(expected)

    def test_is_named_before_the_key_that_is_missing_for_it(self) -> None:
        assert "unknown key 'questoin'" in message(MINIMAL.replace("question", "questoin"))

    def test_stands_twice(self) -> None:
        text = MINIMAL + "seed: 1\nct:\n  training: {epochs: 1}\nseed: 2\n"

        assert message(text).startswith("my.yaml, line 9: key 'seed' stands twice (also in line 6)")

    def test_a_number_as_a_key(self) -> None:
        assert message(MINIMAL + "3: 4").startswith("my.yaml, line 6: 3: ")


class TestValue:
    @pytest.mark.parametrize(
        ("text", "line", "expected"),
        [
            ("seed: -1", 6, "seed: should be greater than or equal to 0 (given: -1)"),
            ("seed: 1.5", 6, "seed: should be a valid integer"),
            ("evaluation: {calibration: isotonic}", 6, "set conformal to null"),
            ("evaluation: {threshold: best}", 6, "evaluation.threshold: should be argmax"),
            ("evaluation: {threshold: {sensitivity: 95}}", 6, "numbers between 0 and 1"),
            ("evaluation: {threshold: {sensitivity: .9, specificity: .9}}", 6, "a mapping of"),
            ("evaluation: {threshold: {confidence: .9}}", 6, "a mapping of sensitivity or"),
            ("evaluation: {threshold: {sensitivty: .9}}", 6, "a mapping of sensitivity or"),
            ("seed: often", 6, "(given: 'often')"),
            ("ct:", 6, "ct: should hold keys and values; leave it out to take the defaults"),
            ("ct: {preprocessing: {size: 16}}", 6, "ct.preprocessing.size: "),
            ("ct:\n  training:\n    dropout: 1", 8, "unknown key 'ct.training.dropout'"),
            ("ct:\n  model:\n    dropout: 1", 8, "ct.model.dropout: should be less than 1"),
            ("ct: {training: {lr_head: .inf}}", 6, "should be a finite number (given: inf)"),
            ("ct: {preprocessing: {window_level_hu: .nan}}", 6, "should be a finite number"),
            ("split: {test: 0.6, val: 0.4}", 6, "split: test and val together must leave"),
            ("fusion: {rules: mean}", 6, "fusion.rules: should be a list (given: 'mean')"),
            ("fusion:\n  rules:\n    - mean\n    - max\n", 9, "fusion.rules.1: "),
            ("fusion: {rules: [mean, mean]}", 6, "a rule is named twice"),
            ("fusion: {feature: {methods: []}}", 6, "fusion.feature.methods: has too few"),
            ("fusion: {feature: {methods: [bilinear, bilinear]}}", 6, "a method is named twice"),
            ("fusion: {feature: {methods: [zero_filled]}}", 6, "fusion.feature.methods.0: "),
            ("fusion: {dependence_weight: 1.01}", 6, "fusion.dependence_weight: "),
            ("fusion: {dependence_rho: 1.01}", 6, "fusion.dependence_rho: "),
            ("fusion: {dependence_rho: 0.3, dependence_weight: 0.5}", 6, "not both"),
            ("evaluation: {threshold: 0.5}", 6, "evaluation.threshold: should be argmax, youden,"),
            ("cough: {preprocessing: {f_max_hz: 9000}}", 6, "f_max_hz <= sample_rate_hz / 2"),
            (
                "cough: {preprocessing: {bandwidth_hz: 3400}}",
                6,
                "f_max_hz must not exceed bandwidth_hz",
            ),
            ("cough: {preprocessing: {bandwidth_hz: 9000}}", 6, "sample_rate_hz / 2"),
            (
                "cough: {preprocessing: {low_cut_hz: 300}}",
                6,
                "f_min_hz must not be below low_cut_hz",
            ),
            ("fusion: {feature: {training: {adversarial: 1}}}", 6, "has no one site"),
            *(
                (f"fusion: {{feature: {{training: {{{setting}}}}}}}", 6, expected)
                for setting, expected in (
                    ("mixup: 0.2", "cannot be mixed"),
                    ("cutmix: 0.2", "cannot be mixed"),
                    ("probe_views: 2", "probe_views"),
                    ("trainable: head, probe_views: 2", "nothing in the fusion is pre-trained"),
                    ("trainable: gradual", "nothing in the fusion is pre-trained"),
                    ("frozen_stages: 1", "nothing in the fusion is pre-trained"),
                    ("layer_decay: 0.5", "layer_decay is 1"),
                )
            ),
            *(
                (f"ct:\n  training: {{{setting}}}", 7, expected)
                for setting, expected in (
                    ("batch_size: 1", "batch_size: should be greater than or equal to 2"),
                    ("probe_views: 2", "set trainable to head, or probe_views to 0"),
                    ("trainable: gradual, probe_views: 2", "set trainable to head"),
                    ("trainable: head, frozen_stages: 2", "set frozen_stages to 0"),
                    ("trainable: head, adversarial: 0.5", "leaves them as they are"),
                    ("trainable: head, cutmix: 0.5", "set cutmix to 0"),
                )
            ),
            *(
                (
                    f"{modality}: {{model: {{aggregation: attention}},"
                    " training: {trainable: head, probe_views: 2}}",
                    6,
                    "set training.probe_views to 0",
                )
                for modality in ("ct", "cough")
            ),
            ("cough: {preprocessing: {win_length: 1024}}", 6, "win_length must not exceed n_fft"),
            ("cough: {preprocessing: {n_mfcc: 65}}", 6, "n_mfcc must not exceed n_mels"),
            ("cough: {preprocessing: {duration_s: 0.03}}", 6, "more samples than n_fft"),
            ("cough: {augmentation: {noise_snr_db: [9, 3]}}", 6, "the lower bound first"),
            ("target: {classes: [covid19]}", 6, "target.classes: has too few items"),
            ("target: {classes: [no, yes]}", 6, "target.classes.0: should be text; quote it"),
            ("target: {classes: [a b, c]}", 6, "should be made of letters, digits and _"),
            ("target: {classes: [raw_a, a]}", 6, "must not be named raw_"),
            ("target: {classes: [a, a]}", 6, "a class is named twice"),
            ("target: {classes: [ill, not_covid19, covid19]}", 6, "no label is mapped to ill"),
            ("target: {positive: ill}", 6, "positive is 'ill', which classes does not name"),
            ("target: {positive: null}", 6, "must say which one is positive"),
            (
                "target:\n  mapping:\n    flu: covid19",
                8,
                "target.mapping.flu: should be 'normal', ",
            ),
            ("target:\n  mapping:\n    normal: well", 6, "mapping names well"),
            ("target:\n  mapping:\n    normal: [well]", 6, "mapping names well"),
            ("target:\n  mapping:\n    normal: [covid19, not_covid19]", 6, "which says nothing"),
            ("target:\n  mapping:\n    normal: []", 6, "which says nothing"),
        ],
    )
    def test_out_of_range(self, text: str, line: int, expected: str) -> None:
        found = message(MINIMAL + text)

        assert found.startswith(f"my.yaml, line {line}: ")
        assert expected in found

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (MINIMAL.replace("name: mine\n", ""), "my.yaml: name: this key is missing. Add this"),
            (MINIMAL.replace("name: folder\n    ", ""), "line 4: sources.0.name: this key is miss"),
            (MINIMAL.replace("mine", "2026-11-23", 1), "line 1: name: should be text; quote it"),
            (MINIMAL.replace("mine", "''", 1), "line 1: name: "),
            ("name: a\nquestion: b\nsources: []", "line 3: sources: has too few items"),
        ],
    )
    def test_of_a_needed_key(self, text: str, expected: str) -> None:
        assert expected in message(text)

    def test_a_power_frame_of_three_classes(self) -> None:
        three = "classes: [a, b, c], mapping: {normal: a, covid19: b, pneumonia: c}"
        text = f"target: {{positive: a, {three}}}\nevaluation: {{power_frame: labels.csv}}"

        assert "evaluation.power_frame counts positives" in message(MINIMAL + text)

    @pytest.mark.parametrize("value", ["1e-3", "0.001", "1.0e-3", "'0.001'"])
    def test_a_small_number_in_any_spelling(self, value: str) -> None:
        config = parse_config(MINIMAL + f"ct: {{training: {{lr_head: {value}}}}}")

        assert config.ct.training.lr_head == 0.001


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", "my.yaml: is not a mapping of keys to values"),
            ("# only a comment", "my.yaml: is not a mapping"),
            ("- name: mine", "my.yaml: is not a mapping"),
            ("name", "my.yaml: is not a mapping"),
            ("name: a: b", "my.yaml, line 1: not valid YAML: mapping values are not allowed here"),
            (MINIMAL + "ct: [", "my.yaml, line 6: not valid YAML"),
            (MINIMAL + "\tct: 1", "my.yaml, line 6: not valid YAML: found character '\\t'"),
            ("a: 1\n---\nb: 2\n", "my.yaml, line 2: not valid YAML"),
            ("a: !!python/object:os.system x", "my.yaml, line 1: not valid YAML"),
            ("a: *nobody", "my.yaml, line 1: not valid YAML: found undefined alias"),
            ("a: 2026-13-01", "my.yaml: not valid YAML: month must be in 1..12"),
            ("a: \x01", "my.yaml: not valid YAML: unacceptable character"),
            ("? [a]\n: 1", "my.yaml, line 1: not valid YAML: found unhashable key"),
            ("[" * 5000, "my.yaml: not valid YAML: nested too deeply"),
        ],
    )
    def test_faults_are_one_line(self, text: str, expected: str) -> None:
        assert message(text).startswith(expected)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [(None, "no such file"), (b"\xff\xfe\x00", "cannot be read")],
    )
    def test_a_file_that_cannot_be_read(
        self, tmp_path: Path, content: bytes | None, expected: str
    ) -> None:
        path = tmp_path / "study.yaml"
        if content is not None:
            path.write_bytes(content)

        with pytest.raises(ConfigError, match=expected):
            load_config(path)

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is a folder"):
            load_config(tmp_path)

    def test_a_byte_order_mark_is_no_key(self, tmp_path: Path) -> None:
        (tmp_path / "study.yaml").write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())

        assert load_config(tmp_path / "study.yaml") == parse_config(MINIMAL)


class TestOverride:
    @pytest.mark.parametrize(
        ("override", "equal"),
        [
            ("seed=3", "seed: 3"),
            ("name=a=b", "name: a=b"),
            ("ct.training.epochs=5", "ct: {training: {epochs: 5}}"),
            ("fusion.feature.views=2", "fusion: {feature: {views: 2}}"),
            ("fusion.feature=null", "fusion: {feature: null}"),
            ("fusion.rules=[mean]", "fusion: {rules: [mean]}"),
            ("split={val: 0.1}", "split: {val: 0.1}"),
            ("ct.preprocessing.body_crop=false", "ct: {preprocessing: {body_crop: false}}"),
            ("ct.model.weights=/a/b.safetensors", "ct: {model: {weights: /a/b.safetensors}}"),
        ],
    )
    def test_is_the_same_as_the_key_in_the_file(self, override: str, equal: str) -> None:
        text = MINIMAL if not equal.startswith("name") else MINIMAL.replace("name: mine\n", "")

        assert parse_config(MINIMAL, [override]) == parse_config(text + equal)

    def test_reaches_into_a_list(self) -> None:
        config = parse_config(MINIMAL, ["sources.0.root=elsewhere"])

        assert config.sources[0].root == "elsewhere"

    def test_fills_a_part_that_the_file_leaves_empty(self) -> None:
        config = parse_config(MINIMAL + "ct:\n", ["ct.training.epochs=2"])

        assert config.ct.training.epochs == 2

    def test_keeps_what_stands_beside_it(self) -> None:
        text = MINIMAL + "ct: {training: {epochs: 2, batch_size: 8}}"
        training = parse_config(text, ["ct.training.epochs=3"]).ct.training

        assert (training.epochs, training.batch_size) == (3, 8)

    def test_the_last_one_counts(self) -> None:
        assert parse_config(MINIMAL, ["seed=1", "seed=2"]).seed == 2

    @pytest.mark.parametrize(
        ("override", "expected"),
        [
            ("seed", "is not KEY=VALUE"),
            ("=3", "is not KEY=VALUE"),
            ("ct..epochs=3", "is not KEY=VALUE"),
            (".seed=3", "is not KEY=VALUE"),
            ("seed={", "the value is not YAML"),
            ("seed=2026-13-01", "the value is not YAML"),
            ("name.first=a", "name holds a value, not keys"),
            ("sources.1.root=a", "sources is a list of 1, counted from 0, and '1' is none of it"),
            ("sources.folder.root=a", "sources is a list of 1"),
            ("seed=-1", "seed: should be greater"),
            ("ct.training.epoch=3", "unknown key 'ct.training.epoch'. The nearest key is 'epochs'"),
            ("cough.preprocessing.f_min_hz=9000", "need f_min_hz < f_max_hz"),
        ],
    )
    def test_a_fault_is_laid_at_its_door(self, override: str, expected: str) -> None:
        # The file's own line would be a false trail here.
        found = message(MINIMAL + "seed: 5\n", "split.val=0.1", override)

        assert found.startswith(f"--set {override}: ")
        assert expected in found

    def test_is_not_blamed_for_a_fault_of_the_file(self) -> None:
        found = message(MINIMAL + "ct: {training: {epochs: 0}}", "ct.training.batch_size=8")

        assert found.startswith("my.yaml, line 6: ct.training.epochs")


class TestRoundTrip:
    @settings(max_examples=60, deadline=None)
    @given(
        name=st.text(string.printable, min_size=1),
        question=st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
        rate=st.floats(1e-12, 1e6),
        seed=st.integers(0, 2**31 - 1),
        snr=st.none() | st.tuples(st.floats(-20, 0), st.floats(0, 90)),
        classes=st.lists(
            st.text(string.ascii_letters, min_size=1).filter(lambda name: name != "raw_"),
            min_size=2,
            max_size=len(Label),
            unique=True,
        ),
    )
    def test_what_is_written_out_is_read_back(
        self,
        name: str,
        question: str,
        rate: float,
        seed: int,
        snr: tuple[float, float] | None,
        classes: list[str],
    ) -> None:
        labels = list(Label)
        config = StudyConfig.model_validate(
            {
                "name": name,
                "question": question,
                "seed": seed,
                "sources": [{"name": "folder", "root": name}],
                "target": {
                    "classes": classes,
                    "positive": classes[0],
                    "mapping": dict(zip(labels, classes, strict=False)),
                },
                "cough": {"augmentation": {"noise_snr_db": snr}, "training": {"lr_head": rate}},
            }
        )

        assert parse_config(dump_config(config)) == config

    def test_every_default_is_written_out(self) -> None:
        tree = yaml.safe_load(dump_config(parse_config(MINIMAL)))

        assert tree["cxr"]["training"]["label_smoothing"] == 0.05
        assert tree["fusion"]["feature"]["views"] == 4

    @pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
    def test_studies_in_the_repository_are_valid(self, path: Path) -> None:
        config = load_config(path)

        assert parse_config(dump_config(config)) == config


class TestCovariance:
    @pytest.mark.parametrize("part", ["ct", "cxr"])
    @pytest.mark.parametrize("trainable", ["all", "gradual"])
    def test_is_refused_for_a_network_that_is_trained(self, part: str, trainable: str) -> None:
        override = f"{part}.model.pooling=covariance"
        assert "model.pooling covariance looks at the middle" in message(
            MINIMAL, override, f"{part}.training.trainable={trainable}"
        )
        parse_config(MINIMAL, [override, f"{part}.training.trainable=head"])


class TestVolume:
    @pytest.mark.parametrize(
        ("override", "named"),
        [
            ("tta.flip_horizontal=true", "tta"),
            ("tta.zooms=[1.0, 1.2]", "tta"),
            ("model.pooling=levels", "model.pooling"),
            ("training.trainable=head", "training.trainable"),
            ("training.trainable=gradual", "training.trainable"),
            ("training={trainable: head, probe_views: 1}", "training.trainable"),
            ("training.frozen_stages=1", "training.frozen_stages"),
            ("training.layer_decay=0.5", "training.layer_decay"),
            ("augmentation.style=0.5", "augmentation.style"),
            ("augmentation.jpeg=0.5", "augmentation.jpeg"),
        ],
    )
    def test_does_not_take_what_it_would_pass_over(self, override: str, named: str) -> None:
        assert f"cannot do {named}:" in message(
            MINIMAL, "ct.model.aggregation=volume", f"ct.{override}"
        )
        parse_config(MINIMAL, [f"ct.{override}"])  # slices can

    def test_takes_the_rest(self) -> None:
        changes = "blur: 1, downscale: 2, tone: 0.5, border: 0.1, crop_scale: 0.7, sharpen: 1"
        text = (
            f"ct: {{model: {{aggregation: volume, depth: 8}}, augmentation: {{{changes}}},"
            " training: {mixup: 0.2, cutmix: 0.2, adversarial: 0.5}}"
        )

        assert parse_config(MINIMAL + text).ct.model.depth == 8


class TestTree:
    def test_a_modality_finds_its_part(self) -> None:
        config = parse_config(MINIMAL)

        assert config.of(Modality.CT) is config.ct
        assert config.of(Modality.CXR) is config.cxr
        assert config.of(Modality.COUGH) is config.cough

    def test_a_mirrored_x_ray_would_be_dextrocardia(self) -> None:
        config = parse_config(MINIMAL)

        assert config.ct.augmentation.flip_horizontal
        assert not config.cxr.augmentation.flip_horizontal

    def test_a_target_of_three_classes_needs_no_positive_one(self) -> None:
        target = (
            "target: {classes: [normal, covid19, pneumonia], positive: null,"
            " mapping: {normal: normal, covid19: covid19, pneumonia: pneumonia}}"
        )

        assert parse_config(MINIMAL + target).target.positive is None


@pytest.mark.parametrize(
    ("override", "place", "kept"),
    [
        ("ct.augmentation={rotate_deg: 0}", "ct.augmentation.flip_horizontal", True),
        ("ct.augmentation.rotate_deg=0", "ct.augmentation.flip_horizontal", True),
        ("fusion.feature.training={epochs: 1}", "fusion.feature.training.precision", "fp32"),
        ("fusion={feature: {training: {epochs: 1}}}", "fusion.feature.training.batch_size", 64),
        ("cxr.augmentation={rotate_deg: 0}", "cxr.augmentation.flip_horizontal", False),
    ],
)
def test_a_part_given_in_part_keeps_the_other_defaults_of_its_place(
    override: str, place: str, kept: object
) -> None:
    config = parse_config("name: a\nquestion: q\nsources: [{name: folder}]\n", [override])
    value: object = config
    for name in place.split("."):
        value = getattr(value, name)
    assert value == kept


def test_an_operating_point_may_be_a_promise() -> None:
    config = parse_config(MINIMAL + "evaluation: {threshold: {sensitivity: 0.95}}")
    assert config.evaluation.threshold == ThresholdTarget(sensitivity=0.95)
    assert parse_config(dump_config(config)) == config
