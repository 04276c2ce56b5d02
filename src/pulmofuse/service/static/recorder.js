// Record a cough: MediaRecorder (WebM or MP4 with Opus or AAC) where the browser has it, else WAV by Web Audio.

const KINDS = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4"];

/** Longest recording in seconds: ten coughs take less, and a forgotten microphone must end. */
export const LONGEST_S = 20;

/** What a browser would have to offer, or why it cannot record. */
export function obstacle() {
  if (!window.isSecureContext) {
    return "Browsers give the microphone only to https pages and to this very computer.";
  }
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioContext) {
    return "This browser cannot record; choose a file instead.";
  }
  return null;
}

/**
 * Begin to record.
 *
 * @param {(level: number, seconds: number) => void} onLevel peak in [0, 1] about ten times a second
 * @param {() => void} onEnd called when the longest time is over
 * @returns {Promise<{stop: () => Promise<File>}>}
 */
export async function record(onLevel, onEnd) {
  // Echo and noise suppression are made for speech, and take coughs for noise.
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const release = () => stream.getTracks().forEach((track) => track.stop());
  try {
    return await recordStream(stream, release, onLevel, onEnd);
  } catch (fault) {
    release(); // or the microphone would stay open
    throw fault;
  }
}

async function recordStream(stream, release, onLevel, onEnd) {
  const context = new AudioContext();
  await context.resume();
  const source = context.createMediaStreamSource(stream);
  const analyser = context.createAnalyser();
  analyser.fftSize = 2048;
  source.connect(analyser);
  const kind = window.MediaRecorder ? KINDS.find((k) => MediaRecorder.isTypeSupported(k)) : undefined;
  const finish = kind ? byMediaRecorder(stream, kind) : await bySamples(context, source);
  const began = performance.now();
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const peak = samples.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const seconds = (performance.now() - began) / 1000;
    onLevel(Math.min(1, peak), seconds);
    if (seconds >= LONGEST_S) {
      clearInterval(timer);
      onEnd();
    }
  }, 100);
  return {
    async stop() {
      clearInterval(timer);
      try {
        return await finish();
      } finally {
        release();
        await context.close();
      }
    },
  };
}

function byMediaRecorder(stream, kind) {
  const recorder = new MediaRecorder(stream, { mimeType: kind, audioBitsPerSecond: 128000 });
  const parts = [];
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  // It also stops by itself, when the microphone is unplugged.
  const stopped = new Promise((resolve) => recorder.addEventListener("stop", resolve));
  recorder.start();
  return async () => {
    if (recorder.state !== "inactive") recorder.stop();
    await stopped;
    const suffix = kind.startsWith("audio/webm") ? "webm" : kind.startsWith("audio/ogg") ? "ogg" : "m4a";
    return new File(parts, `recorded-cough.${suffix}`, { type: kind.split(";")[0] });
  };
}

async function bySamples(context, source) {
  await context.audioWorklet.addModule("/samples-worklet.js");
  const node = new AudioWorkletNode(context, "samples");
  const blocks = [];
  node.port.onmessage = (event) => blocks.push(event.data);
  source.connect(node);
  return async () => {
    source.disconnect(node);
    return new File([wav(blocks, context.sampleRate)], "recorded-cough.wav", { type: "audio/wav" });
  };
}

/** A mono 16-bit WAV file of blocks of samples in [-1, 1]. */
export function wav(blocks, rate) {
  const length = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * length));
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * length, true);
  let at = 44;
  for (const block of blocks) {
    for (const sample of block) {
      view.setInt16(at, Math.round(32767 * Math.max(-1, Math.min(1, sample))), true);
      at += 2;
    }
  }
  return view.buffer;
}
