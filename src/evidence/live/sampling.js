// Particles go from noise to data, by DDIM or by the ancestral sampler, with a score that is exact or
// learned.

const PLAY_MS = 5000; // from noise to data
const BUSY_MS = 14; // of a frame, at most about so long is spent on states
const TOGETHER = 4; // particles that share each weight that is read
const CONTOUR_PIXELS = 480;
const RUN_TICKS = [5, 10, 20, 50, 100];
const DISTANCES = [0.002, 0.5]; // shown among the runs
const DISTANCE_TICKS = [0.003, 0.01, 0.03, 0.1, 0.3];
const NAMES = ["num_steps", "eta", "walked", "seed"];
const CHOICES = {
  score: [
    { value: "exact", label: "exact" },
    { value: "learned", label: "learned" },
  ],
  method: [
    { value: "ddim", label: "DDIM" },
    {
      value: "posterior", label: "DDPM \u03b2\u0303",
      name: "DDPM \u03b2\u0303, ancestral with the posterior variance",
    },
    { value: "beta", label: "DDPM \u03b2", name: "DDPM \u03b2, ancestral with the variance beta" },
  ],
};

const sigmoid = (value) => 1 / (1 + Math.exp(-value));

// The cosine schedule of continuous time, at T steps from one log-SNR to the other, indexed by t.
function makeSchedule(count, [highest, lowest]) {
  const [start, end] = [highest, lowest].map((logSnr) => Math.atan(Math.exp(-logSnr / 2)));
  const logSnr = [Infinity];
  for (let t = 1; t <= count; t++) {
    const tau = (t - 1) / (count - 1);
    logSnr.push(-2 * Math.log(Math.tan((1 - tau) * start + tau * end)));
  }
  return logSnr;
}

// What a step from t takes of its state, of the predicted noise and of fresh noise; from t = 1, the
// last step, it takes no fresh noise.
function makeCoefficients(logSnr, method, eta) {
  const alphaBar = logSnr.map(sigmoid); // 1 at t = 0
  const noiseShare = logSnr.map((value) => sigmoid(-value));
  return logSnr.map((value, t) => {
    if (t === 0) return null;
    const [before, here] = [alphaBar[t - 1], alphaBar[t]];
    const logAlpha = Math.log(here) - Math.log(before);
    const beta = -Math.expm1(logAlpha);
    const posterior = (beta * noiseShare[t - 1]) / noiseShare[t];
    const keep = Math.exp(-logAlpha / 2);
    if (method !== "ddim") {
      return {
        keep, ofEps: (-keep * beta) / Math.sqrt(noiseShare[t]),
        fresh: t === 1 ? 0 : Math.sqrt(method === "beta" ? beta : posterior),
      };
    }
    const variance = eta * eta * posterior;
    const direction = Math.max(0, noiseShare[t - 1] - variance);
    return {
      keep, ofEps: Math.sqrt(direction) - Math.sqrt(before) * Math.exp(-value / 2),
      fresh: t === 1 ? 0 : Math.sqrt(variance),
    };
  });
}

// All arrays of points are flat: the first point's two coordinates, the second's, and so on.
// E[eps | x] of a mixture of Gaussians in the plane.
function makeExact({ weights, means, covs }) {
  return (x, logSnr, out) => {
    const [signal, noiseShare] = [sigmoid(logSnr), sigmoid(-logSnr)];
    const [a, sigma] = [Math.sqrt(signal), Math.sqrt(noiseShare)];
    const parts = weights.map((weight, k) => {
      const [[xx, xy], [, yy]] = covs[k].map((row) => row.map((value) => signal * value));
      const determinant = (xx + noiseShare) * (yy + noiseShare) - xy * xy;
      return {
        m0: a * means[k][0], m1: a * means[k][1],
        i00: (yy + noiseShare) / determinant, i01: -xy / determinant,
        i11: (xx + noiseShare) / determinant,
        height: Math.log(weight) - 0.5 * Math.log(determinant),
      };
    });
    const [logs, us] = [new Float64Array(parts.length), new Float64Array(2 * parts.length)];
    for (let i = 0; i < x.length; i += 2) {
      let most = -Infinity;
      for (let k = 0; k < parts.length; k++) {
        const { m0, m1, i00, i01, i11, height } = parts[k];
        const [dx, dy] = [x[i] - m0, x[i + 1] - m1];
        us[2 * k] = i00 * dx + i01 * dy;
        us[2 * k + 1] = i01 * dx + i11 * dy;
        logs[k] = height - 0.5 * (us[2 * k] * dx + us[2 * k + 1] * dy);
        most = Math.max(most, logs[k]);
      }
      let [total, u0, u1] = [0, 0, 0];
      for (let k = 0; k < parts.length; k++) {
        const share = Math.exp(logs[k] - most);
        total += share;
        u0 += share * us[2 * k];
        u1 += share * us[2 * k + 1];
      }
      out[i] = (sigma * u0) / total;
      out[i + 1] = (sigma * u1) / total;
    }
  };
}

// The residual network that predicts eps, in float64 with weights in float16.
function makeLearned({ hidden, blocks, condition, norm_eps: normEps }, view) {
  const numbers = readFloat16(view);
  let offset = 0;
  const take = (inputs, outputs) => {
    const weights = Float64Array.from(numbers.subarray(offset, offset += inputs * outputs));
    const bias = Float64Array.from(numbers.subarray(offset, offset += outputs));
    return { inputs, outputs, weights, bias };
  };
  const [early, late] = [take(condition, condition), take(condition, condition)];
  const first = take(2, hidden);
  const parts = Array.from({ length: blocks }, () => ({
    modulate: take(condition, 2 * hidden), first: take(hidden, hidden), second: take(hidden, hidden),
  }));
  const last = take(hidden, 2);
  if (offset !== numbers.length) {
    throw new Error(`the network needs ${offset} weights, but there are ${numbers.length}`);
  }

  // Four columns at once, side by side: each weight is read once for all of them.
  const apply = ({ inputs, outputs, weights, bias }, x, y) => {
    for (let row = 0, w = 0; row < outputs; row++) {
      let s0 = bias[row];
      let [s1, s2, s3] = [s0, s0, s0];
      for (let i = 0; i < TOGETHER * inputs; i += TOGETHER) {
        const weight = weights[w++];
        s0 += weight * x[i];
        s1 += weight * x[i + 1];
        s2 += weight * x[i + 2];
        s3 += weight * x[i + 3];
      }
      y[TOGETHER * row] = s0;
      y[TOGETHER * row + 1] = s1;
      y[TOGETHER * row + 2] = s2;
      y[TOGETHER * row + 3] = s3;
    }
  };
  const activate = (x) => {
    for (let i = 0; i < x.length; i++) x[i] /= 1 + Math.exp(-x[i]);
  };
  const wide = (length) => new Float64Array(TOGETHER * length);
  const [embedded, between, told] = [wide(condition), wide(condition), wide(condition)];
  const [point, h, normed, inner, change, answer] = [
    wide(2), wide(hidden), wide(hidden), wide(hidden), wide(hidden), wide(2),
  ];
  const scales = parts.map(() => wide(2 * hidden));

  // All particles have one log-SNR; it is told in all four columns.
  function tell(logSnr) {
    const half = condition / 2;
    for (let i = 0; i < half; i++) {
      const angle = logSnr * ((2 * Math.PI) / (64 * (2 / 64) ** (i / (half - 1))));
      embedded.fill(Math.sin(angle), TOGETHER * i, TOGETHER * (i + 1));
      embedded.fill(Math.cos(angle), TOGETHER * (half + i), TOGETHER * (half + i + 1));
    }
    apply(early, embedded, between);
    activate(between);
    apply(late, between, told);
    activate(told);
    parts.forEach(({ modulate }, i) => apply(modulate, told, scales[i]));
  }
  function normalise(scale) {
    for (let column = 0; column < TOGETHER; column++) {
      let [mean, variance] = [0, 0];
      for (let i = column; i < h.length; i += TOGETHER) mean += h[i];
      mean /= hidden;
      for (let i = column; i < h.length; i += TOGETHER) variance += (h[i] - mean) ** 2;
      const per = 1 / Math.sqrt(variance / hidden + normEps);
      for (let i = column; i < h.length; i += TOGETHER) {
        normed[i] = (h[i] - mean) * per * (1 + scale[i]) + scale[h.length + i];
      }
    }
  }
  return (x, logSnr, out) => {
    tell(logSnr);
    for (let start = 0; start < x.length; start += 2 * TOGETHER) {
      const count = Math.min(TOGETHER, (x.length - start) / 2);
      for (let i = 0; i < 2 * TOGETHER; i++) {
        const column = Math.min(i % TOGETHER, count - 1);
        point[i] = x[start + 2 * column + Math.floor(i / TOGETHER)];
      }
      apply(first, point, h);
      parts.forEach((part, i) => {
        normalise(scales[i]);
        apply(part.first, normed, inner);
        activate(inner);
        apply(part.second, inner, change);
        for (let j = 0; j < h.length; j++) h[j] += change[j];
      });
      activate(h);
      apply(last, h, answer);
      for (let i = 0; i < 2 * count; i++) {
        out[start + i] = answer[TOGETHER * (i % 2) + Math.floor(i / 2)];
      }
    }
  };
}

// Walk from the start to the data: each call of `next` takes one step. States are indexed by t.
// Noise is there in one piece, the start first, then what each step adds.
function* walk(predict, logSnr, coefficients, eps, size) {
  const count = logSnr.length - 1;
  const states = new Array(count + 1);
  states[count] = Float64Array.from(eps.subarray(0, size));
  const predicted = new Float64Array(size);
  for (let t = count; t > 0; t--) {
    const [x, next] = [states[t], new Float64Array(size)];
    predict(x, logSnr[t], predicted);
    const { keep, ofEps, fresh } = coefficients[t];
    const from = (count - t + 1) * size;
    for (let i = 0; i < size; i++) {
      next[i] = keep * x[i] + ofEps * predicted[i];
      if (fresh > 0) next[i] += fresh * eps[from + i];
    }
    states[t - 1] = next;
    yield states;
  }
}

function meanDistance(x, y) {
  let sum = 0;
  for (let i = 0; i < x.length; i += 2) {
    const [x0, x1] = [x[i], x[i + 1]];
    for (let j = 0; j < y.length; j += 2) {
      const dx = x0 - y[j];
      const dy = x1 - y[j + 1];
      sum += Math.sqrt(dx * dx + dy * dy);
    }
  }
  return sum / (x.length / 2) / (y.length / 2);
}

function energyDistance(x, y, withinY = meanDistance(y, y)) {
  return 2 * meanDistance(x, y) - meanDistance(x, x) - withinY;
}

// Of each component as many points as its weight says.
function makeReference({ weights, means, covs }, count, seed) {
  const eps = makeNoise(seed, 2 * count);
  const points = new Float64Array(2 * count);
  let i = 0;
  weights.forEach((weight, k) => {
    const [[xx, xy], [, yy]] = covs[k];
    const root = Math.sqrt(xx);
    const rest = Math.sqrt(yy - (xy / root) ** 2);
    for (const end = i + 2 * Math.round(count * weight); i < end; i += 2) {
      points[i] = means[k][0] + root * eps[i];
      points[i + 1] = means[k][1] + (xy / root) * eps[i] + rest * eps[i + 1];
    }
  });
  return points;
}

function spreadOf(x) {
  let total = 0;
  for (const axis of [0, 1]) {
    let [mean, variance] = [0, 0];
    for (let i = axis; i < x.length; i += 2) mean += x[i];
    mean /= x.length / 2;
    for (let i = axis; i < x.length; i += 2) variance += (x[i] - mean) ** 2;
    total += variance / (x.length / 2);
  }
  return Math.sqrt(total / 2);
}

// At this share of the way, the state that is nearest.
const stepAt = (walked, count) => Math.floor((1 - walked) * count + 0.5);

function render({ model, el }) {
  const ranges = NAMES.map((name) => model.get("ranges")[name]);
  const [leastSteps, mostSteps] = ranges[0];
  const data = model.get("mixture");
  const { particles, reference, reference_seed: referenceSeed, fresh, paths, shown, levels } =
    model.get("numbers");
  const size = 2 * particles;
  const predictors = {
    exact: makeExact(data), learned: makeLearned(model.get("network"), model.get("weights")),
  };
  const target = makeReference(data, reference, referenceSeed);
  const withinTarget = meanDistance(target, target);
  const distanceTo = (x) => energyDistance(x, target, withinTarget);
  const clamp = (value, [low, high]) => Math.min(Math.max(value, low), high);
  const indexOf = (name, value) => CHOICES[name].findIndex((choice) => choice.value === value);
  // The number of steps, eta, how far walked, the seed, which score and which method.
  const told = () => [
    ...NAMES.map((name) => model.get(name)),
    ...Object.keys(CHOICES).map((name) => indexOf(name, model.get(name))),
  ];
  const inRange = (numbers) => numbers.map((number, i) => {
    const within = ranges[i] ? clamp(number, ranges[i]) : number;
    return i === 1 || i === 2 ? within : Math.round(within);
  });
  const scoreOf = (numbers) => CHOICES.score[numbers[4]].value;
  const methodOf = (numbers) => CHOICES.method[numbers[5]].value;

  // What is on the page.
  const ground = element("canvas", {
    class: "sp-ground", width: CONTOUR_PIXELS, height: CONTOUR_PIXELS,
  });
  const dots = element("canvas", { class: "sp-dots" });
  const ticks = svgElement("g", { class: "live-ticks" });
  const overlay = svgElement("svg", {}, ticks);
  const surface = element(
    "div", { class: "live-plane sp-plane", role: "img", "aria-label": "Particles on their way" },
    element("div", { class: "live-drawing", "aria-hidden": "true" }, ground, overlay, dots),
  );
  const runTicks = svgElement("g", { class: "live-ticks" });
  const freshArea = svgElement("rect", { class: "sp-fresh" });
  const freshText = svgElement("text", { class: "live-label sp-small", "text-anchor": "end" });
  freshText.append("19 of 20 fresh draws of the data");
  const runMarks = svgElement("g", {});
  const runOverlay = svgElement("svg", {}, freshArea, runTicks, freshText, runMarks);
  const runPlane = element(
    "div", { class: "live-plane sp-runs", "aria-hidden": "true" },
    element("div", { class: "live-drawing" }, runOverlay),
  );
  const change = (i) => (value) => moveTo(values.map((old, j) => (i === j ? value : old)));
  const groups = Object.entries(CHOICES).map(([name, choices], g) => choices.map(
    ({ label, name: said = label }, i) => {
      const button = element("button", { type: "button", "aria-label": said }, label);
      button.addEventListener("click", () => change(4 + g)(i));
      return button;
    },
  ));
  const groupNode = (name, label, buttons) => element(
    "div", { class: "sp-choices", role: "group", "aria-label": label },
    element("span", { "aria-hidden": "true" }, name), ...buttons,
  );
  const eta = makeControl({
    name: "\u03b7", label: "Eta, the share of noise in a step", low: ranges[1][0],
    high: ranges[1][1],
  }, change(1));
  const stepsControl = makeControl({
    name: "steps", label: "Number of steps", low: leastSteps, high: mostSteps,
  }, change(0));
  const time = makeControl({
    name: "time", label: "Time, from noise to data", low: 0, high: 1,
  }, (walked) => {
    player.pause();
    change(2)(walked);
  });
  // From noise to data in five seconds; where motion is unwelcome, step by step.
  const walkTo = (walked) => values.map((old, i) => (i === 2 ? walked : old));
  const player = makePlayer({
    stepName: "Next step",
    start: () => {
      if (values[2] === 1) show(walkTo(0));
    },
    advance: (ms) => {
      show(walkTo(Math.min(values[2] + ms / PLAY_MS, 1)));
      return values[2] === 1;
    },
    step: () => {
      const [count, , walked] = values;
      const t = stepAt(walked, count);
      change(2)(t === 0 ? 0 : 1 - (t - 1) / count);
    },
    tell: () => tell(),
  });
  const newButton = element("button", { type: "button" }, "New noise");
  const readings = {
    logSnr: makeReading("log SNR at t"), distance: makeReading("energy distance at t"),
    spread: makeReading("spread at t (data: 1)"), end: makeReading("energy distance at the end"),
  };
  const verdict = element("div", { class: "live-verdict" });
  const status = element("div", { class: "live-unseen", role: "status" });
  const root = element(
    "div", { class: "live-root", role: "group", "aria-label": "Sampling: from noise to data" },
    element(
      "div", { class: "live-grid sp-grid" },
      surface,
      element(
        "div", { class: "live-side" },
        groupNode("score", "Score", groups[0]), groupNode("rule", "Sampling rule", groups[1]),
        eta.node, stepsControl.node,
        element("hr", { class: "live-rule" }),
        time.node,
        element("div", { class: "sp-buttons" }, player.button, newButton),
        element("hr", { class: "live-rule" }),
        ...["logSnr", "distance", "spread"].map((name) => readings[name].node),
        element("hr", { class: "live-rule" }),
        readings.end.node, verdict,
      ),
      element("div", { class: "live-wide sp-account" }, runPlane),
      element(
        "div", { class: "live-note" },
        "Below the particles: each run that you make, with its number of steps and the energy "
          + "distance where it ends (squares: learned score; blue: \u03b7 = 0, red: \u03b7 = 1). "
          + "Sliders follow the arrow keys too, with Shift for longer steps.",
      ),
    ),
    status,
  );
  mount(model, el, root);

  // From numbers to places on the screen.
  let width = 0;
  const across = (x) => ((x + shown) / (2 * shown)) * width;
  const upwards = (y) => ((shown - y) / (2 * shown)) * width;
  let [runWidth, runHeight] = [0, 0];
  const share = (value, [low, high]) => Math.log(value / low) / Math.log(high / low);
  const alongRuns = (count) => 14 + share(count, [leastSteps, mostSteps]) * (runWidth - 28);
  const upRuns = (value) => (
    (1 - share(clamp(value, DISTANCES), DISTANCES)) * (runHeight - 26) + 6
  );

  // Bands of the data's density: one shade more at each level.
  function drawGround() {
    const predict = (x, y) => data.weights.reduce((sum, weight, k) => {
      const [[xx, xy], [, yy]] = data.covs[k];
      const [dx, dy] = [x - data.means[k][0], y - data.means[k][1]];
      const determinant = xx * yy - xy * xy;
      const square = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / determinant;
      return sum + (weight * Math.exp(-0.5 * square)) / Math.sqrt(determinant);
    }, 0);
    const density = new Float64Array(CONTOUR_PIXELS ** 2);
    const at = (i) => shown * ((2 * (i + 0.5)) / CONTOUR_PIXELS - 1);
    for (let row = 0; row < CONTOUR_PIXELS; row++) {
      for (let column = 0; column < CONTOUR_PIXELS; column++) {
        density[row * CONTOUR_PIXELS + column] = predict(at(column), -at(row));
      }
    }
    const most = density.reduce((a, b) => Math.max(a, b), 0);
    const context = ground.getContext("2d");
    const image = context.createImageData(CONTOUR_PIXELS, CONTOUR_PIXELS);
    const color = computedColor(ground);
    const band = (value) => levels.filter((level) => value >= level * most).length;
    density.forEach((value, i) => {
      const here = band(value);
      // An edge is where the next pixel to the right or below is in another band.
      const isEdge = here !== band(density[i + 1] ?? 0)
        || here !== band(density[i + CONTOUR_PIXELS] ?? 0);
      image.data.set([...color, here || isEdge ? 22 * here + (isEdge ? 45 : 0) : 0], 4 * i);
    });
    context.putImageData(image, 0, 0);
  }

  let ink = "";
  let trace = "";
  function drawBackground() {
    width = surface.clientWidth;
    if (!width) return; // not on the page yet
    const ratio = window.devicePixelRatio || 1;
    dots.width = dots.height = Math.round(width * ratio);
    dots.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    overlay.setAttribute("viewBox", `0 0 ${width} ${width}`);
    drawAxes(
      ticks, width, width,
      { low: -shown, high: shown, place: across, name: "x\u2081", count: 6 },
      { low: -shown, high: shown, place: upwards, name: "x\u2082", count: 6 },
    );
    drawGround();
    [ink, trace] = [computedColor(root), computedColor(dots)].map((rgb) => `rgb(${rgb})`);
    [runWidth, runHeight] = [runPlane.clientWidth, runPlane.clientHeight];
    runOverlay.setAttribute("viewBox", `0 0 ${runWidth} ${runHeight}`);
    drawAxes(
      runTicks, runWidth, runHeight,
      { place: alongRuns, name: "number of steps", round: { ticks: RUN_TICKS, digits: 0 } },
      { place: upRuns, name: "energy distance at the end", round: { ticks: DISTANCE_TICKS, digits: 3 } },
    );
    setAttributes(freshArea, {
      x: 0, width: runWidth, y: upRuns(fresh), height: Math.max(runHeight - upRuns(fresh), 0),
    });
    setAttributes(freshText, { x: runWidth - 8, y: runHeight - 26 });
    drawRuns();
    player.nameButton();
    show(values);
  }

  // Each run that was made, until the noise is another.
  let runs = new Map();
  function drawRuns() {
    runMarks.replaceChildren(...[...runs.values()].map(({ count, mixed, isLearned, end }) => {
      const [x, y] = [alongRuns(count), upRuns(end)];
      const mark = isLearned
        ? svgElement("rect", { x: x - 4.5, y: y - 4.5, width: 9, height: 9 })
        : svgElement("circle", { cx: x, cy: y, r: 4.5 });
      mark.setAttribute("class", "sp-run");
      mark.style.setProperty("--sp-noise", `${100 * mixed}%`);
      return mark;
    }));
    runMarks.lastChild?.classList.add("sp-latest");
  }

  // The run that is shown, and the one that is being computed.
  let values = inRange(told());
  let run = null;
  let pending = null;
  let working = 0;
  let [noiseSeed, eps] = [NaN, null];
  const keyOf = (numbers) => numbers.filter((_, i) => (
    i !== 2 && (i !== 1 || methodOf(numbers) === "ddim")
  )).join();
  function begin(key) {
    const [count, noiseShare, , seed] = values;
    if (seed !== noiseSeed) {
      noiseSeed = seed;
      eps = makeNoise(seed, (mostSteps + 1) * size);
      runs = new Map();
    }
    const logSnr = makeSchedule(count, model.get("log_snr_range"));
    const method = methodOf(values);
    const coefficients = makeCoefficients(logSnr, method, noiseShare);
    pending = {
      key, logSnr, count,
      mixed: method === "ddim" ? noiseShare : 1,
      isLearned: scoreOf(values) === "learned",
      steps: walk(predictors[scoreOf(values)], logSnr, coefficients, eps, size),
    };
  }
  // Go on with the run that is being computed, for a part of a frame.
  function work() {
    const began = performance.now();
    do {
      const { value, done } = pending.steps.next();
      if (done) {
        pending.end = distanceTo(pending.states[0]);
        run = pending;
        pending = null;
        runs.delete(run.key);
        runs.set(run.key, run);
        return;
      }
      pending.states = value;
    } while (performance.now() - began < BUSY_MS);
  }
  function keepWorking() {
    working = 0;
    if (!pending) return;
    work();
    if (!pending) {
      drawRuns();
      show(values);
    }
    else working = requestAnimationFrame(keepWorking);
  }

  function drawParticles(walked) {
    const { states, count } = run;
    const place = (1 - walked) * count; // between two states
    const late = Math.floor(place);
    const part = place - late;
    const coordinate = (i) => (
      part ? (1 - part) * states[late][i] + part * states[late + 1][i] : states[late][i]
    );
    const context = dots.getContext("2d");
    context.clearRect(0, 0, width, width);
    context.strokeStyle = trace;
    context.lineWidth = 1.1;
    context.globalAlpha = 0.75;
    for (let i = 0; i < 2 * paths; i += 2) {
      context.beginPath();
      for (let t = count; t >= place; t--) {
        context.lineTo(across(states[t][i]), upwards(states[t][i + 1]));
      }
      context.lineTo(across(coordinate(i)), upwards(coordinate(i + 1)));
      context.stroke();
    }
    const radius = Math.max(1.6, width / 230);
    for (let i = size - 2; i >= 0; i -= 2) {
      const isTraced = i < 2 * paths;
      context.fillStyle = isTraced ? trace : ink;
      context.globalAlpha = isTraced ? 1 : 0.7;
      context.beginPath();
      context.arc(
        across(coordinate(i)), upwards(coordinate(i + 1)), isTraced ? 1.6 * radius : radius,
        0, 2 * Math.PI,
      );
      context.fill();
    }
  }

  function show(next) {
    values = inRange(next);
    if (!width) return;
    const [count, noiseShare, walked] = values;
    const key = keyOf(values);
    if (run?.key !== key && pending?.key !== key) {
      begin(key);
      work();
      if (!pending) drawRuns();
    } else if (run?.key === key) pending = null;
    if (pending && !working) working = requestAnimationFrame(keepWorking);
    root.classList.toggle("sp-busy", pending !== null);

    stepsControl.show(count, String(count));
    eta.show(noiseShare, formatNumber(noiseShare, 2));
    const isIdle = methodOf(values) !== "ddim";
    eta.input.disabled = isIdle;
    eta.node.classList.toggle("sp-idle", isIdle);
    groups.forEach((buttons, g) => buttons.forEach((button, i) => {
      button.setAttribute("aria-pressed", String(values[4 + g] === i));
    }));
    const t = stepAt(walked, count);
    time.show(walked, `t = ${t}`);
    if (!run) {
      verdict.textContent = "Computing\u2026";
      return;
    }
    drawParticles(walked);
    const here = stepAt(walked, run.count);
    const state = run.states[here];
    readings.logSnr.show(here ? formatNumber(run.logSnr[here], 2) : "\u221e");
    readings.distance.show(formatNumber(here ? distanceTo(state) : run.end, 4));
    readings.spread.show(formatNumber(spreadOf(state), 3));
    readings.end.show(formatNumber(run.end, 4));
    verdict.textContent = pending ? "Computing\u2026" : run.end < fresh
      ? "As near as fresh data" : "Farther than fresh data";
    if (pending) return;
    speaker.say(() => (
      `${count} steps, t = ${here}: energy distance ${formatNumber(distanceTo(state), 4)}; at the `
        + `end ${formatNumber(run.end, 4)}: ${verdict.textContent.toLowerCase()}`
    ));
  }
  const traits = [...NAMES, ...Object.keys(CHOICES)];
  const { moveTo, tell, leave } = makeMover(model, traits, {
    read: told,
    write: () => ({
      ...Object.fromEntries(NAMES.map((name, i) => [name, values[i]])),
      score: scoreOf(values), method: methodOf(values),
    }),
    inRange,
    show,
  });
  const speaker = makeSpeaker(status);

  newButton.addEventListener("click", () => change(3)((values[3] + 1) % (ranges[3][1] + 1)));

  const stopDrawing = keepDrawn(root, surface, drawBackground);

  return () => {
    player.stop();
    cancelAnimationFrame(working);
    stopDrawing();
    leave();
    speaker.hush();
  };
}

export {
  energyDistance, makeCoefficients, makeExact, makeLearned, makeNoise, makeReference, makeSchedule,
  spreadOf, walk,
};
export default { render };
