// The forward process: a digit and a cloud of points at the reader's t, and the schedule's curves.

const CURVE_POINTS = 300;
const LOG_SNRS = [-12, 15]; // shown
const SIGNALS = [-0.08, 1.12];
const NAMES = ["share", "digit", "seed"];
const KINDS = ["linear", "short", "cosine"];
const LABELS = {
  linear: "linear, 1000 steps", short: "short: linear, 300 steps", cosine: "cosine, 1000 steps",
};
const ARRIVED = 0.1; // nats for a whole digit

const sigmoid = (value) => 1 / (1 + Math.exp(-value));

// The log-SNR of a chain whose steps add variances beta_1, beta_2, ...; indexed by t.
function fromBetas(betas) {
  let logAlphaBar = 0;
  return [Infinity, ...betas.map((beta) => {
    logAlphaBar += Math.log1p(-beta);
    return logAlphaBar - Math.log(-Math.expm1(logAlphaBar));
  })];
}

function makeSchedule(kind, count, [first, last], [offset, largest]) {
  const every = Array.from({ length: count }, (_, i) => i);
  if (kind !== "cosine") {
    return fromBetas(every.map((i) => first + ((last - first) * i) / (count - 1)));
  }
  const f = (t) => Math.cos(((t / count + offset) / (1 + offset)) * (Math.PI / 2)) ** 2;
  return fromBetas(every.map((i) => Math.min(1 - f(i + 1) / f(i), largest)));
}

// The mean over all pixels of the divergence of N(a x, s^2) from N(0, 1), in nats.
function endKl(x, logSnr) {
  const [signal, noiseShare] = [sigmoid(logSnr), sigmoid(-logSnr)];
  const square = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  return 0.5 * (signal * (square - 1) - Math.log(noiseShare));
}

// Signal and noise, mixed; all numbers in one array.
function mix(x, eps, logSnr) {
  const [a, s] = [Math.sqrt(sigmoid(logSnr)), Math.sqrt(sigmoid(-logSnr))];
  return Float64Array.from(x, (value, i) => a * value + s * eps[i]);
}

const stepAt = (share, count) => Math.floor(share * count + 0.5);

// Three digits that count, with a power of ten where there would be many zeros.
function formatSize(value) {
  if (!Number.isFinite(value)) return "\u221e";
  const power = Math.floor(Math.log10(value));
  if (power >= -3 && power < 4) return formatNumber(value, Math.max(2 - power, 0));
  const raised = [...String(power)].map((digit) => (
    digit === "-" ? "\u207b" : "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[digit]
  ));
  return `${(value / 10 ** power).toFixed(2)}\u00b710${raised.join("")}`;
}

function render({ model, el }) {
  const lengths = model.get("lengths");
  const size = model.get("size");
  const pixels = size * size;
  const [shown, inkRange] = model.get("shown");
  const logSnrs = Object.fromEntries(KINDS.map((kind) => (
    [kind, makeSchedule(kind, lengths[kind], model.get("betas"), model.get("cosine"))]
  )));
  const levels = readUint8(model.get("images"));
  const digits = Array.from({ length: levels.length / pixels }, (_, i) => Float64Array.from(
    levels.subarray(i * pixels, (i + 1) * pixels), (level) => (level * 2) / 255 - 1,
  ));
  const pointsView = model.get("points");
  const cloud = Float64Array.from(
    { length: pointsView.byteLength / 4 }, (_, i) => pointsView.getFloat32(4 * i, true),
  );
  const clamp = (value, [low, high]) => Math.min(Math.max(value, low), high);
  const ranges = NAMES.map((name) => model.get("ranges")[name]);
  // t / T, the digit, the seed, and which schedule.
  const told = () => [
    ...NAMES.map((name) => model.get(name)), KINDS.indexOf(model.get("schedule")),
  ];
  const inRange = (numbers) => numbers.map((number, i) => {
    const within = ranges[i] ? clamp(number, ranges[i]) : number;
    return i ? Math.round(within) : within;
  });

  // What is on the page.
  const image = element("canvas", {
    class: "fw-image", width: size, height: size, role: "img", "aria-label": "The digit at t",
  });
  const dots = element("canvas", { class: "fw-dots" });
  const cloudPlane = element(
    "div", { class: "live-plane fw-cloud", role: "img", "aria-label": "The cloud of points at t" },
    element("div", { class: "live-drawing", "aria-hidden": "true" }, dots),
  );
  const ticks = [svgElement("g", { class: "live-ticks" }), svgElement("g", { class: "live-ticks" })];
  const curves = KINDS.map(() => [0, 1].map(() => svgElement("path", { class: "fw-curve" })));
  const guide = svgElement("line", { class: "fw-guide" });
  const lower = svgElement("g", {}, ticks[1], ...curves.map((pair) => pair[1]));
  const here = svgElement("circle", { class: "fw-here", r: 5.5 });
  const border = svgElement("line", { class: "fw-border" });
  const overlay = svgElement(
    "svg", {}, ticks[0], ...curves.map((pair) => pair[0]), lower, border, guide, here,
  );
  const node = element("div", { class: "live-handle fw-handle" });
  const surface = element(
    "div", { class: "live-plane fw-plane", role: "group", "aria-label": "Schedules over t" },
    element("div", { class: "live-drawing", "aria-hidden": "true" }, overlay), node,
  );
  const change = (i) => (value) => moveTo(values.map((old, j) => (i === j ? value : old)));
  const choices = KINDS.map((kind, i) => {
    const button = element("button", { type: "button", "aria-label": LABELS[kind] }, kind);
    button.addEventListener("click", () => change(3)(i));
    return button;
  });
  const time = makeControl({
    name: "time t", label: "Time t over T", low: 0, high: 1,
  }, change(0));
  const digitButton = element("button", { type: "button" }, "Another digit");
  const noiseButton = element("button", { type: "button" }, "New noise");
  digitButton.addEventListener("click", () => change(1)((values[1] + 1) % digits.length));
  noiseButton.addEventListener("click", () => change(2)((values[2] + 1) % (ranges[2][1] + 1)));
  const readings = {
    step: makeReading("step t of T"), alphaBar: makeReading("signal\u2019s share \u1fb1\u209c"),
    snr: makeReading("SNR"), logSnr: makeReading("log SNR \u03bb\u209c"),
    pixel: makeReading("per pixel"), whole: makeReading("this digit, 784 pixels"),
  };
  const verdict = element("div", { class: "live-verdict" });
  const status = element("div", { class: "live-unseen", role: "status" });
  const root = element(
    "div", { class: "live-root", role: "group", "aria-label": "The forward process" },
    element(
      "div", { class: "live-grid fw-grid" },
      element("div", { class: "fw-left" }, element("div", { class: "fw-pair" }, image, cloudPlane), surface),
      element(
        "div", { class: "live-side" },
        element("div", { class: "live-heading" }, "Schedule"),
        element("div", { class: "fw-choices", role: "group", "aria-label": "Schedule" }, ...choices),
        time.node,
        element("div", { class: "fw-buttons" }, digitButton, noiseButton),
        element("hr", { class: "live-rule" }),
        ...["step", "alphaBar", "snr", "logSnr"].map((name) => readings[name].node),
        element("hr", { class: "live-rule" }),
        element("div", { class: "live-heading" }, "KL of q(x", element("sub", {}, "T"), "|x",
          element("sub", {}, "0"), ") from N(0, I), nats"),
        readings.pixel.node, readings.whole.node, verdict,
      ),
      element(
        "div", { class: "live-note" },
        "Drag the disc along the curve, press anywhere among the curves, or use the slider (arrow "
          + "keys, with Shift for longer steps). Curves of the other two schedules are thin.",
      ),
    ),
    status,
  );
  mount(model, el, root);

  // From numbers to places on the screen; signals above, log-SNRs below.
  let [width, height] = [0, 0];
  const margin = 16;
  const across = (share) => margin + share * (width - 2 * margin);
  const half = () => (height - 20) / 2;
  const upSignal = (value) => half() * (1 - (value - SIGNALS[0]) / (SIGNALS[1] - SIGNALS[0]));
  const upLog = (value) => half() * (
    2 - (clamp(value, LOG_SNRS) - LOG_SNRS[0]) / (LOG_SNRS[1] - LOG_SNRS[0])
  );
  const signalAt = (logSnr) => Math.sqrt(sigmoid(logSnr));

  let ink = [0, 0, 0];
  function drawBackground() {
    [width, height] = [surface.clientWidth, surface.clientHeight];
    if (!width) return; // not on the page yet
    ink = computedColor(root);
    const ratio = window.devicePixelRatio || 1;
    dots.width = dots.height = Math.round(cloudPlane.clientWidth * ratio);
    overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const axis = (low, high, place, name, count) => ({ low, high, place, name, count });
    const middle = half();
    drawAxes(
      ticks[0], width, middle,
      axis(0, 1, across, "", 5), axis(0, 1, upSignal, "", 2),
    );
    drawAxes(
      ticks[1], width, height,
      axis(0, 1, across, "t\u2009/\u2009T", 5), axis(...LOG_SNRS, upLog, "", 4),
    );
    // The numbers of the horizontal axis stand at the bottom alone.
    for (const text of [...ticks[0].querySelectorAll("text")]) {
      if (Number(text.getAttribute("y")) > middle - 8) text.remove();
    }
    for (const line of ticks[1].querySelectorAll("line")) {
      if (line.getAttribute("x1") === line.getAttribute("x2")) line.setAttribute("y1", middle);
    }
    ["signal \u221a\u1fb1\u209c", "log SNR \u03bb\u209c"].forEach((text, i) => {
      const name = svgElement("text", {
        x: width - 8, y: i * middle + 17, class: "live-axis", "text-anchor": "end",
      });
      name.textContent = text;
      ticks[i].append(name);
    });
    setAttributes(border, { x1: 0, x2: width, y1: middle, y2: middle });
    KINDS.forEach((kind, k) => {
      const count = lengths[kind];
      const every = Array.from({ length: CURVE_POINTS + 1 }, (_, i) => stepAt(i / CURVE_POINTS, count));
      [(value) => upSignal(signalAt(value)), upLog].forEach((up, i) => {
        const places = every.filter((t) => t > 0 || i === 0).map((t) => (
          `${across(t / count).toFixed(1)} ${up(logSnrs[kind][t]).toFixed(1)}`
        ));
        curves[k][i].setAttribute("d", `M${places.join("L")}`);
      });
    });
    show(values);
  }

  function drawDigit(x) {
    const context = image.getContext("2d");
    const data = context.createImageData(size, size);
    x.forEach((value, i) => {
      const darkness = clamp((value + inkRange) / (2 * inkRange), [0, 1]);
      data.data.set([...ink, Math.round(255 * darkness)], 4 * i);
    });
    context.putImageData(data, 0, 0);
  }
  function drawCloud(points) {
    const context = dots.getContext("2d");
    const scale = dots.width / (2 * shown);
    const radius = Math.max(1.4, cloudPlane.clientWidth / 150) * (dots.width / cloudPlane.clientWidth);
    context.clearRect(0, 0, dots.width, dots.width);
    context.fillStyle = `rgb(${ink})`;
    context.globalAlpha = 0.75;
    for (let i = 0; i < points.length; i += 2) {
      context.beginPath();
      context.arc(
        (points[i] + shown) * scale, (shown - points[i + 1]) * scale, radius, 0, 2 * Math.PI,
      );
      context.fill();
    }
  }

  // What changes as the reader moves something.
  let values = inRange(told());
  let [noiseSeed, eps] = [NaN, null];
  let place = [0, 0];
  function show(next) {
    values = inRange(next);
    if (!width) return;
    const [share, digit, seed, which] = values;
    const kind = KINDS[which];
    const count = lengths[kind];
    const t = stepAt(share, count);
    const logSnr = logSnrs[kind][t];
    if (seed !== noiseSeed) {
      noiseSeed = seed;
      eps = makeNoise(seed, pixels + cloud.length);
    }
    drawDigit(mix(digits[digit], eps, logSnr));
    drawCloud(mix(cloud, eps.subarray(pixels), logSnr));
    choices.forEach((button, i) => button.setAttribute("aria-pressed", String(i === which)));
    curves.forEach((pair, k) => pair.forEach((curve) => {
      curve.classList.toggle("fw-chosen", k === which);
    }));
    place = [across(t / count), upSignal(signalAt(logSnr))];
    node.style.transform = `translate(${place[0]}px, ${place[1]}px)`;
    setAttributes(guide, { x1: place[0], x2: place[0], y1: 0, y2: height - 20 });
    setAttributes(here, { cx: place[0], cy: upLog(logSnr) });

    const kl = endKl(digits[digit], logSnrs[kind][count]);
    const arrives = kl * pixels < ARRIVED;
    time.show(share, String(t));
    readings.step.show(`${t} of ${count}`);
    readings.alphaBar.show(formatSize(sigmoid(logSnr)));
    readings.snr.show(formatSize(Math.exp(logSnr)));
    readings.logSnr.show(t ? formatNumber(logSnr, 2) : "\u221e");
    readings.pixel.show(formatSize(kl));
    readings.whole.show(formatSize(kl * pixels));
    verdict.textContent = arrives ? "This schedule ends in noise" : "This schedule stops before noise";
    speaker.say(() => (
      `t = ${t} of ${count}: signal\u2019s share ${formatSize(sigmoid(logSnr))}, SNR `
        + `${formatSize(Math.exp(logSnr))}; ${verdict.textContent.toLowerCase()}`
    ));
  }
  const { moveTo, glide, leave } = makeMover(model, [...NAMES, "schedule"], {
    read: told,
    write: () => ({
      ...Object.fromEntries(NAMES.map((name, i) => [name, values[i]])), schedule: KINDS[values[3]],
    }),
    inRange,
    show,
  });
  const speaker = makeSpeaker(status);

  // The reader's hand.
  const withPlace = ([x]) => [(x - margin) / (width - 2 * margin), ...values.slice(1)];
  const hand = {
    node, input: time.input, place: () => place, moveTo: (where) => moveTo(withPlace(where)),
  };
  makeDraggable(surface, [hand], {
    choose: () => hand, tap: (where) => glide(values, withPlace(where)),
  });

  const stopDrawing = keepDrawn(root, surface, drawBackground);

  return () => {
    stopDrawing();
    leave();
    speaker.hush();
  };
}

export { endKl, makeNoise, makeSchedule, mix };
export default { render };
