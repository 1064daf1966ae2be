// Jensen's inequality on the logarithm: two points, a weight, and the gap that a mean leaves.

const CURVE_POINTS = 300;
const DIGITS = 3;
const EQUAL = 0.005; // points that are written alike

function jensen([first, second], weight) {
  const mean = weight * first + (1 - weight) * second;
  const logOfMean = Math.log(mean);
  const meanOfLog = weight * Math.log(first) + (1 - weight) * Math.log(second);
  return { mean, logOfMean, meanOfLog, gap: logOfMean - meanOfLog };
}

// How open the gap is, in words.
function judge([first, second], weight, gap) {
  if (Math.abs(first - second) < EQUAL) return "closed at every weight";
  if (weight === 0 || weight === 1) return "closed at this weight only";
  return gap < 0.5 * 10 ** -DIGITS ? "nearly closed" : "open";
}

function render({ model, el }) {
  const [lowest, highest] = [model.get("lowest"), model.get("highest")];
  const number = (value) => formatNumber(value, DIGITS);
  const inRange = ([first, second, weight]) => [
    ...[first, second].map((w) => Math.min(Math.max(w, lowest), highest)),
    Math.min(Math.max(weight, 0), 1),
  ];
  const told = () => [...model.get("w"), model.get("weight")];

  // What is on the page.
  const ticks = svgElement("g", { class: "live-ticks" });
  const lens = svgElement("path", { class: "jn-lens" });
  const curve = svgElement("path", { class: "jn-curve" });
  const chord = svgElement("line", { class: "jn-chord" });
  const guide = svgElement("line", { class: "jn-guide" });
  const segment = svgElement("line", { class: "jn-segment" });
  const top = svgElement("circle", { class: "jn-top", r: 6 });
  const gapLabel = svgElement("text", { class: "live-label", dy: "0.35em" });
  const meanLabel = svgElement("text", { class: "live-label jn-small", "text-anchor": "middle" });
  const pointLabels = ["w\u2081", "w\u2082"].map((name) => {
    const label = svgElement("text", { class: "live-label jn-name" });
    label.textContent = name;
    return label;
  });
  const overlay = svgElement(
    "svg", {}, ticks, lens, curve, chord, guide, segment, top, meanLabel, gapLabel, ...pointLabels,
  );
  const nodes = ["jn-point", "jn-point", "jn-mean"].map((name) => element(
    "div", { class: `live-handle ${name}` },
  ));
  // The points lie above the mean, which cannot be told from them where all are one.
  const surface = element(
    "div", { class: "live-plane jn-plane", role: "group", "aria-label": "Curve of log w" },
    element("div", { class: "live-drawing", "aria-hidden": "true" }, overlay),
    nodes[2], nodes[0], nodes[1],
  );
  const change = (i) => (value) => moveTo(values.map((old, j) => (i === j ? value : old)));
  const controls = [
    { name: "w\u2081", label: "First point, w\u2081", low: lowest, high: highest },
    { name: "w\u2082", label: "Second point, w\u2082", low: lowest, high: highest },
    { name: "weight", label: "Weight of the first point", low: 0, high: 1 },
  ].map((control, i) => makeControl(control, change(i)));
  const readings = [
    makeReading("mean"),
    makeReading("log of the mean", "jn-key-top"),
    makeReading("mean of the log", "jn-key-mean"),
    makeReading("gap", "live-key-gap"),
  ];
  const verdict = element("div", { class: "live-verdict" });
  const presets = [
    ["Equal points", ([first, second, weight]) => {
      const { mean } = jensen([first, second], weight);
      return [mean, mean, weight];
    }],
    ["Close together", () => [1.2, 1.8, 0.5]],
    ["Far apart", () => [0.1, 3.8, 0.5]],
    ["All weight on w\u2081", ([first, second]) => [first, second, 1]],
  ].map(([name, goal]) => {
    const button = element("button", { type: "button" }, name);
    button.addEventListener("click", () => glide(values, goal(values)));
    return button;
  });
  const status = element("div", { class: "live-unseen", role: "status" });
  const root = element(
    "div", { class: "live-root", role: "group", "aria-label": "Jensen's inequality" },
    element(
      "div", { class: "live-grid jn-grid" },
      surface,
      element(
        "div", { class: "live-side" },
        element("div", { class: "live-heading" }, "Two points and a weight"),
        ...controls.map((control) => control.node),
        element("hr", { class: "live-rule" }),
        ...readings.map((reading) => reading.node),
        verdict,
      ),
      element(
        "div", { class: "live-jumps", role: "group", "aria-label": "Try" },
        element("span", { "aria-hidden": "true" }, "Try"), ...presets,
      ),
      element(
        "div", { class: "live-note" },
        "Drag the points and the mean between them, or use the sliders (arrow keys, with Shift for "
          + "longer steps).",
      ),
    ),
    status,
  );
  mount(model, el, root);

  // From numbers to places on the screen, and back.
  let [width, height] = [0, 0];
  const left = -0.04 * highest;
  const right = 1.05 * highest;
  const bottom = Math.log(lowest) - 0.45;
  const ceiling = Math.log(highest) + 0.5;
  const across = (w) => ((w - left) / (right - left)) * width;
  const upwards = (y) => ((ceiling - y) / (ceiling - bottom)) * height;
  const onCurve = (w) => [across(w), upwards(Math.log(w))];
  const sampled = Array.from(
    { length: CURVE_POINTS },
    (_, i) => lowest * (highest / lowest) ** (i / (CURVE_POINTS - 1)),
  );
  const path = (points) => `M${points.map((place) => place.join(" ")).join("L")}`;

  // The point of the curve that is nearest on the screen: it is steep in one part, flat in another.
  function nearestOnCurve(place) {
    const distance = (w) => Math.hypot(...minus(onCurve(w), place));
    const distances = sampled.map(distance);
    const best = distances.indexOf(Math.min(...distances));
    let low = sampled[Math.max(best - 1, 0)];
    let high = sampled[Math.min(best + 1, CURVE_POINTS - 1)];
    for (let i = 0; i < 60; i++) {
      const third = (high - low) / 3;
      if (distance(low + third) < distance(high - third)) high -= third;
      else low += third;
    }
    return (low + high) / 2;
  }
  // The weight at which the mean lies nearest; none where both points are one.
  function nearestOnChord(place) {
    const [first, second] = [onCurve(values[0]), onCurve(values[1])];
    const [along, from] = [minus(first, second), minus(place, second)];
    const squared = along[0] ** 2 + along[1] ** 2;
    return squared < 1 ? values[2] : (along[0] * from[0] + along[1] * from[1]) / squared;
  }

  function drawBackground() {
    [width, height] = [surface.clientWidth, surface.clientHeight];
    if (!width) return; // not on the page yet
    overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawAxes(
      ticks, width, height,
      { low: 0, high: right, place: across, name: "w", count: 5 },
      { low: bottom, high: ceiling, place: upwards, name: "log w", count: 5 },
    );
    const shown = [Math.exp(bottom), ...sampled, right];
    curve.setAttribute("d", path(shown.map(onCurve)));
    show(values);
  }

  // What changes as the reader moves something.
  let values = inRange(told());
  function show(next) {
    values = next;
    if (!width) return;
    const [first, second, weight] = values;
    const { mean, logOfMean, meanOfLog, gap } = jensen([first, second], weight);
    const places = [onCurve(first), onCurve(second), [across(mean), upwards(meanOfLog)]];
    nodes.forEach((node, i) => {
      node.style.transform = `translate(${places[i][0]}px, ${places[i][1]}px)`;
    });
    const areEqual = Math.abs(first - second) < EQUAL;
    pointLabels[0].textContent = areEqual ? "w\u2081 = w\u2082" : "w\u2081";
    pointLabels[1].textContent = areEqual ? "" : "w\u2082";
    pointLabels.forEach((label, i) => setAttributes(label, {
      x: Math.min(places[i][0] + 9, width - (areEqual ? 66 : 26)), y: places[i][1] + 23,
    }));
    const [[x1, y1], [x2, y2], [x, low]] = places;
    const high = upwards(logOfMean);
    setAttributes(chord, { x1, y1, x2, y2 });
    setAttributes(guide, { x1: x, x2: x, y1: low, y2: height - 18 });
    setAttributes(segment, { x1: x, x2: x, y1: low, y2: high });
    setAttributes(top, { cx: x, cy: high });
    // The lowest point of the curve has no room for it.
    meanLabel.textContent = low < height - 60 ? "mean" : "";
    setAttributes(meanLabel, { x, y: height - 22 });
    gapLabel.textContent = `gap ${number(gap)}`;
    const isRight = x > width - 110;
    setAttributes(gapLabel, {
      x: x + (isRight ? -14 : 14), y: (low + high) / 2, "text-anchor": isRight ? "end" : "start",
    });
    const [from, to] = [Math.min(first, second), Math.max(first, second)];
    const within = sampled.filter((w) => w > from && w < to);
    lens.setAttribute("d", `${path([from, ...within, to].map(onCurve))}Z`);

    values.forEach((value, i) => controls[i].show(value, formatNumber(value, 2)));
    [mean, logOfMean, meanOfLog, gap].forEach((value, i) => readings[i].show(number(value)));
    verdict.textContent = `The gap is ${judge([first, second], weight, gap)}`;
    speaker.say(() => (
      `log of the mean ${number(logOfMean)}, mean of the log ${number(meanOfLog)}, `
        + `gap ${number(gap)}: ${judge([first, second], weight, gap)}`
    ));
  }
  const { moveTo, glide, leave } = makeMover(model, ["w", "weight"], {
    read: told,
    write: () => ({ w: values.slice(0, 2), weight: values[2] }),
    inRange,
    show,
  });
  const speaker = makeSpeaker(status);

  // The reader's hand.
  const hands = nodes.map((node, i) => {
    const goal = (place) => values.map((old, j) => {
      if (i !== j) return old;
      return i === 2 ? nearestOnChord(place) : nearestOnCurve(place);
    });
    return {
      node,
      input: controls[i].input,
      goal,
      place: () => (i === 2
        ? [across(jensen(values, values[2]).mean), upwards(jensen(values, values[2]).meanOfLog)]
        : onCurve(values[i])),
      moveTo: (place) => moveTo(goal(place)),
    };
  });
  const nearerPoint = (place) => {
    const [first, second] = [0, 1].map((i) => Math.hypot(...minus(hands[i].place(), place)));
    return first < second ? hands[0] : hands[1];
  };
  makeDraggable(surface, hands, {
    choose: nearerPoint,
    tap: (place) => glide(values, nearerPoint(place).goal(place)),
  });

  const stopDrawing = keepDrawn(root, surface, drawBackground);

  return () => {
    stopDrawing();
    leave();
    speaker.hush();
  };
}

export { jensen };
export default { render };
