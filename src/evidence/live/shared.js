// What every live figure uses. Python puts this text in front of a figure's own module.

// Make an element; properties that are no attribute of HTML are set as properties.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && !name.startsWith("aria")) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function svgElement(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Bytes come as a DataView; numbers in them are little-endian.
function readUint16(view) {
  return Uint16Array.from({ length: view.byteLength / 2 }, (_, i) => view.getUint16(2 * i, true));
}

function readUint8(view) {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function readFloat16(view) {
  const scale = Float64Array.from({ length: 32 }, (_, e) => 2 ** (Math.max(e, 1) - 25));
  const values = new Float32Array(view.byteLength / 2);
  for (let i = 0; i < values.length; i++) {
    const bits = view.getUint16(2 * i, true);
    const exponent = (bits >> 10) & 31;
    const magnitude = ((bits & 1023) + (exponent ? 1024 : 0)) * scale[exponent];
    values[i] = bits & 32768 ? -magnitude : magnitude;
  }
  return values;
}

// erf within 1.5e-7 (Abramowitz and Stegun, 7.1.26).
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t
    + 0.254829592) * t;
  return Math.sign(x) * (1 - poly * Math.exp(-x * x));
}

const ACTIVATIONS = {
  relu: (x) => Math.max(x, 0),
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => (x / 2) * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
};

// Make the function that a network of linear layers and activations computes, in float64.
// What it returns is overwritten by the next call.
function makeNetwork(layers, weightsView) {
  const weights = readFloat16(weightsView);
  let offset = 0;
  const steps = layers.map((layer) => {
    if (layer.kind !== "linear") {
      const activation = ACTIVATIONS[layer.kind];
      if (!activation) throw new Error(`no activation ${layer.kind}`);
      return (x) => {
        for (let i = 0; i < x.length; i++) x[i] = activation(x[i]);
        return x;
      };
    }
    const { inputs, outputs } = layer;
    const start = offset;
    const bias = start + inputs * outputs;
    offset = bias + (layer.bias ? outputs : 0);
    const y = new Float64Array(outputs);
    return (x) => {
      for (let row = 0, w = start; row < outputs; row++) {
        let sum = layer.bias ? weights[bias + row] : 0;
        for (let i = 0; i < inputs; i++) sum += weights[w++] * x[i];
        y[row] = sum;
      }
      return y;
    };
  });
  if (offset !== weights.length) {
    throw new Error(`the layers need ${offset} weights, but there are ${weights.length}`);
  }
  return (input) => steps.reduce((x, step) => step(x), Float64Array.from(input));
}

// A number as it is written in text, with a true minus sign.
function formatNumber(value, digits) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
}

// Round numbers, about `count` of them, between two others.
function roundTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) ticks.push(i * step);
  return { ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

// The colour that CSS computes for an element, as [red, green, blue] from 0 to 255.
function computedColor(node, property = "color") {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  context.fillStyle = getComputedStyle(node).getPropertyValue(property);
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

// Light text stands on a dark page: so it is in the book, in Jupyter and elsewhere.
function isDark(node) {
  const [red, green, blue] = computedColor(node);
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}

// Call back when the page changes its colours, until the signal aborts.
function onThemeChange(callback, signal) {
  const observer = new MutationObserver(callback);
  for (const node of [document.documentElement, document.body]) {
    observer.observe(node, {
      attributeFilter: ["class", "data-theme", "data-mode", "data-jp-theme-name", "style"],
    });
  }
  signal.addEventListener("abort", () => observer.disconnect());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", callback, { signal });
}

function prefersStillness() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
