// The map of a VAE's codes, a straight walk between two of them, and what the decoder makes of it.

const WALK_MS = 6000; // from one end to the other
const TILES = 13; // in a row of the decoder's map
const CURVE_POINTS = 60;
const LOG_TWO_PI = Math.log(2 * Math.PI);
const steadily = (time) => time;

// The logarithm of the prior's density, N(0, I), in nats.
const logPrior = (code) => code.reduce((sum, z) => sum - (z * z + LOG_TWO_PI) / 2, 0);

const onWalk = (start, end, walked) => (
  start.map((from, i) => (1 - walked) * from + walked * end[i])
);

// How dense the prior is on the way, beside its ends. Between them, never less than at both.
function judge(start, end, walked) {
  if (walked === 0) return "At the start";
  if (walked === 1) return "At the end";
  const ends = [logPrior(start), logPrior(end)];
  const here = logPrior(onWalk(start, end, walked));
  if (here > Math.max(...ends)) return "Denser than both ends";
  return here >= Math.min(...ends) ? "Denser than one end" : "Less dense than both ends";
}

function render({ model, el }) {
  const plane = makePlane(model);
  const size = model.get("size");
  const film = model.get("film");
  const decode = makeNetwork(model.get("layers"), model.get("weights"));
  const nats = (value) => `${formatNumber(value, 2)} nats`;
  const told = () => [...model.get("start"), ...model.get("end"), model.get("walked")];
  const inRange = (next) => [
    ...plane.inPlane(next.slice(0, 2)), ...plane.inPlane(next.slice(2, 4)),
    Math.min(Math.max(next[4], 0), 1),
  ];
  const startOf = (next) => next.slice(0, 2);
  const endOf = (next) => next.slice(2, 4);
  const withStart = (code) => [...code, ...values.slice(2)];
  const withEnd = (code) => [...startOf(values), ...code, values[4]];
  const withWalked = (walked) => [...values.slice(0, 4), walked];

  // What is on the page.
  const tiles = element("canvas", {
    class: "lm-tiles", width: TILES * size, height: TILES * size, hidden: true,
  });
  const path = svgElement("line", { class: "lm-path" });
  const arrow = svgElement("path", { class: "lm-arrow", d: "M-6 -6L6 0L-6 6Z" });
  const labels = ["start", "end"].map((name) => {
    const label = svgElement("text", { class: "live-label lm-label", "text-anchor": "middle" });
    label.textContent = name;
    return label;
  });
  const overlay = svgElement("svg", {}, plane.ticks, plane.numerals, path, arrow, ...labels);
  const sliders = [
    plane.makeSliders("the start", (code) => moveTo(withStart(code))),
    plane.makeSliders("the end", (code) => moveTo(withEnd(code))),
  ];
  const [startNode, endNode] = ["lm-start", "lm-end"].map((name, i) => element(
    "div", { class: `live-handle ${name}` }, ...sliders[i].inputs,
  ));
  const walkerNode = element("div", { class: "live-handle lm-walker" });
  const surface = element(
    "div", { class: "live-plane cs-plane", role: "group", "aria-label": "Map of codes" },
    element("div", { class: "live-drawing", "aria-hidden": "true" }, tiles, plane.dots, overlay),
    walkerNode, startNode, endNode,
  );
  const picture = (name, label) => element("canvas", {
    class: `cs-image ${name}`, width: size, height: size, role: "img", "aria-label": label,
  });
  const image = picture("lm-image", "Image decoded on the way");
  const ends = [picture("lm-small", "Image at the start"), picture("lm-small", "Image at the end")];
  const withName = (canvas, name) => element(
    "div", { class: "lm-named" }, canvas, element("div", { "aria-hidden": "true" }, name),
  );
  const control = makeControl({
    name: "walked", label: "How far walked", low: 0, high: 1,
  }, (walked) => moveTo(withWalked(walked)));
  const walkButton = element("button", { type: "button" }, "Walk");
  const tilesButton = element(
    "button", { type: "button", "aria-pressed": "false" }, "Decoder\u2019s map",
  );
  const readings = ["code z", "log p(z) here", "at the start", "at the end"].map(
    (name) => makeReading(name),
  );
  const verdict = element("div", { class: "live-verdict" });
  const strip = element("canvas", {
    class: "lm-strip", width: film * size, height: size, role: "img",
    "aria-label": `${film} images along the walk`,
  });
  const profileTicks = svgElement("g", { class: "live-ticks" });
  const curve = svgElement("path", { class: "lm-curve" });
  const here = svgElement("circle", { class: "lm-here", r: 6 });
  const profileSvg = svgElement("svg", {}, profileTicks, curve, here);
  const profile = element(
    "div", { class: "live-plane lm-profile", "aria-hidden": "true" },
    element("div", { class: "live-drawing" }, profileSvg),
  );
  const startButtons = plane.makeClassButtons("Start at a typical", (code) => (
    glide(values, [...withStart(code).slice(0, 4), 0])
  ));
  const endButtons = plane.makeClassButtons("End at a typical", (code) => (
    glide(values, withEnd(code))
  ));
  const jumps = (label, text, buttons) => element(
    "div", { class: "live-jumps lm-jumps", role: "group", "aria-label": label },
    element("span", { "aria-hidden": "true" }, text), ...buttons,
  );
  const status = element("div", { class: "live-unseen", role: "status" });
  const root = element(
    "div", { class: "live-root", role: "group", "aria-label": "A walk on the map of codes" },
    element(
      "div", { class: "live-grid lm-grid" },
      surface,
      element(
        "div", { class: "live-side" },
        element("div", { class: "live-heading" }, "Decoded on the way"),
        element(
          "div", { class: "lm-pictures" },
          withName(ends[0], "start"), image, withName(ends[1], "end"),
        ),
        control.node,
        element("div", { class: "lm-buttons" }, walkButton, tilesButton),
        ...readings.map((reading) => reading.node),
        verdict,
      ),
      element("div", { class: "live-wide lm-whole" }, strip, profile),
      jumps("Start", "Start at a typical", startButtons),
      jumps("End", "End at a typical", endButtons),
      element(
        "div", { class: "live-note" },
        "Drag the square (start), the diamond (end) or the walker between them, or focus one and "
          + "press the arrow keys (with Shift for longer steps).",
      ),
    ),
    status,
  );
  mount(model, el, root);

  // What does not change as the reader moves something.
  let ink = [0, 0, 0];
  let isDrawn = false;
  function drawBackground() {
    if (!plane.draw(surface, overlay, root, tiles.hidden ? 0.62 : 0.25)) return; // not on the page
    ink = computedColor(root);
    plane.colorButtons(startButtons);
    plane.colorButtons(endButtons);
    if (!tiles.hidden) drawTiles();
    isDrawn = true;
    shownWalk = "";
    show(values);
  }
  // The decoder at the middle of each tile.
  function drawTiles() {
    const middle = (i) => ((i + 0.5) / TILES) * surface.clientWidth;
    for (let row = 0; row < TILES; row++) {
      for (let column = 0; column < TILES; column++) {
        const code = plane.toCode([middle(column), middle(row)]);
        drawImage(tiles, decode(code), ink, [column * size, row * size], size);
      }
    }
  }

  // What changes with the ends: their images, those between, and the density along the walk.
  let shownWalk = "";
  function drawWalk([start, end]) {
    ends.forEach((canvas, i) => drawImage(canvas, decode([start, end][i]), ink));
    for (let i = 0; i < film; i++) {
      const code = onWalk(start, end, i / (film - 1));
      drawImage(strip, decode(code), ink, [i * size, 0], size);
    }
    const [wide, high] = [profile.clientWidth, profile.clientHeight];
    profileSvg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    const densities = Array.from(
      { length: CURVE_POINTS + 1 }, (_, i) => logPrior(onWalk(start, end, i / CURVE_POINTS)),
    );
    const [low, top] = [Math.min(...densities) - 0.5, Math.max(...densities) + 0.5];
    // As the images above: their middles are where they belong.
    across = (walked) => wide * (0.5 / film + walked * (1 - 1 / film));
    upwards = (density) => ((top - density) / (top - low)) * high;
    const places = densities.map((density, i) => (
      `${across(i / CURVE_POINTS)} ${upwards(density)}`
    ));
    curve.setAttribute("d", `M${places.join("L")}`);
    drawAxes(
      profileTicks, wide, high,
      { low: 0, high: 1, place: across, name: "walked", count: 4 },
      { low, high: top, place: upwards, name: "log p(z), nats", count: 3 },
    );
  }
  let [across, upwards] = [() => 0, () => 0];

  // What changes as the reader moves something.
  let values = inRange(told());
  function show(next) {
    values = next;
    if (!isDrawn) return;
    const [start, end, walked] = [startOf(values), endOf(values), values[4]];
    const code = onWalk(start, end, walked);
    if (shownWalk !== String([start, end])) {
      shownWalk = String([start, end]);
      drawWalk([start, end]);
    }
    drawImage(image, decode(code), ink);
    const places = [start, end, code].map(plane.toScreen);
    [startNode, endNode, walkerNode].forEach((node, i) => {
      node.style.transform = `translate(${places[i][0]}px, ${places[i][1]}px)`;
    });
    const [[x1, y1], [x2, y2]] = places;
    setAttributes(path, { x1, y1, x2, y2 });
    const turned = (Math.atan2(y2 - y1, x2 - x1) * 180) / Math.PI;
    const isShort = Math.hypot(x2 - x1, y2 - y1) < 60;
    setAttributes(arrow, {
      transform: `translate(${(x1 + 3 * x2) / 4} ${(y1 + 3 * y2) / 4}) rotate(${turned})`,
      visibility: isShort ? "hidden" : "visible",
    });
    labels.forEach((label, i) => {
      const [x, y] = places[i];
      // On the side that is away from the other end.
      const isAbove = y > 40 && (y < places[1 - i][1] || (y === places[1 - i][1] && i === 0));
      setAttributes(label, {
        x: Math.min(Math.max(x, 22), surface.clientWidth - 22), y: y + (isAbove ? -18 : 28),
      });
    });
    setAttributes(here, { cx: across(walked), cy: upwards(logPrior(code)) });

    const percent = `${Math.round(100 * walked)}\u00a0%`;
    control.show(walked, percent);
    sliders[0].show(start);
    sliders[1].show(end);
    const numbers = [code, start, end].map((place) => nats(logPrior(place)));
    [plane.format(code), ...numbers].forEach((text, i) => readings[i].show(text));
    verdict.textContent = judge(start, end, walked);
    walkButton.textContent = isGliding() ? "Stop" : "Walk";
    speaker.say(() => {
      image.setAttribute("aria-label", `Image decoded at the code ${plane.format(code)}`);
      return `${percent} of the way, code ${plane.format(code)}, log p of z ${numbers[0]}; `
        + verdict.textContent.toLowerCase();
    });
  }
  const { moveTo, glide, isGliding, leave } = makeMover(model, ["start", "end", "walked"], {
    read: told,
    write: () => ({ start: startOf(values), end: endOf(values), walked: values[4] }),
    inRange,
    show,
  });
  const speaker = makeSpeaker(status);

  // The reader's hand.
  const handOf = (node, input, codeOf, withCode) => ({
    node,
    input,
    place: () => plane.toScreen(codeOf(values)),
    goal: (place) => withCode(plane.toCode(place)),
    moveTo: (place) => moveTo(withCode(plane.toCode(place))),
  });
  const hands = [
    handOf(startNode, sliders[0].inputs[0], startOf, withStart),
    handOf(endNode, sliders[1].inputs[0], endOf, withEnd),
    handOf(
      walkerNode, control.input, (next) => onWalk(startOf(next), endOf(next), next[4]),
      (code) => {
        // The place of the walk that is nearest; anywhere, where both ends are one.
        const [start, along] = [startOf(values), minus(endOf(values), startOf(values))];
        const from = minus(code, start);
        const squared = along[0] ** 2 + along[1] ** 2;
        return withWalked(squared ? (along[0] * from[0] + along[1] * from[1]) / squared : 0);
      },
    ),
  ];
  const nearerEnd = (place) => {
    const [first, second] = hands.map((hand) => Math.hypot(...minus(hand.place(), place)));
    return first <= second ? hands[0] : hands[1];
  };
  makeDraggable(surface, hands, {
    choose: nearerEnd,
    tap: (place) => glide(values, nearerEnd(place).goal(place)),
  });
  walkButton.addEventListener("click", () => {
    if (isGliding()) {
      moveTo(values);
      return;
    }
    const from = values[4] === 1 ? 0 : values[4];
    glide(withWalked(from), withWalked(1), { ms: WALK_MS * (1 - from), ease: steadily });
    if (isGliding()) walkButton.textContent = "Stop";
  });
  tilesButton.addEventListener("click", () => {
    tiles.hidden = !tiles.hidden;
    tilesButton.setAttribute("aria-pressed", String(!tiles.hidden));
    drawBackground();
  });

  const stopDrawing = keepDrawn(root, surface, drawBackground);

  return () => {
    stopDrawing();
    leave();
    speaker.hush();
  };
}

export { judge, logPrior, makeNetwork, onWalk };
export default { render };
