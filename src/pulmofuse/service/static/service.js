// The service as this page sees it. The key comes by `#key=…`, which no server gets to see, or by hand.

const STORED = "pulmofuse-key";

export function takeKeyFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!given) return;
  sessionStorage.setItem(STORED, given);
  // The address may be shared or photographed: the key does not stay in it.
  history.replaceState(null, "", location.pathname);
}

export const key = () => sessionStorage.getItem(STORED);
export const setKey = (value) => sessionStorage.setItem(STORED, value);
export const forgetKey = () => sessionStorage.removeItem(STORED);

/** An answer that is no answer: what, why, and what to do. */
export class Refusal extends Error {
  constructor(status, body) {
    super(body.detail ?? body.title ?? `The service answered ${status}.`);
    this.status = status;
    this.modality = body.modality ?? null;
    this.remedy = body.remedy ?? null;
  }
}

/** A new name for a question, under which the service answers it once. */
export const newName = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

async function ask(path, { headers, ...options } = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers, Authorization: `Bearer ${key()}` } });
  } catch {
    throw new Refusal(0, {
      detail: "The service cannot be reached.",
      remedy: "See whether `pulmofuse serve` still runs, and ask again.",
    });
  }
  const body = await response.json().catch(() => null);
  if (body === null) {
    throw new Refusal(response.status, {
      detail: `What came back (status ${response.status}) is no answer of this service.`,
      remedy: "Ask again; if it stays so, something stands between this page and the service.",
    });
  }
  if (!response.ok) {
    const wait = response.headers.get("Retry-After");
    if (wait && !body.remedy) body.remedy = `Ask again in ${wait} s.`;
    throw new Refusal(response.status, body);
  }
  return body;
}

export const model = () => ask("/v1/model");

/**
 * @param {Record<string, File>} files by modality
 * @param {{method?: string, prevalence?: number, name: string}} options prevalence in (0, 1); name: of `newName`
 */
export async function predict(files, options) {
  const form = new FormData();
  for (const [modality, file] of Object.entries(files)) {
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {
      throw new Refusal(0, {
        modality,
        detail: `${file.name} cannot be read; it was changed or moved since it was chosen.`,
        remedy: "Choose it again.",
      });
    }
    form.append(modality, file);
  }
  if (options.method) form.append("method", options.method);
  if (options.prevalence) form.append("prevalence", String(options.prevalence));
  form.append("explain", "true");
  return ask("/v1/predict", { method: "POST", body: form, headers: { "Idempotency-Key": options.name } });
}
