import { show } from "./answer.js";
import { byId, element, readable } from "./dom.js";
import { Refusal, forgetKey, key, model as askModel, newName, predict, setKey, takeKeyFromAddress } from "./service.js";
import { Slot } from "./slots.js";

let model = null;
let slots = [];
// Number of the newest question: an answer to an older one is dropped.
let question = 0;
let waiting = false;
// Under it a question that was sent and not answered is sent again, and recorded once.
let name = null;

const used = () => slots.filter((slot) => slot.file && !slot.leftOut);

function refresh() {
  byId("go").disabled = used().length === 0;
  byId("fault").replaceChildren();
}

/** What was answered, or is being asked, is not about what is given now. */
function forget() {
  question += 1;
  waiting = false;
  name = null;
  byId("busy").textContent = "";
  byId("answer").hidden = true;
  refresh();
}

/** Where an answer stands or is on its way, leaving a modality out or taking it back asks again. */
function leaveOut() {
  const again = waiting || !byId("answer").hidden;
  if (again && used().length) byId("ask").requestSubmit();
  else forget();
}

/** Show a fault, with what to do about it. */
function complain(fault) {
  const where = fault.modality ? `${readable(fault.modality)}: ` : "";
  byId("fault").replaceChildren(
    element("p", {}, element("strong", {}, where), fault.message),
    fault.remedy ? element("p", {}, `What to do: ${fault.remedy}`) : "",
  );
  byId("fault").focus();
}

function askForKey(why) {
  byId("ask").hidden = true;
  byId("key-panel").hidden = false;
  byId("key-fault").textContent = why;
  byId("key").focus();
}

async function begin() {
  if (!key()) return askForKey("");
  try {
    model = await askModel();
  } catch (fault) {
    if (fault.status === 401 || fault.status === 403) {
      forgetKey();
      return askForKey("The service does not know this key.");
    }
    return askForKey(`${fault.message} ${fault.remedy ?? ""}`);
  }
  byId("key-panel").hidden = true;
  byId("ask").hidden = false;
  byId("study").textContent = model.question || model.study;
  byId("version").textContent = `Pulmofuse ${model.version}, model ${model.study}.`;
  slots = model.modalities.map((modality) => new Slot(modality, forget, complain, leaveOut));
  byId("slots").replaceChildren(...slots.map((slot) => slot.node));
  byId("method").replaceChildren(
    ...model.methods.map((name) => element("option", { value: name }, readable(name))),
  );
  byId("method").value = model.default_method;
  byId("options").hidden = model.modalities.length < 2 && !model.positive;
  refresh();
}

async function submit(event) {
  event.preventDefault();
  const chosen = used();
  const leftOut = slots.filter((slot) => slot.file && slot.leftOut).map((slot) => slot.modality);
  const mine = (question += 1);
  waiting = true;
  name ??= newName();
  const share = Number.parseFloat(byId("prevalence").value) / 100;
  byId("go").disabled = true;
  byId("fault").replaceChildren();
  byId("busy").textContent = "The models are looking …";
  try {
    const files = Object.fromEntries(chosen.map((slot) => [slot.modality, slot.file]));
    const answer = await predict(files, {
      method: byId("method").value,
      prevalence: Number.isFinite(share) ? share : undefined,
      name,
    });
    if (mine !== question) return;
    name = null;
    show(answer, model, leftOut);
    byId("answer-title").focus();
  } catch (fault) {
    if (mine !== question) return;
    byId("answer").hidden = true;
    complain(fault instanceof Refusal ? fault : { message: `This page failed: ${fault.message}`, remedy: "Load it again." });
  } finally {
    if (mine === question) {
      waiting = false;
      byId("busy").textContent = "";
      byId("go").disabled = used().length === 0;
    }
  }
}

// A file that misses its place must not replace the page.
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
byId("ask").addEventListener("submit", submit);
byId("ask").addEventListener("input", () => (name = null));
byId("print").addEventListener("click", () => window.print());
byId("clear").addEventListener("click", () => {
  slots.forEach((slot) => slot.put(null));
  byId("prevalence").value = "";
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key").value.trim());
  byId("key").value = "";
  begin();
});
takeKeyFromAddress();
begin();
