// Two estimators of one gradient: each draw's two arrows, and the two means as draws are added.

const CURVE_POINTS = 640;
const Q_POINTS = 121;
const TRACE_POINTS = 180;
const RUG = 160; // draws that are marked on the axis
const AWAY = 15; // pixels from the ends of q's width to their handles: at the narrowest q, too
const ARROW = 0.115; // of the plane's width: the arrow of a typical contribution
const TANGENT = 13; // pixels to each side
const NAMES = ["mu", "sigma", "frequency", "num_draws", "seed"];

const normalDensity = (x) => Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);

// To rounding, by a series whose terms all have one sign.
function normalProbability(x) {
  let [sum, term] = [0, x];
  for (let k = 3; sum + term !== sum; k += 2) {
    sum += term;
    term *= (x * x) / k;
  }
  return 0.5 + normalDensity(x) * sum;
}

// A function with its slope, what is shown of its values, and what is known in closed form: the
// gradient of its mean, the mean of the pathwise estimate, and the variances of both estimates.
function makeSquare(raised, range) {
  return {
    value: (z) => z * z + raised,
    slope: (z) => 2 * z,
    range,
    known: (mu, sigma) => {
      // f is a + b eps + c eps^2, and the second, fourth and sixth moments of eps are 1, 3, 15.
      const [a, b, c] = [mu * mu + raised, 2 * mu * sigma, sigma * sigma];
      const second = (a * a + 3 * (b * b + 2 * a * c) + 15 * c * c) / (sigma * sigma);
      return {
        exact: 2 * mu, pathMean: 2 * mu, variances: [4 * sigma * sigma, second - 4 * mu * mu],
      };
    },
  };
}

function makeSine(frequency) {
  return {
    value: (z) => Math.sin(frequency * z),
    slope: (z) => frequency * Math.cos(frequency * z),
    range: [-1.6, 1.6],
    known: (mu, sigma) => {
      const angle = frequency * sigma;
      const fading = Math.exp(-0.5 * angle * angle);
      const exact = fading * frequency * Math.cos(frequency * mu);
      const wave = fading ** 4 * Math.cos(2 * frequency * mu);
      const path = 0.5 * frequency * frequency * (1 + wave);
      const score = (1 - wave * (1 - 4 * angle * angle)) / (2 * sigma * sigma);
      return {
        exact, pathMean: exact, variances: [path - exact * exact, score - exact * exact],
      };
    },
  };
}

function makeStep() {
  return {
    value: (z) => (z > 0 ? 1 : 0),
    slope: () => 0,
    range: [-0.25, 1.6],
    known: (mu, sigma) => {
      const ratio = mu / sigma;
      const exact = normalDensity(ratio) / sigma;
      const second = (normalProbability(ratio) - ratio * normalDensity(ratio)) / (sigma * sigma);
      return { exact, pathMean: 0, variances: [0, second - exact * exact] };
    },
  };
}

const FUNCTIONS = {
  square: { label: "z\u00b2", make: () => makeSquare(0, [-1, 11]) },
  raised: {
    label: "z\u00b2\u2009+\u200910", make: ({ raisedBy }) => makeSquare(raisedBy, [-2, 21]),
  },
  sine: { label: "sin\u2009cz", make: ({ frequency }) => makeSine(frequency) },
  step: { label: "step", name: "step: 1 if z is positive, otherwise 0", make: makeStep },
};

// The mean and variance of the first draws' contributions to both estimates, and the running means
// at these counts, of which the last is the number of draws.
function estimate({ value, slope }, mu, sigma, eps, counts) {
  const sums = [0, 0];
  const squares = [0, 0];
  const shifts = [0, 0]; // variances of numbers far from 0 would lose their digits
  const running = [[], []];
  let next = 0;
  for (let i = 0; i < counts.at(-1); i++) {
    const z = mu + sigma * eps[i];
    const both = [slope(z), (value(z) * (z - mu)) / (sigma * sigma)];
    for (let j = 0; j < 2; j++) {
      if (i === 0) shifts[j] = both[j];
      const shifted = both[j] - shifts[j];
      sums[j] += shifted;
      squares[j] += shifted * shifted;
    }
    if (i + 1 === counts[next]) {
      next += 1;
      for (let j = 0; j < 2; j++) running[j].push(shifts[j] + sums[j] / (i + 1));
    }
  }
  const count = counts.at(-1);
  const variances = squares.map((square, j) => (
    Math.max(0, (square - (sums[j] * sums[j]) / count) / (count - 1))
  ));
  return {
    means: running.map((means) => means.at(-1)),
    variances,
    errors: variances.map((variance) => Math.sqrt(variance / count)),
    running,
  };
}

// Three digits that count, but no more than four behind the point.
function formatSize(value) {
  if (value === 0) return "0";
  const digits = 2 - Math.floor(Math.log10(value));
  return formatNumber(value, Math.min(Math.max(digits, 0), 4));
}

// A mean and its standard error, of which two digits count.
function formatMean(mean, error) {
  const digits = error > 0 ? Math.min(Math.max(1 - Math.floor(Math.log10(error)), 0), 4) : 3;
  return [mean, error].map((number) => formatNumber(number, digits));
}

function judge(name, { exact, variances: [path, score] }) {
  if (name === "step") {
    return `Pathwise is blind to the jump: its mean is 0, not ${formatNumber(exact, 3)}`;
  }
  const ratio = score / path;
  if (ratio > 1.05) {
    return `One pathwise draw is worth ${formatSize(ratio)} score-function draws`;
  }
  if (ratio < 1 / 1.05) {
    return `One score-function draw is worth ${formatSize(1 / ratio)} pathwise draws`;
  }
  return "Both are about equally noisy";
}

function render({ model, el }) {
  const ranges = NAMES.map((name) => model.get("ranges")[name]);
  const [leastDraws, mostDraws] = ranges[3];
  const [raisedBy, shown, visible] = ["raised_by", "shown", "visible"].map((n) => model.get(n));
  const kinds = Object.keys(FUNCTIONS);
  const clamp = (value, [low, high]) => Math.min(Math.max(value, low), high);
  // The mean, the width, the frequency, the number of draws, the seed, and which function.
  const told = () => [
    ...NAMES.map((name) => model.get(name)), kinds.indexOf(model.get("f")),
  ];
  const inRange = (numbers) => numbers.map((number, i) => {
    const within = ranges[i] ? clamp(number, ranges[i]) : number;
    return i > 2 ? Math.round(within) : within;
  });
  const everyZ = Array.from(
    { length: CURVE_POINTS }, (_, i) => shown * ((2 * i) / (CURVE_POINTS - 1) - 1),
  );
  const everyCount = [...new Set(Array.from({ length: TRACE_POINTS }, (_, i) => Math.round(
    leastDraws * (mostDraws / leastDraws) ** (i / (TRACE_POINTS - 1)),
  )))];

  // What is on the page.
  const drawn = (tag, name, attributes = {}) => svgElement(tag, { class: name, ...attributes });
  const both = (tag, name) => ["gd-path", "gd-score"].map((which) => drawn(tag, `${name} ${which}`));
  const ticks = drawn("g", "live-ticks");
  const qArea = drawn("path", "gd-q");
  const rug = drawn("path", "gd-rug");
  const curve = drawn("path", "gd-curve");
  const [tangents, stems] = [drawn("path", "gd-tangents gd-path"), drawn("path", "gd-stems gd-score")];
  const dots = drawn("path", "gd-dots");
  const [whisker, spread] = [drawn("line", "gd-whisker"), drawn("line", "gd-spread")];
  const guide = drawn("line", "gd-guide");
  const lanes = both("g", "gd-lane").map((group, i) => {
    const parts = {
      ground: drawn("rect", "gd-ground"), starts: drawn("path", "gd-starts"),
      exact: drawn("line", "gd-exact"), arrows: drawn("path", "gd-arrows"),
      mean: drawn("path", "gd-mean-arrow"), title: drawn("text", "live-label gd-title"),
      meanName: drawn("text", "live-label gd-small"),
    };
    parts.title.append(
      ["pathwise: f\u2032(z)", "score function: f(z)\u2009(z \u2212 \u03bc)\u2009/\u2009\u03c3\u00b2"][i],
    );
    parts.meanName.append("mean");
    group.append(...Object.values(parts));
    return { group, ...parts };
  });
  const scaleBar = drawn("path", "gd-scale");
  const scaleText = drawn("text", "live-label gd-small", { "text-anchor": "end" });
  const overlay = svgElement(
    "svg", {}, lanes[0].ground, lanes[1].ground, ticks, qArea, rug, curve, stems, tangents, dots,
    guide, ...lanes.map(({ group }) => group), scaleBar, scaleText, whisker, spread,
  );
  const nodes = ["gd-middle", "gd-end", "gd-end"].map((name) => element(
    "div", { class: `live-handle ${name}` },
  ));
  const surface = element(
    "div", { class: "live-plane gd-plane", role: "group", "aria-label": "Draws and their arrows" },
    element("div", { class: "live-drawing", "aria-hidden": "true" }, overlay),
    nodes[1], nodes[2], nodes[0],
  );
  const traceTicks = drawn("g", "live-ticks");
  const bands = both("path", "gd-band");
  const lines = both("path", "gd-line");
  const ends = both("path", "gd-error");
  const points = both("circle", "gd-point");
  points.forEach((point) => point.setAttribute("r", 4.5));
  const exactLine = drawn("line", "gd-exact-line");
  const traceOverlay = svgElement(
    "svg", {}, traceTicks, bands[1], bands[0], exactLine, lines[1], lines[0], ends[1], ends[0],
    points[1], points[0],
  );
  const trace = element(
    "div", { class: "live-plane gd-trace", "aria-hidden": "true" },
    element("div", { class: "live-drawing" }, traceOverlay),
  );

  const choices = kinds.map((kind, i) => {
    const { label, name = label } = FUNCTIONS[kind];
    const button = element("button", { type: "button", "aria-label": name }, label);
    button.addEventListener("click", () => change(5)(i));
    return button;
  });
  const change = (i) => (value) => moveTo(values.map((old, j) => (i === j ? value : old)));
  // On a slider of powers of 10, a step can be less than one draw.
  const changeCount = (power) => {
    const count = Math.round(10 ** power);
    const isSame = count === values[3];
    change(3)(isSame ? count + Math.sign(power - Math.log10(count)) : count);
  };
  const controls = [
    { name: "mean", label: "Mean of q", low: ranges[0][0], high: ranges[0][1] },
    {
      name: "width", label: "Width of q, its standard deviation",
      low: ranges[1][0], high: ranges[1][1],
    },
    { name: "c", label: "Frequency of the sine, c", low: ranges[2][0], high: ranges[2][1] },
  ].map((control, i) => makeControl(control, change(i)));
  const countControl = makeControl({
    name: "draws", label: "Number of draws", low: Math.log10(leastDraws), high: Math.log10(mostDraws),
  }, changeCount);
  // Draws are added, twice as many every second; where motion is unwelcome, at once.
  let [exactCount, shownCount] = [0, 0];
  const player = makePlayer({
    stepName: "Double the draws",
    start: () => {
      exactCount = values[3] === mostDraws ? leastDraws : values[3];
      shownCount = values[3];
    },
    advance: (ms) => {
      if (values[3] !== shownCount) exactCount = values[3]; // set by hand meanwhile
      exactCount = Math.min(exactCount * 2 ** (ms / 1000), mostDraws);
      shownCount = Math.round(exactCount);
      show(values.map((old, i) => (i === 3 ? shownCount : old)));
      return shownCount === mostDraws;
    },
    step: () => change(3)(values[3] === mostDraws ? leastDraws : 2 * values[3]),
    tell: () => tell(),
  });
  const newButton = element("button", { type: "button" }, "New draws");
  const exactReading = makeReading("exact gradient", "gd-key-exact");
  const cells = ["mean", "standard error", "variance", "exact variance"].map((name) => ({
    name, both: [0, 1].map(() => element("td", { class: "live-number" })),
  }));
  const table = element(
    "table", { class: "gd-table" },
    element("thead", {}, element(
      "tr", {}, element("td", {}),
      ...[["pathwise", "gd-path"], ["score function", "gd-score"]].map(([name, which]) => (
        element("th", { scope: "col", class: which }, name)
      )),
    )),
    element("tbody", {}, ...cells.map(({ name, both: pair }) => element(
      "tr", {}, element("th", { scope: "row" }, name), ...pair,
    ))),
  );
  const verdict = element("div", { class: "live-verdict" });
  const status = element("div", { class: "live-unseen", role: "status" });
  const root = element(
    "div", { class: "live-root", role: "group", "aria-label": "Two estimators of one gradient" },
    element(
      "div", { class: "live-grid gd-grid" },
      surface,
      element(
        "div", { class: "live-side" },
        element(
          "div", { class: "gd-choices", role: "group", "aria-label": "Function f of z" },
          element("span", { "aria-hidden": "true" }, "f(z)"), ...choices,
        ),
        ...controls.map((control) => control.node),
        element("hr", { class: "live-rule" }),
        countControl.node,
        element("div", { class: "gd-buttons" }, player.button, newButton),
        element("hr", { class: "live-rule" }),
        exactReading.node, table,
      ),
      element("div", { class: "live-wide gd-account" }, verdict, trace),
      element(
        "div", { class: "live-note" },
        "Drag q by its middle or its ends, or use the sliders (arrow keys, with Shift for longer "
          + "steps). Bands: two standard errors around what an estimator converges to; bars: two "
          + "as measured.",
      ),
    ),
    status,
  );
  mount(model, el, root);

  // From numbers to places on the screen.
  let [width, height, traceWidth, traceHeight] = [0, 0, 0, 0];
  const across = (z) => ((z + shown) / (2 * shown)) * width;
  const toZ = (place) => (place / width) * 2 * shown - shown;
  const floor = () => height - 24; // above the numbers of the axis
  const upper = () => 0.46 * floor(); // where f and q end, and the arrows begin
  const alongCounts = (count) => (
    (Math.log(count / leastDraws) / Math.log(mostDraws / leastDraws)) * (traceWidth - 12)
  );
  const polyline = (places) => `M${places.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}`;

  function drawBackground() {
    [width, height] = [surface.clientWidth, surface.clientHeight];
    [traceWidth, traceHeight] = [trace.clientWidth, trace.clientHeight];
    if (!width) return; // not on the page yet
    overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    traceOverlay.setAttribute("viewBox", `0 0 ${traceWidth} ${traceHeight}`);
    const lane = (floor() - upper()) / 2;
    lanes.forEach(({ ground, title }, i) => {
      const y = upper() + i * lane;
      setAttributes(ground, { x: 0, y, width, height: lane });
      setAttributes(title, { x: 8, y: y + 15 });
    });
    [drawnFunction, drawnReach] = ["", ""];
    player.nameButton();
    show(values);
  }

  // What changes with f.
  let values = inRange(told());
  let [drawnFunction, func, upwards] = ["", null, null];
  function drawFunction(kind, frequency) {
    func = FUNCTIONS[kind].make({ frequency, raisedBy });
    const [low, high] = func.range;
    upwards = (value) => ((high - value) / (high - low)) * upper();
    drawAxes(
      ticks, width, height,
      { low: -shown, high: shown, place: across, name: "z", count: 8 },
      { low, high, place: upwards, name: "f", count: 4 },
    );
    curve.setAttribute("d", polyline(
      everyZ.map((z) => [across(z), upwards(func.value(z))]).filter(([, y]) => y > -height),
    ));
    choices.forEach((button, i) => button.setAttribute("aria-pressed", kinds[i] === kind));
    controls[2].input.disabled = kind !== "sine";
    controls[2].node.classList.toggle("gd-idle", kind !== "sine");
  }

  // What changes with the noise; rows are in the order of their draws.
  let [drawnSeed, eps] = [NaN, null];
  function drawNoise(seed) {
    drawnSeed = seed;
    eps = makeNoise(seed, mostDraws);
  }

  // What changes as the reader moves something.
  let places = [];
  function showQ(mu, sigma) {
    const rise = 0.5 * upper();
    const base = upper();
    qArea.setAttribute("d", `${polyline(Array.from({ length: Q_POINTS }, (_, i) => {
      const away = 4 * ((2 * i) / (Q_POINTS - 1) - 1);
      return [across(mu + sigma * away), base - rise * Math.exp(-0.5 * away * away)];
    }))}Z`);
    const y = base - rise * Math.exp(-0.5);
    places = [[across(mu), y], [across(mu - sigma) - AWAY, y], [across(mu + sigma) + AWAY, y]];
    nodes.forEach((node, i) => {
      node.style.transform = `translate(${places[i][0]}px, ${places[i][1]}px)`;
    });
    const [, [x1], [x2]] = places;
    setAttributes(whisker, { x1, x2, y1: y, y2: y });
    setAttributes(spread, { x1: x1 + AWAY, x2: x2 - AWAY, y1: y, y2: y });
    setAttributes(guide, { x1: across(mu), x2: across(mu), y1: upper(), y2: floor() });
  }
  // What goes on beyond the plane has a second head, at the edge.
  function arrow(x, y, length, head) {
    const tip = clamp(x + length, [3, width - 3]);
    const back = Math.sign(length) * Math.min(head, Math.abs(length));
    const wing = Math.abs(0.7 * back);
    const headAt = (end) => (
      `M${(end - back).toFixed(1)} ${y - wing}L${end.toFixed(1)} ${y}`
        + `L${(end - back).toFixed(1)} ${y + wing}`
    );
    return `M${x.toFixed(1)} ${y}H${tip.toFixed(1)}${headAt(tip)}`
      + (tip === x + length ? "" : headAt(tip - back));
  }
  function showDraws(mu, sigma, count, known, means) {
    const rows = Array.from(eps.subarray(0, Math.min(count, visible))).sort((a, b) => a - b);
    const zs = rows.map((noise) => mu + sigma * noise);
    const heights = zs.map((z) => upwards(func.value(z)));
    const perUnit = (func.range[1] - func.range[0]) / upper() / ((2 * shown) / width);
    tangents.setAttribute("d", zs.map((z, i) => {
      const steep = func.slope(z) / perUnit;
      const dx = TANGENT / Math.hypot(1, steep);
      return `M${across(z) - dx} ${heights[i] + steep * dx}l${2 * dx} ${-2 * steep * dx}`;
    }).join(""));
    stems.setAttribute("d", zs.map((z, i) => `M${across(z)} ${upwards(0)}V${heights[i]}`).join(""));
    dots.setAttribute("d", zs.map((z, i) => `M${across(z)} ${heights[i]}h0`).join(""));
    rug.setAttribute("d", Array.from(
      eps.subarray(0, Math.min(count, RUG)),
      (noise) => `M${across(mu + sigma * noise).toFixed(1)} ${upper()}v-6`,
    ).join(""));

    const typical = Math.sqrt(Math.max(...known.variances) + known.exact ** 2);
    const scale = (ARROW * width) / typical;
    const lane = (floor() - upper()) / 2;
    const step = (lane - 40) / visible;
    const contributions = [func.slope, (z) => (func.value(z) * (z - mu)) / (sigma * sigma)];
    lanes.forEach(({ starts, arrows, mean, exact, meanName }, i) => {
      const top = upper() + i * lane + 22;
      const heightOf = (row) => (top + step * (visible - row - 0.5)).toFixed(1);
      starts.setAttribute("d", zs.map((z, row) => `M${across(z)} ${heightOf(row) - 2}v4`).join(""));
      arrows.setAttribute("d", zs.map((z, row) => (
        arrow(across(z), Number(heightOf(row)), scale * contributions[i](z), 4)
      )).join(""));
      const y = upper() + (i + 1) * lane - 9;
      const x = across(mu);
      setAttributes(exact, { x1: x, x2: x + scale * known.exact, y1: y, y2: y });
      mean.setAttribute("d", arrow(x, y, scale * means[i], 6));
      setAttributes(meanName, { x: 8, y: y + 4 });
    });
    // The longest round number whose arrow is no longer than a sixth of the plane.
    const most = width / 6 / scale;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].find((factor) => factor * power <= most) * power;
    const [x, y] = [width - 10, upper() + 11];
    scaleBar.setAttribute("d", `M${x - scale * length} ${y - 3}v6m0-3H${x}m0-3v6`);
    scaleText.textContent = `arrow of ${formatNumber(length, Math.max(0, -Math.log10(power)))}`;
    setAttributes(scaleText, { x: x - scale * length - 6, y: y + 4 });
  }

  let drawnReach = "";
  function showTrace(count, counts, known, { means, errors, running }) {
    const { exact, pathMean, variances } = known;
    const deviations = variances.map(Math.sqrt);
    const reach = Math.max(
      2 * Math.max(...deviations) / Math.sqrt(8), 1.3 * Math.abs(exact - pathMean),
    );
    const [low, high] = [exact - reach, exact + reach];
    const up = (value) => clamp(
      ((high - value) / (high - low)) * traceHeight, [-traceHeight, 2 * traceHeight],
    );
    if (drawnReach !== `${low} ${high}`) {
      drawnReach = `${low} ${high}`;
      drawAxes(
        traceTicks, traceWidth, traceHeight,
        {
          place: alongCounts, name: "draws", round: { ticks: [10, 100, 1000, 10_000], digits: 0 },
        },
        { low, high, place: up, name: "mean", count: 4 },
      );
      [pathMean, exact].forEach((middle, i) => {
        const edge = (sign) => everyCount.map((n) => (
          [alongCounts(n), up(middle + (sign * 2 * deviations[i]) / Math.sqrt(n))]
        ));
        bands[i].setAttribute("d", `${polyline([...edge(1), ...edge(-1).reverse()])}Z`);
      });
      setAttributes(exactLine, { x1: 0, x2: traceWidth, y1: up(exact), y2: up(exact) });
    }
    const x = alongCounts(count);
    [0, 1].forEach((i) => {
      lines[i].setAttribute("d", polyline(
        counts.map((n, k) => [alongCounts(n), up(running[i][k])]),
      ));
      ends[i].setAttribute(
        "d", `M${x} ${up(means[i] - 2 * errors[i])}V${up(means[i] + 2 * errors[i])}`,
      );
      setAttributes(points[i], { cx: x, cy: up(means[i]) });
    });
  }

  function show(next) {
    // While something glides, every number is on its way.
    values = inRange(next);
    if (!width) return;
    const [mu, sigma, frequency, count, seed, which] = values;
    const kind = kinds[which];
    if (drawnFunction !== `${kind} ${frequency}`) {
      drawnFunction = `${kind} ${frequency}`;
      drawFunction(kind, frequency);
    }
    if (seed !== drawnSeed) drawNoise(seed);
    const known = func.known(mu, sigma);
    const counts = [...everyCount.filter((n) => n < count), count];
    const found = estimate(func, mu, sigma, eps, counts);
    showQ(mu, sigma);
    showDraws(mu, sigma, count, known, found.means);
    showTrace(count, counts, known, found);

    [mu, sigma, frequency].forEach((value, i) => controls[i].show(value, formatNumber(value, 2)));
    countControl.show(Math.log10(count), String(count));
    exactReading.show(formatNumber(known.exact, 3));
    [0, 1].forEach((i) => {
      const texts = [
        ...formatMean(found.means[i], found.errors[i]),
        formatSize(found.variances[i]), formatSize(known.variances[i]),
      ];
      texts.forEach((text, row) => { cells[row].both[i].textContent = text; });
    });
    verdict.textContent = judge(kind, known);
    speaker.say(() => (
      `${count} draws: pathwise ${cells[0].both[0].textContent}, score function `
        + `${cells[0].both[1].textContent}, exact gradient ${formatNumber(known.exact, 3)}; `
        + verdict.textContent
    ));
  }
  const { moveTo, glide, tell, leave } = makeMover(model, [...NAMES, "f"], {
    read: told,
    write: () => ({
      ...Object.fromEntries(NAMES.map((name, i) => [name, values[i]])), f: kinds[values[5]],
    }),
    inRange,
    show,
  });
  const speaker = makeSpeaker(status);

  newButton.addEventListener("click", () => change(4)((values[4] + 1) % (ranges[4][1] + 1)));

  // The reader's hand.
  const middle = (place) => values.map((old, i) => (i ? old : toZ(place[0])));
  const hands = nodes.map((node, i) => ({
    node,
    input: controls[i ? 1 : 0].input,
    place: () => places[i],
    moveTo: (place) => {
      const side = [0, -1, 1][i];
      if (side === 0) moveTo(middle(place));
      else change(1)(side * (toZ(place[0] - side * AWAY) - values[0]));
    },
  }));
  makeDraggable(surface, hands, {
    choose: () => hands[0],
    tap: (place) => {
      player.pause();
      glide(values, middle(place));
    },
  });

  const stopDrawing = keepDrawn(root, surface, drawBackground);

  return () => {
    player.stop();
    stopDrawing();
    leave();
    speaker.hush();
  };
}

export { FUNCTIONS, estimate, makeNoise };
export default { render };
