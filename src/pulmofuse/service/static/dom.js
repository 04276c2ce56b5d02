// Elements from text, never from markup: what a model or a file says is shown as it is.

/** An element with properties, attributes in `data-`/`aria-` form, and children (nodes or text). */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "for" || name === "role" || name === "scope") {
      node.setAttribute(name, value);
    } else {
      node[name] = value;
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Share in percent with one decimal; what rounds to 0 or 100 and is neither says so. */
export function percent(p) {
  if (p > 0 && p < 0.0005) return "< 0.1 %";
  if (p < 1 && p > 0.9995) return "> 99.9 %";
  return `${(100 * p).toFixed(1)} %`;
}

/** "not_covid19" as people read it. */
export function readable(name) {
  const known = {
    covid19: "COVID-19",
    not_covid19: "not COVID-19",
    ct: "CT",
    cxr: "Chest X-ray",
    cough: "Cough",
    log_odds: "log-odds (needs no pairs)",
    unimodal: "this modality alone",
  };
  return known[name] ?? name.replaceAll("_", " ");
}

export const readableSubset = (subset) => subset.split("+").map(readable).join(" + ");

/** A bar with its figure: the figure is text, the bar is for the eye only. */
export function bar(p) {
  const fill = element("div", { className: "fill" });
  fill.style.width = `${100 * Math.min(1, Math.max(0, p))}%`;
  const track = element("div", { className: "track", "aria-hidden": "true" }, fill);
  return element("div", { className: "cell" }, track, element("span", {}, percent(p)));
}
