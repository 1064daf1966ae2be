// The bound on the curved toy: log p(x) stays, and its two parts change, as the reader moves q.

const HALF_LOG_TWO_PI = 0.5 * Math.log(2 * Math.PI);
const CURVE_POINTS = 240;
const DIGITS = 3;
// The trapezoidal rule over standardised z. For a polynomial under a Gaussian, its relative error
// is about exp(-2 (pi / step)^2), here 1e-34: exact to rounding.
const STEP = 0.5;
const NODES = Array.from({ length: 49 }, (_, i) => STEP * (i - 24));
const WEIGHTS = NODES.map((node) => STEP * Math.exp(-0.5 * node * node - HALF_LOG_TWO_PI));
const MOST_STEPS = 400; // uphill; about 30 are taken
const STEP_IS_SMALL = 1e-9;
const NARROW = 0.3;
const AWAY = 15; // pixels from the ends of q's width to their handles: at the narrowest q, too
const SAME_PLACE = 0.01;
const MARGIN = 0.1; // how much more is shown on each side than q's mean can reach

const logNormal = (value, mean, deviation) => (
  -0.5 * ((value - mean) / deviation) ** 2 - Math.log(deviation) - HALF_LOG_TWO_PI
);

// What the toy says of x and z (evidence.toys.CurvedToy); `coefficients` are those of f.
function makeToy(coefficients, noise, grid) {
  const slopes = coefficients.map((coefficient, power) => power * coefficient).slice(1);
  const polynomial = (numbers, z) => numbers.reduceRight((value, number) => value * z + number, 0);
  const logJoint = (x, z) => logNormal(z, 0, 1) + logNormal(x, polynomial(coefficients, z), noise);
  const slopeOfLogJoint = (x, z) => (
    -z + ((x - polynomial(coefficients, z)) / noise ** 2) * polynomial(slopes, z)
  );
  const step = (2 * grid.half_width) / (grid.points - 1);
  const everyZ = Float64Array.from({ length: grid.points }, (_, i) => i * step - grid.half_width);
  const logEvidence = (x) => {
    const values = everyZ.map((z) => logJoint(x, z));
    const largest = values.reduce((a, b) => Math.max(a, b));
    return largest + Math.log(step * values.reduce((sum, v) => sum + Math.exp(v - largest), 0));
  };
  return { logJoint, slopeOfLogJoint, logEvidence };
}

const expectation = (mu, sigma, value) => NODES.reduce(
  (sum, node, i) => sum + WEIGHTS[i] * value(mu + sigma * node, node), 0,
);

function elboOf(toy, x, mu, sigma) {
  return expectation(mu, sigma, (z) => toy.logJoint(x, z) - logNormal(z, mu, sigma));
}

function klOf(toy, x, mu, sigma, logEvidence) {
  return expectation(
    mu, sigma, (z) => logNormal(z, mu, sigma) - (toy.logJoint(x, z) - logEvidence),
  );
}

// Go uphill to the Gaussian with the highest bound near by: natural gradients (pathwise), with steps
// halved until they go up.
function climb(toy, x, start, inRange) {
  let [mu, sigma] = inRange(start);
  let elbo = elboOf(toy, x, mu, sigma);
  for (let step = 0; step < MOST_STEPS; step++) {
    const byMu = expectation(mu, sigma, (z) => toy.slopeOfLogJoint(x, z));
    const bySigma = expectation(mu, sigma, (z, node) => node * toy.slopeOfLogJoint(x, z));
    const [across, wider] = [sigma ** 2 * byMu, 0.5 * (sigma * bySigma + 1)];
    let [next, higher] = [[mu, sigma], elbo];
    for (let length = 1; length > 1e-6; length /= 2) {
      const tried = inRange([mu + length * across, sigma * Math.exp(length * wider)]);
      const reached = elboOf(toy, x, ...tried);
      if (reached > elbo) {
        [next, higher] = [tried, reached];
        break;
      }
    }
    const moved = Math.abs(next[0] - mu) + Math.abs(next[1] - sigma);
    [[mu, sigma], elbo] = [next, higher];
    if (moved < STEP_IS_SMALL) break;
  }
  return { mu, sigma, elbo };
}

// All Gaussians whose bound is highest near by, the best one first: q narrow at every mode of the
// posterior, or as wide as the posterior is, and from there uphill.
function findOptima(toy, x, everyZ, densities, inRange) {
  const total = densities.reduce((sum, density) => sum + density, 0);
  const mean = (value) => (
    densities.reduce((sum, density, i) => sum + density * value(everyZ[i]), 0) / total
  );
  const middle = mean((z) => z);
  const starts = [[middle, Math.sqrt(mean((z) => (z - middle) ** 2))]];
  densities.forEach((density, i) => {
    const isMode = density > (densities[i - 1] ?? 0) && density >= (densities[i + 1] ?? 0);
    if (isMode) starts.push([everyZ[i], NARROW]);
  });
  const optima = [];
  for (const start of starts) {
    const found = climb(toy, x, start, inRange);
    if (optima.every(({ mu }) => Math.abs(mu - found.mu) > SAME_PLACE)) optima.push(found);
  }
  return optima.sort((a, b) => b.elbo - a.elbo);
}

function render({ model, el }) {
  const toy = makeToy(model.get("theta"), model.get("noise"), model.get("grid"));
  const [zRange, xRange, sigmaRange, nats] = (
    ["z_range", "x_range", "sigma_range", "nats"].map((name) => model.get(name))
  );
  const clamp = (value, [low, high]) => Math.min(Math.max(value, low), high);
  const inQRange = ([mu, sigma]) => [clamp(mu, zRange), clamp(sigma, sigmaRange)];
  const inRange = ([x, ...q]) => [clamp(x, xRange), ...inQRange(q)];
  const told = () => ["x", "mu", "sigma"].map((name) => model.get(name));
  const number = (value) => formatNumber(value, DIGITS);
  const margin = MARGIN * (zRange[1] - zRange[0]);
  const [first, last] = [zRange[0] - margin, zRange[1] + margin];
  const everyZ = Array.from(
    { length: CURVE_POINTS }, (_, i) => first + ((last - first) * i) / (CURVE_POINTS - 1),
  );

  // What is on the page.
  const ticks = svgElement("g", { class: "live-ticks" });
  const posteriorArea = svgElement("path", { class: "bd-posterior" });
  const priorCurve = svgElement("path", { class: "bd-prior" });
  const qArea = svgElement("path", { class: "bd-q" });
  const whisker = svgElement("line", { class: "bd-whisker" });
  const spread = svgElement("line", { class: "bd-spread" });
  const overlay = svgElement("svg", {}, ticks, posteriorArea, priorCurve, qArea, whisker, spread);
  const nodes = ["bd-mean", "bd-end", "bd-end"].map((name) => element(
    "div", { class: `live-handle ${name}` },
  ));
  const surface = element(
    "div", { class: "live-plane bd-plane", role: "group", "aria-label": "Densities of z" },
    element("div", { class: "live-drawing", "aria-hidden": "true" }, overlay),
    nodes[1], nodes[2], nodes[0],
  );
  const change = (i) => (value) => moveTo(values.map((old, j) => (i === j ? value : old)));
  const controls = [
    { name: "datum x", label: "Datum x", range: xRange },
    { name: "mean", label: "Mean of q", range: zRange },
    { name: "width", label: "Width of q, its standard deviation", range: sigmaRange },
  ].map(({ name, label, range: [low, high] }, i) => (
    makeControl({ name, label, low, high }, change(i))
  ));
  const keys = [
    ["bd-key-q", "q(z), yours to move"],
    ["bd-key-posterior", "p(z\u2009|\u2009x), the true posterior"],
    ["bd-key-prior", "p(z), the prior"],
  ].map(([key, text]) => element(
    "div", { class: "bd-legend" }, element("span", { class: `live-key ${key}` }), text,
  ));
  const button = (text) => element("button", { type: "button" }, text);
  const [fitButton, otherButton] = [button("Fit q"), button("To the other mode")];
  const verdict = element("div", { class: "live-verdict" });

  const terms = [
    ["log p(x)", "bd-key-evidence"], ["ELBO", "bd-key-elbo"], ["KL", "live-key-gap"],
  ].map(([name, key]) => {
    const value = element("span", { class: "live-number" });
    const node = element(
      "div", { class: "bd-term" },
      element("span", {}, element("span", { class: `live-key ${key}` }), name), value,
    );
    return { node, value };
  });
  const sign = (text) => element("span", { class: "bd-sign" }, text);
  const sum = element(
    "div", { class: "bd-sum", role: "group", "aria-label": "The sum, in nats" },
    terms[0].node, sign("="), terms[1].node, sign("+"), terms[2].node,
  );
  const barTicks = svgElement("g", { class: "live-ticks" });
  const barAxis = svgElement("svg", {}, barTicks);
  const [evidenceBar, elboBar, klBar, ceiling] = (
    ["bd-evidence", "bd-elbo", "bd-kl", "bd-ceiling"].map((name) => (
      element("div", { class: `bd-bar ${name}` })
    ))
  );
  const beyond = element("div", { class: "bd-beyond" }, "\u25c2 ELBO");
  const bars = element(
    "div", { class: "live-plane bd-bars", "aria-hidden": "true" },
    element("div", { class: "live-drawing" }, barAxis),
    evidenceBar, elboBar, klBar, ceiling, beyond,
  );
  const status = element("div", { class: "live-unseen", role: "status" });
  const root = element(
    "div", { class: "live-root", role: "group", "aria-label": "The bound and its gap" },
    element(
      "div", { class: "live-grid bd-grid" },
      surface,
      element(
        "div", { class: "live-side" },
        element("div", { class: "bd-keys" }, ...keys),
        element("hr", { class: "live-rule" }),
        ...controls.map((control) => control.node),
        element("div", { class: "bd-buttons" }, fitButton, otherButton),
        verdict,
      ),
      element("div", { class: "live-wide bd-account" }, sum, bars),
      element(
        "div", { class: "live-note" },
        "Drag q by its middle or its ends, or use the sliders (arrow keys, with Shift for longer "
          + "steps).",
      ),
    ),
    status,
  );
  mount(model, el, root);

  // From numbers to places on the screen, and back.
  let [width, height, tallest] = [0, 0, 1];
  const across = (z) => ((z - first) / (last - first)) * width;
  const toZ = (place) => first + (place / width) * (last - first);
  const baseline = () => height - 24; // above the numbers of the axis
  const upwards = (density) => baseline() * (1 - density / tallest);
  const path = (density) => (
    `M${everyZ.map((z) => `${across(z)} ${upwards(density(z))}`).join("L")}`
  );
  const closed = (density) => `${path(density)}V${baseline()}H0Z`;
  const alongNats = (value) => (value - nats[0]) / (nats[1] - nats[0]);

  function drawBackground() {
    [width, height] = [surface.clientWidth, surface.clientHeight];
    if (!width) return; // not on the page yet
    overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawAxes(ticks, width, height, {
      low: first, high: last, place: across, name: "z", count: 7,
    });
    const [long, high] = [bars.clientWidth, bars.clientHeight];
    barAxis.setAttribute("viewBox", `0 0 ${long} ${high}`);
    drawAxes(barTicks, long, high, {
      low: nats[0], high: nats[1], place: (value) => alongNats(value) * long, name: "nats",
    });
    drawDatum();
    show(values);
  }

  // What changes with x: the posterior, its evidence, and the best that q can do.
  let values = inRange(told());
  let [drawnX, logEvidence, optima] = [NaN, 0, []];
  function drawDatum() {
    const [x] = values;
    drawnX = x;
    logEvidence = toy.logEvidence(x);
    const posterior = (z) => Math.exp(toy.logJoint(x, z) - logEvidence);
    const densities = everyZ.map(posterior);
    tallest = 1.9 * Math.max(...densities);
    posteriorArea.setAttribute("d", closed(posterior));
    priorCurve.setAttribute("d", path((z) => Math.exp(logNormal(z, 0, 1))));
    optima = findOptima(toy, x, everyZ, densities, inQRange);
    otherButton.disabled = optima.length < 2;
  }
  const isAt = ({ mu, sigma }) => (
    Math.abs(values[1] - mu) < SAME_PLACE && Math.abs(values[2] - sigma) < SAME_PLACE
  );
  function judge() {
    const reached = optima.findIndex(isAt);
    if (reached === 0) return "The best Gaussian there is";
    if (reached > 0) return "The best one at this mode; the other has a better one";
    return "The KL can still shrink";
  }

  // What changes as the reader moves something.
  let places = [];
  function placesOf(mu, sigma) {
    // At the height at which q is one sigma away, or as near to it as is on the plane.
    const y = Math.max(upwards(Math.exp(logNormal(sigma, 0, sigma))), 0.12 * height);
    return [[across(mu), y], [across(mu - sigma) - AWAY, y], [across(mu + sigma) + AWAY, y]];
  }
  function show(next) {
    values = next;
    if (!width) return;
    const [x, mu, sigma] = values;
    if (x !== drawnX) drawDatum();
    const q = (z) => Math.exp(logNormal(z, mu, sigma));
    qArea.setAttribute("d", closed(q));
    places = placesOf(mu, sigma);
    nodes.forEach((node, i) => {
      node.style.transform = `translate(${places[i][0]}px, ${places[i][1]}px)`;
    });
    const [, [x1, y], [x2]] = places;
    setAttributes(whisker, { x1, x2, y1: y, y2: y });
    setAttributes(spread, { x1: x1 + AWAY, x2: x2 - AWAY, y1: y, y2: y });

    const elbo = elboOf(toy, x, mu, sigma);
    const kl = klOf(toy, x, mu, sigma, logEvidence);
    [logEvidence, elbo, kl].forEach((value, i) => { terms[i].value.textContent = number(value); });
    const percent = (value) => `${100 * clamp(value, [0, 1])}%`;
    evidenceBar.style.width = percent(alongNats(logEvidence));
    elboBar.style.width = percent(alongNats(elbo));
    klBar.style.left = percent(alongNats(elbo));
    klBar.style.right = percent(1 - alongNats(logEvidence));
    ceiling.style.left = percent(alongNats(logEvidence));
    beyond.hidden = elbo > nats[0];

    values.forEach((value, i) => controls[i].show(value, formatNumber(value, 2)));
    verdict.textContent = judge();
    speaker.say(() => (
      `log p of x ${number(logEvidence)} is ELBO ${number(elbo)} plus KL ${number(kl)}; `
        + verdict.textContent
    ));
  }
  const { moveTo, glide, leave } = makeMover(model, ["x", "mu", "sigma"], {
    read: told,
    write: () => ({ x: values[0], mu: values[1], sigma: values[2] }),
    inRange,
    show,
  });
  const speaker = makeSpeaker(status);

  // The reader's hand.
  const glideTo = ({ mu, sigma }) => glide(values, [values[0], mu, sigma]);
  const far = ({ mu }) => Math.abs(mu - values[1]);
  fitButton.addEventListener("click", () => glideTo(optima[0]));
  otherButton.addEventListener("click", () => {
    glideTo(optima.reduce((a, b) => (far(b) > far(a) ? b : a)));
  });
  const middle = (place) => [values[0], toZ(place[0]), values[2]];
  const hands = nodes.map((node, i) => ({
    node,
    input: controls[i ? 2 : 1].input,
    place: () => places[i],
    moveTo: (place) => {
      const side = [0, -1, 1][i];
      if (side === 0) moveTo(middle(place));
      else moveTo([values[0], values[1], side * (toZ(place[0] - side * AWAY) - values[1])]);
    },
  }));
  makeDraggable(surface, hands, {
    choose: () => hands[0],
    tap: (place) => glide(values, middle(place)),
  });

  const stopDrawing = keepDrawn(root, surface, drawBackground);

  return () => {
    stopDrawing();
    leave();
    speaker.hush();
  };
}

export { elboOf, klOf, makeToy };
export default { render };
