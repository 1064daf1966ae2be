// What every live figure uses. Python puts this text in front of a figure's own module.

const KEY_STEP = 0.01; // of a range; ten times as much with Shift
const GLIDE_MS = 600;
const SPEAK_AFTER_MS = 400;
const LONGEST_FRAME_MS = 100; // a longer one counts as this: the tab was hidden, say
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

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

function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
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

// Whole numbers from -127 to 127, each times the scale of its row.
function readScaledBytes(view, scales, rowLength) {
  return Float32Array.from({ length: view.byteLength }, (_, i) => (
    view.getInt8(i) * scales.getFloat32(4 * Math.floor(i / rowLength), true)
  ));
}

// Make the function that a network of linear layers and activations computes, in float64.
// What it returns is overwritten by the next call.
function makeNetwork(layers, weightsView) {
  let offset = 0;
  const take = (length) => {
    if (offset + length > weightsView.byteLength) {
      throw new Error(`the layers need more than the ${weightsView.byteLength} bytes there are`);
    }
    const part = new DataView(weightsView.buffer, weightsView.byteOffset + offset, length);
    offset += length;
    return part;
  };
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
    const weights = layer.bits === 8
      ? readScaledBytes(take(inputs * outputs), take(4 * outputs), inputs)
      : readFloat16(take(2 * inputs * outputs));
    const bias = layer.bias ? readFloat16(take(2 * outputs)) : new Float32Array(outputs);
    const y = new Float64Array(outputs);
    return (x) => {
      for (let row = 0, w = 0; row < outputs; row++) {
        let sum = bias[row];
        for (let i = 0; i < inputs; i++) sum += weights[w++] * x[i];
        y[row] = sum;
      }
      return y;
    };
  });
  if (offset !== weightsView.byteLength) {
    throw new Error(`the layers need ${offset} bytes, but there are ${weightsView.byteLength}`);
  }
  return (input) => steps.reduce((x, step) => step(x), Float64Array.from(input));
}

const WEYL = 0x9e3779b9;

// Scramble 32 bits, one to one: the finalizer of MurmurHash3.
function hash(number) {
  let bits = Math.imul(number ^ (number >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}

// Standard normal draws, as in Python: Box and Muller.
function makeNoise(seed, count) {
  const start = hash(seed + 1);
  const uniform = (i) => (hash((start + Math.imul(i + 1, WEYL)) | 0) + 0.5) / 2 ** 32;
  const eps = new Float64Array(count + (count % 2));
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(uniform(i)));
    const angle = 2 * Math.PI * uniform(i + 1);
    [eps[i], eps[i + 1]] = [radius * Math.cos(angle), radius * Math.sin(angle)];
  }
  return eps.subarray(0, count);
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

// The red, green and blue of a colour as `getComputedStyle` writes it, from 0 to 255; undefined
// where it is written in another space.
function readColor(text) {
  const [, space, numbers] = /^(rgba?\(|color\(srgb )([^)]*)\)$/.exec(text) ?? [];
  if (!space) return undefined;
  const scale = space.startsWith("rgb") ? 1 : 255;
  return numbers.split(/[\s,/]+/, 3).map((number) => (
    Math.round(Math.min(Math.max((Number(number) || 0) * scale, 0), 255)) // "none" is 0
  ));
}

// The colour that CSS computes for an element, as [red, green, blue] from 0 to 255. It is read as
// text: browsers that guard against being recognised give false pixels of a canvas.
function computedColor(node, property = "color") {
  const text = getComputedStyle(node).getPropertyValue(property);
  if (!text) return [0, 0, 0]; // not on the page yet
  const color = readColor(text);
  if (color) return color;
  // CSS itself takes it to red, green and blue.
  const probe = element("span", { hidden: true });
  probe.style.color = `color-mix(in srgb, ${text} 100%, black)`;
  document.documentElement.append(probe);
  const mixed = getComputedStyle(probe).color;
  probe.remove();
  return readColor(mixed) ?? [0, 0, 0];
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

// Mark a figure that stands on a dark page, and have it drawn again when that changes.
function followTheme(root, redraw, signal) {
  const mark = () => root.classList.toggle("live-dark", isDark(root));
  mark();
  onThemeChange(() => {
    mark();
    redraw();
  }, signal);
}

// Put a figure, with its caption below, in the place of what is there.
function mount(model, el, root) {
  if (model.get("caption")) {
    root.append(element("div", { class: "live-caption" }, model.get("caption")));
  }
  el.replaceChildren(root);
}

// Draw a figure now, and again when its surface gets another width or the page other colours, until
// the function that is returned is called.
function keepDrawn(root, surface, draw) {
  const controller = new AbortController();
  let width = 0;
  const redraw = () => {
    width = surface.clientWidth;
    draw();
  };
  const resizing = new ResizeObserver(() => {
    if (surface.clientWidth !== width) redraw();
  });
  resizing.observe(surface);
  followTheme(root, redraw, controller.signal);
  redraw();
  return () => {
    controller.abort();
    resizing.disconnect();
  };
}

function prefersStillness() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

const easeInAndOut = (time) => time * time * (3 - 2 * time);

// Take numbers to others, smoothly where motion is welcome; `tell` is called once they are there.
function makeGlider(show, tell) {
  let frame = 0;
  const stop = () => {
    cancelAnimationFrame(frame);
    frame = 0;
  };
  const glide = (start, goal, { ms = GLIDE_MS, ease = easeInAndOut } = {}) => {
    stop();
    if (prefersStillness()) {
      show(goal);
      tell();
      return;
    }
    const began = performance.now();
    const step = (now) => {
      const time = Math.min(1, Math.max(0, now - began) / ms);
      if (time === 1) {
        frame = 0;
        show(goal);
        tell();
        return;
      }
      const eased = ease(time);
      show(start.map((from, i) => from + eased * (goal[i] - from)));
      frame = requestAnimationFrame(step);
    };
    frame = requestAnimationFrame(step);
  };
  return { glide, stop, isGliding: () => frame !== 0 };
}

// Keep the widget's values and a figure's alike: `tell({name: value})` sets them, and `hear` is
// called when they were set elsewhere.
function makeTeller(model, names, hear) {
  let isTelling = false; // one value after another: between them, they are not those of the figure
  const listen = () => {
    if (!isTelling) hear();
  };
  for (const name of names) model.on(`change:${name}`, listen);
  return {
    tell: (values) => {
      isTelling = true;
      for (const [name, value] of Object.entries(values)) model.set(name, value);
      isTelling = false;
      model.save_changes();
    },
    leave: () => {
      for (const name of names) model.off(`change:${name}`, listen);
    },
  };
}

// Move a figure. Its numbers are changed by its reader, at once or smoothly, and by who sets the
// widget's values of these names, from which `read()` takes them and which `write()` gives. All go
// through `inRange(numbers)` to `show(numbers)`.
function makeMover(model, names, { read, write, inRange, show }) {
  const tell = () => teller.tell(write());
  const glider = makeGlider(show, tell);
  const teller = makeTeller(model, names, () => {
    glider.stop();
    show(inRange(read()));
  });
  return {
    moveTo: (next) => {
      glider.stop();
      show(inRange(next));
      tell();
    },
    glide: (from, goal, pace) => glider.glide(from, inRange(goal), pace),
    isGliding: glider.isGliding,
    tell,
    leave: () => {
      glider.stop();
      teller.leave();
    },
  };
}

// A button that plays: `advance(ms)` shows what comes so long after the last frame, and returns
// whether that is the end; at an end, and where the reader stops it, `tell()` is called. `start()` is
// called before the first frame. Where motion is unwelcome the button makes one `step()` at a press.
function makePlayer({ stepName, start = () => {}, advance, step, tell }) {
  const button = element("button", { type: "button" });
  let frame = 0;
  const nameButton = () => {
    button.textContent = prefersStillness() ? stepName : frame ? "Pause" : "Play";
  };
  const stop = () => {
    cancelAnimationFrame(frame);
    frame = 0;
  };
  const pause = () => {
    if (!frame) return;
    stop();
    nameButton();
    tell();
  };
  const play = () => {
    if (prefersStillness()) {
      step();
      return;
    }
    start();
    let before = performance.now();
    const next = (now) => {
      const isEnd = advance(Math.min(Math.max(now - before, 0), LONGEST_FRAME_MS));
      before = now;
      frame = requestAnimationFrame(next);
      if (isEnd) pause();
    };
    frame = requestAnimationFrame(next);
    nameButton();
  };
  button.addEventListener("click", () => (frame ? pause() : play()));
  return { button, nameButton, pause, stop };
}

// Say what a figure shows to who listens, once it rests.
function makeSpeaker(status) {
  let waiting = 0;
  const hush = () => clearTimeout(waiting);
  const say = (text) => {
    hush();
    waiting = setTimeout(() => {
      status.textContent = text();
    }, SPEAK_AFTER_MS);
  };
  return { say, hush };
}

// Call back with a step to the right and one upwards, as fractions of a range.
function onArrowKeys(input, move) {
  input.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    if (!arrow || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation(); // to a notebook, arrow keys mean other cells
    const step = KEY_STEP * (event.shiftKey ? 10 : 1);
    move(arrow.map((direction) => step * direction));
  });
}

// A slider with its name before it and its value behind, which `show(number, text)` sets.
function makeControl({ name, label, low, high }, move) {
  const input = element("input", {
    type: "range", step: "any", min: low, max: high, "aria-label": label,
  });
  const value = element("span", { class: "live-number", "aria-hidden": "true" });
  let current = low;
  const moveTo = (next) => move(Math.min(Math.max(next, low), high));
  onArrowKeys(input, ([right, up]) => moveTo(current + (right + up) * (high - low)));
  // Home, End, the page keys, a pointer, and what a screen reader does to a slider.
  input.addEventListener("input", () => moveTo(Number(input.value)));
  const show = (next, text) => {
    current = next;
    input.value = next;
    input.setAttribute("aria-valuetext", text);
    value.textContent = text;
  };
  const node = element(
    "div", { class: "live-control" }, element("span", { "aria-hidden": "true" }, name), input, value,
  );
  return { node, input, show };
}

// A name with what it means in the picture (a class that draws its key), and a number.
function makeReading(name, key = "") {
  const value = element("span", { class: "live-number" });
  const node = element(
    "div", { class: "live-reading" },
    element("span", {}, ...(key ? [element("span", { class: `live-key ${key}` })] : []), name), value,
  );
  return { node, show: (text) => { value.textContent = text; } };
}

// Let a mouse, a pen or a finger move handles within a surface. Each of `handles` has its `node`,
// the `input` that does the same for the keyboard, `place()`, where its centre is on the surface,
// and `moveTo(place)`. A press beside them brings the handle that `choose(place)` gives, and so
// does a tap, by `tap(place)`: a finger beside them may be about to scroll the page.
function makeDraggable(surface, handles, { choose, tap }) {
  const isHandle = (node) => handles.some((handle) => handle.node.contains(node));
  const placeOf = (event) => {
    const box = surface.getBoundingClientRect();
    return [
      event.clientX - box.left - surface.clientLeft,
      event.clientY - box.top - surface.clientTop,
    ];
  };
  // Handles may lie on one another: the nearest is meant, of equally near ones the first.
  const nearest = (place) => {
    const distances = handles.map((handle) => Math.hypot(...minus(handle.place(), place)));
    return handles[distances.indexOf(Math.min(...distances))];
  };
  for (const { node, input } of handles) {
    input.addEventListener("focus", () => node.classList.add("live-focused"));
    input.addEventListener("blur", () => node.classList.remove("live-focused"));
  }
  let held = null;
  let grip = null; // where, relative to its centre, the pointer holds the handle
  surface.addEventListener("pointerdown", (event) => {
    const onHandle = isHandle(event.target);
    if (held || event.button !== 0 || (event.pointerType === "touch" && !onHandle)) return;
    event.preventDefault();
    surface.setPointerCapture(event.pointerId);
    const place = placeOf(event);
    held = onHandle ? nearest(place) : choose(place);
    const centre = onHandle ? held.place() : place;
    grip = minus(place, centre);
    surface.classList.add("live-held");
    held.input.focus({ preventScroll: true });
    held.moveTo(centre);
  });
  surface.addEventListener("pointermove", (event) => {
    if (held) held.moveTo(minus(placeOf(event), grip));
  });
  for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) {
    surface.addEventListener(type, () => {
      held = null;
      surface.classList.remove("live-held");
    });
  }
  surface.addEventListener("click", (event) => {
    if (event.pointerType === "touch" && !isHandle(event.target)) tap(placeOf(event));
  });
  // A drag that ends with speed counts as a fling even where `touch-action` forbids scrolling, and
  // the browser takes the next tap as one that stops the fling: it would come without a click.
  for (const { node } of handles) {
    node.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  }
}

function minus(a, b) {
  return a.map((coordinate, i) => coordinate - b[i]);
}

// Draw lines at round numbers, and the numbers at the edges, of a plane of this width and height.
// Axes are the horizontal one, then perhaps the vertical one; each has its ends, `place(number)` on
// the screen, a name, and perhaps round numbers of its own.
function drawAxes(group, width, height, ...axes) {
  const made = [];
  for (const [axis, { low, high, place, name, count = 6, round }] of axes.entries()) {
    const extent = axis ? height : width;
    const { ticks, digits } = round ?? roundTicks(low, high, count);
    for (const tick of ticks) {
      const at = place(tick);
      made.push(svgElement("line", axis
        ? { x1: 0, x2: width, y1: at, y2: at }
        : { x1: at, x2: at, y1: 0, y2: height }));
      // Numbers that would touch the corner, or the other axis's name, are left out.
      if (at < 26 || at > extent - (axis ? 26 : 10 + 9 * name.length)) continue;
      const label = svgElement("text", axis
        ? { x: 5, y: at, dy: "-0.3em" }
        : { x: at, y: height - 5, dx: 3 });
      label.textContent = formatNumber(tick, digits);
      made.push(label);
    }
    const label = svgElement("text", axis
      ? { x: 6, y: 15, class: "live-axis" }
      : { x: width - 7, y: height - 6, class: "live-axis", "text-anchor": "end" });
    label.textContent = name;
    made.push(label);
  }
  group.replaceChildren(...made);
}
