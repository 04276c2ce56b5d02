// Draw an answer of the service.

import { bar, byId, element, percent, readable, readableSubset } from "./dom.js";

/**
 * @param {object} answer of POST /v1/predict
 * @param {object} model of GET /v1/model
 * @param {string[]} leftOut modalities that were given and left out
 */
export function show(answer, model, leftOut) {
  const target = model.positive ?? answer.predicted;
  headline(answer, model, target, leftOut);
  probabilities(answer, model);
  contributions(answer, target);
  quality(answer);
  maps(answer);
  findings(answer);
  remarks(answer);
  const made = new Date(answer.created).toLocaleString();
  byId("stamp").textContent =
    `Answer ${answer.id}, ${made}; model ${answer.model.name}, bundle ${answer.model.bundle_sha256.slice(0, 12)}.`;
  byId("answer").hidden = false;
}

function headline(answer, model, target, leftOut) {
  const without = leftOut.length ? ` Left out: ${leftOut.map(readable).join(", ")}.` : "";
  byId("headline").replaceChildren(
    element("strong", {}, `${readable(target)}: ${percent(answer.probabilities[target])}`),
    ` from ${readableSubset(answer.subset)}.${without}`,
  );
  const point =
    answer.threshold === null || answer.threshold === undefined
      ? `The most probable class is ${readable(answer.predicted)}.`
      : `The study's operating point is ${percent(answer.threshold)}: this counts as ${readable(answer.predicted)}.`;
  const set = answer.prediction_set ?? [];
  const names = set.map(readable).join(" or ");
  const coverage = answer.coverage ? ` (${percent(answer.coverage)} coverage)` : "";
  let sets = "";
  if (set.length === 1) sets = ` The prediction set${coverage} holds ${names} alone.`;
  if (set.length > 1) sets = ` The prediction set${coverage} is ${names}: the models cannot tell.`;
  byId("set").textContent = point + sets;
}

function probabilities(answer, model) {
  const head = element("tr", {}, element("th", { scope: "col" }, "from"));
  model.classes.forEach((name) => head.append(element("th", { scope: "col" }, readable(name))));
  const rows = Object.entries(answer.by_modality).map(([modality, p]) => row(readable(modality), p, model, ""));
  if (rows.length > 1) {
    rows.push(row(`all together, by ${readable(answer.method)}`, answer.probabilities, model, "fused"));
  }
  byId("probabilities").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
}

function row(name, p, model, className) {
  const cells = model.classes.map((c) => element("td", {}, bar(p[c])));
  return element("tr", { className }, element("th", { scope: "row" }, name), ...cells);
}

function contributions(answer, target) {
  const entries = Object.entries(answer.evidence);
  const widest = Math.max(2, ...entries.map(([, value]) => Math.abs(value)));
  byId("contribution-hint").textContent =
    `How much each modality moves the odds of ${readable(target)}, before they are joined.`;
  byId("contributions").replaceChildren(
    ...entries.map(([modality, value]) => {
      const mark = element("span", { className: value >= 0 ? "for" : "against" });
      mark.style.width = `${(50 * Math.abs(value)) / widest}%`;
      const factor = Math.exp(Math.abs(value));
      const times = factor >= 100 ? "over 100" : factor.toFixed(1);
      const words = Math.abs(value) < 0.05 ? "says next to nothing" : `odds ${value > 0 ? "times" : "divided by"} ${times}`;
      return element(
        "li",
        {},
        element("strong", {}, readable(modality)),
        element("span", { className: "axis", "aria-hidden": "true" }, mark),
        element("span", {}, words),
      );
    }),
  );
}

function quality(answer) {
  // The input gate repeats what reading remarked, and says how grave it is.
  const gate = answer.quality ?? [];
  const said = new Set(gate.map((remark) => remark.text));
  const found = [...gate, ...(answer.remarks ?? []).filter((remark) => !said.has(remark.text))];
  byId("quality").replaceChildren(
    ...found.map((remark) => {
      const kind = element("span", { className: remark.severity ?? "warn" }, readable(remark.modality));
      return element("li", {}, kind, ` ${remark.text}${remark.remedy ? ` ${sentence(remark.remedy)}` : ""}`);
    }),
  );
  if (!found.length) byId("quality").append(element("li", {}, "Nothing odd was found in it."));
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function maps(answer) {
  const figures = Object.entries(answer.explanations ?? {}).map(([modality, seen]) => map(modality, seen, answer));
  byId("maps").replaceChildren(...figures);
  byId("maps-part").hidden = figures.length === 0;
}

function map(modality, seen, answer) {
  const beneath = element("img", { src: seen.image, alt: `${readable(modality)} as the model got it` });
  const above = element("img", { src: seen.overlay, alt: "" });
  above.style.opacity = "0.6";
  const id = `map-${modality}`;
  const slider = element("input", { type: "range", min: 0, max: 100, value: 60, id });
  slider.addEventListener("input", () => (above.style.opacity = String(slider.value / 100)));
  const caption = element("figcaption", {}, element("strong", {}, readable(modality)));
  if (seen.lung_share !== null && seen.lung_share !== undefined) {
    caption.append(`: ${percent(seen.lung_share)} of it lies inside the lungs.`);
  }
  if (seen.text) caption.append(` ${seen.text}`);
  const label = element("label", { for: id, className: "no-print" }, "Strength of the map");
  const figure = element("figure", {}, element("div", { className: "stack" }, beneath, above), label, slider, caption);
  const attention = (answer.attention ?? {})[modality] ?? [];
  if (attention.length > 1) figure.append(...slices(modality, attention));
  return figure;
}

function slices(modality, attention) {
  const most = Math.max(...attention);
  const place = attention.indexOf(most) + 1;
  const what = modality === "ct" ? "slice" : "window";
  const bars = attention.map((weight) => {
    const mark = element("span");
    mark.style.height = `${(100 * weight) / most}%`;
    return mark;
  });
  return [
    element("div", { className: "slices", "aria-hidden": "true" }, ...bars),
    element("p", { className: "hint" }, `Of ${attention.length} ${what}s, number ${place} weighs most (${percent(most)}).`),
  ];
}

function findings(answer) {
  const found = Object.entries(answer.findings ?? {}).sort(([, a], [, b]) => b - a);
  byId("findings").replaceChildren(
    ...found.map(([name, p]) => element("li", {}, `${readable(name)}: ${percent(p)}`)),
  );
  byId("findings-part").hidden = found.length === 0;
}

function remarks(answer) {
  const fixed = ["It was made by models that have been validated on nobody's patients."];
  byId("warnings").replaceChildren(
    ...[...answer.warnings, ...fixed].map((text) => element("li", {}, text)),
  );
}
