// One place for each modality: drop, choose, record, look, leave out, take away.

import { element, readable } from "./dom.js";
import { LONGEST_S, obstacle, record } from "./recorder.js";

const WHAT = {
  ct: { hint: "One axial slice or a volume: PNG, JPEG, DICOM, NIfTI.", accept: "image/*,.dcm,.nii,.gz" },
  cxr: { hint: "Frontal chest X-ray: PNG, JPEG, DICOM.", accept: "image/*,.dcm" },
  cough: { hint: "A few coughs: WAV, MP3, FLAC, OGG, WebM, M4A.", accept: "audio/*,video/webm,.amr" },
};

export class Slot {
  /**
   * @param {string} modality
   * @param {() => void} onFile another file, or none
   * @param {(fault: {message: string, remedy?: string}) => void} onFault
   * @param {() => void} onLeaveOut
   */
  constructor(modality, onFile, onFault, onLeaveOut) {
    this.modality = modality;
    this.file = null;
    this.onFile = onFile;
    this.onFault = onFault;
    this.onLeaveOut = onLeaveOut;
    this.recording = null;
    this.node = this.build();
  }

  get leftOut() {
    return this.out.checked;
  }

  build() {
    const id = `file-${this.modality}`;
    this.input = element("input", { type: "file", id, accept: WHAT[this.modality].accept });
    this.input.setAttribute("aria-describedby", `${id}-hint`);
    this.input.addEventListener("change", () => this.put(this.input.files[0] ?? null));
    this.name = element("p", { className: "name", role: "status" });
    this.view = element("div");
    this.out = element("input", { type: "checkbox", id: `out-${this.modality}` });
    this.out.addEventListener("change", () => {
      this.look();
      this.onLeaveOut();
    });
    this.remove = element("button", { type: "button" }, "Remove");
    this.remove.addEventListener("click", () => {
      this.put(null);
      this.input.focus();
    });
    this.tools = element(
      "div",
      { className: "tools", hidden: true },
      this.remove,
      element("label", { className: "out-label", for: this.out.id }, this.out, "Leave this modality out"),
    );
    const legend = element("legend", {}, readable(this.modality));
    const label = element("label", { for: id }, `Drop a file here, or choose one`);
    const hint = element("p", { className: "hint", id: `${id}-hint` }, WHAT[this.modality].hint);
    const node = element("fieldset", { className: "slot" }, legend, label, this.input, hint);
    if (this.modality === "cough") node.append(...this.recorderNodes());
    node.append(this.name, this.view, this.tools);
    this.takeDrops(node);
    return node;
  }

  takeDrops(node) {
    for (const kind of ["dragenter", "dragover"]) {
      node.addEventListener(kind, (event) => {
        event.preventDefault();
        node.classList.add("over");
      });
    }
    for (const kind of ["dragleave", "drop"]) node.addEventListener(kind, () => node.classList.remove("over"));
    node.addEventListener("drop", (event) => {
      event.preventDefault();
      const files = [...event.dataTransfer.files];
      if (files.length > 1) {
        this.onFault({
          message: `${files.length} files were dropped on ${readable(this.modality)}; it takes one.`,
          remedy: "Drop one file. Slices of a DICOM series go through `pulmofuse predict` as a folder.",
        });
      } else if (files.length === 1) {
        this.put(files[0]);
      }
    });
  }

  recorderNodes() {
    const why = obstacle();
    this.button = element("button", { type: "button", disabled: why !== null }, "Record a cough");
    this.meter = element("meter", { min: 0, max: 1, low: 0.02, high: 0.98, optimum: 0.4, hidden: true });
    this.meter.setAttribute("aria-label", "Level of the microphone");
    this.clock = element("p", { className: "hint", role: "status" }, why ?? "");
    this.button.addEventListener("click", () => (this.recording ? this.finish() : this.begin()));
    return [this.button, this.meter, this.clock];
  }

  async begin() {
    this.button.disabled = true;
    try {
      this.recording = await record(
        (level, seconds) => {
          this.meter.value = level;
          this.clock.textContent = `Recording: cough three times. ${Math.floor(seconds)} of ${LONGEST_S} s`;
        },
        () => this.finish(),
      );
      this.button.textContent = "Stop recording";
      this.button.classList.add("recording");
      this.meter.hidden = false;
    } catch {
      this.clock.textContent = "The microphone was not given. Allow it in the browser, or choose a file.";
    }
    this.button.disabled = false;
  }

  async finish() {
    const recording = this.recording;
    this.recording = null;
    if (!recording) return;
    this.clock.textContent = "";
    try {
      this.put(await recording.stop());
    } catch {
      this.clock.textContent = "The recording failed. Record again, or choose a file.";
    } finally {
      this.button.textContent = "Record again";
      this.button.classList.remove("recording");
      this.meter.hidden = true;
    }
  }

  /** Take a file in, or null to take it away. */
  put(file) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    this.file = file;
    if (!file) {
      this.input.value = "";
      this.out.checked = false;
    }
    this.name.textContent = file ? `${file.name}, ${size(file.size)}` : "";
    this.view.replaceChildren();
    if (file) {
      this.url = URL.createObjectURL(file);
      const seen = this.preview();
      if (seen) this.view.append(seen);
    }
    this.look();
    this.onFile();
  }

  preview() {
    if (this.modality === "cough") {
      const player = element("audio", { controls: true, src: this.url });
      player.setAttribute("aria-label", "The cough as given");
      return player;
    }
    if (!/\.(png|jpe?g|webp|gif|bmp)$/i.test(this.file.name)) return null;
    const image = element("img", { className: "preview", src: this.url, alt: `${readable(this.modality)} as given` });
    image.addEventListener("error", () => image.remove());
    return image;
  }

  look() {
    this.tools.hidden = this.file === null;
    this.node.classList.toggle("full", this.file !== null);
    this.node.classList.toggle("left-out", this.file !== null && this.leftOut);
  }
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
