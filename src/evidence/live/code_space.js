// The plane of an autoencoder's codes, a point that the reader moves, and what it decodes to.

const GRID = 65535;

// The training codes, and the nearest of them to a point.
function readCodes(model) {
  const { left, bottom, width } = model.get("plane");
  const steps = readUint16(model.get("codes"));
  const coordinates = Float64Array.from(
    steps, (step, i) => (i % 2 ? bottom : left) + (step / GRID) * width,
  );
  const nearest = ([x, y]) => {
    let index = 0;
    let least = Infinity;
    for (let i = 0; i < coordinates.length; i += 2) {
      const squared = (coordinates[i] - x) ** 2 + (coordinates[i + 1] - y) ** 2;
      if (squared < least) [least, index] = [squared, i / 2];
    }
    return { index, distance: Math.sqrt(least) };
  };
  return {
    classes: readUint8(model.get("classes")),
    at: (index) => [coordinates[2 * index], coordinates[2 * index + 1]],
    nearest,
  };
}

// Draw an image of values from 0 (the page's background) to 1 (the colour of its text).
function drawImage(canvas, values, ink) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < values.length; i++) {
    image.data.set([...ink, 255 * values[i]], 4 * i); // a clamped array: rounds, and keeps 0 to 255
  }
  context.putImageData(image, 0, 0);
}

function render({ model, el }) {
  const plane = model.get("plane");
  const size = model.get("size");
  const names = model.get("class_names");
  const far = model.get("far");
  const holes = model.get("holes");
  const codes = readCodes(model);
  const decode = makeNetwork(model.get("layers"), model.get("weights"));
  const digits = Math.max(0, Math.ceil(-Math.log10(plane.width / 400)));
  const number = (value) => formatNumber(value, digits);
  const gaugeEnd = Math.max(1.15 * model.get("hole_radius"), 2 * far);

  // What is on the page.
  const dots = element("canvas", { class: "cs-dots" });
  const ticks = svgElement("g", { class: "live-ticks" });
  const circle = svgElement("circle", { class: "cs-circle" });
  const thread = svgElement("line", { class: "cs-thread" });
  const ring = svgElement("circle", { class: "cs-ring", r: 5.5 });
  const numerals = svgElement("g", { class: "cs-numerals" });
  const overlay = svgElement("svg", {}, ticks, circle, numerals, thread, ring);
  const sliders = ["z\u2081", "z\u2082"].map((name, axis) => element("input", {
    type: "range", class: "live-unseen", step: "any",
    min: axis ? plane.bottom : plane.left,
    max: (axis ? plane.bottom : plane.left) + plane.width,
    "aria-label": `${name} of the code`,
    "aria-orientation": axis ? "vertical" : "horizontal",
    // All arrow keys work on the first; the second is there for who reaches it otherwise.
    tabindex: axis ? "-1" : "0",
  }));
  const handle = element("div", { class: "live-handle" }, ...sliders);
  const surface = element(
    "div", { class: "live-plane cs-plane", role: "group", "aria-label": "Plane of codes" },
    element("div", { class: "live-drawing", "aria-hidden": "true" }, dots, overlay), handle,
  );
  const jumps = element(
    "div", { class: "live-jumps cs-jumps", role: "group", "aria-label": "Jump to" },
    element("span", { "aria-hidden": "true" }, "Jump to a typical"),
    ...names.map((name) => element(
      "button", { type: "button", class: "cs-class", "aria-label": `Jump to a typical ${name}` },
      name,
    )),
    element("button", { type: "button", class: "cs-hole" }, "Jump to a hole"),
  );
  const classButtons = [...jumps.querySelectorAll(".cs-class")];
  const holeButton = jumps.querySelector(".cs-hole");
  const [image, neighbour] = ["cs-image", "cs-neighbour"].map((name) => element("canvas", {
    class: name, width: size, height: size, role: "img", "aria-label": "Decoded image",
  }));
  const neighbourText = element("div", {});
  const codeText = element("span", { class: "live-number" });
  const distanceText = element("span", { class: "live-number" });
  const verdict = element("div", { class: "live-verdict" });
  const level = element("div", { class: "cs-level" });
  const gauge = element(
    "div", {
      class: "cs-gauge", role: "meter", "aria-label": "Distance to the nearest training code",
      "aria-valuemin": 0, "aria-valuemax": number(gaugeEnd),
    },
    level, element("div", { class: "cs-mark", style: `left: ${(100 * far) / gaugeEnd}%` }),
  );
  const status = element("div", { class: "live-unseen", role: "status" });
  const root = element(
    "div", { class: "live-root", role: "group", "aria-label": "Code space of the autoencoder" },
    element(
      "div", { class: "live-grid cs-grid" },
      surface,
      element(
        "div", { class: "live-side" },
        element("div", { class: "live-heading" }, "Decoded at the point"),
        element(
          "div", { class: "cs-pictures" }, image,
          element("div", { class: "cs-inset" }, neighbour, neighbourText),
        ),
        element("div", { class: "live-reading" }, element("span", {}, "code z"), codeText),
        element(
          "div", { class: "live-reading" },
          element("span", {}, "nearest code"), distanceText,
        ),
        gauge, verdict,
        element(
          "div", { class: "live-note" },
          `Mark: 99\u00a0% of the training codes have another one within ${number(far)}.`,
        ),
      ),
      jumps,
      element(
        "div", { class: "live-note" },
        "Drag the point, or focus it and press the arrow keys (with Shift for longer steps).",
      ),
    ),
    status,
  );
  mount(model, el, root);

  // From codes to places on the screen, and back.
  let width = 0;
  const toScreen = ([x, y]) => [
    ((x - plane.left) / plane.width) * width,
    (1 - (y - plane.bottom) / plane.width) * width,
  ];
  const toCode = ([x, y]) => inPlane([
    plane.left + (x / width) * plane.width,
    plane.bottom + (1 - y / width) * plane.width,
  ]);
  const inPlane = ([x, y]) => [
    Math.min(Math.max(x, plane.left), plane.left + plane.width),
    Math.min(Math.max(y, plane.bottom), plane.bottom + plane.width),
  ];

  // What does not change as the point moves: dots, ticks, numerals, colours.
  let ink = [0, 0, 0];
  let colors = [];
  function drawBackground() {
    width = surface.clientWidth;
    if (!width) return; // not on the page yet
    colors = model.get("colors")[isDark(root) ? "dark" : "light"];
    ink = computedColor(root);
    const ratio = window.devicePixelRatio || 1;
    dots.width = dots.height = Math.round(width * ratio);
    const context = dots.getContext("2d");
    context.scale(ratio, ratio);
    context.globalAlpha = 0.62;
    const radius = Math.max(1.5, width / 210);
    for (let i = 0; i < model.get("drawn"); i++) {
      const [x, y] = toScreen(codes.at(i));
      context.fillStyle = colors[codes.classes[i]];
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fill();
    }
    overlay.setAttribute("viewBox", `0 0 ${width} ${width}`);
    const axis = (i, name) => {
      const low = i ? plane.bottom : plane.left;
      return { low, high: low + plane.width, place: (tick) => toScreen([tick, tick])[i], name };
    };
    drawAxes(ticks, width, width, axis(0, "z\u2081"), axis(1, "z\u2082"));
    numerals.replaceChildren(...model.get("numerals").map((place, i) => {
      const [x, y] = toScreen(place);
      const numeral = svgElement("text", { x, y, dy: "0.36em" });
      numeral.textContent = names[i];
      return numeral;
    }));
    classButtons.forEach((button, i) => button.style.setProperty("--cs-color", colors[i]));
    show(point);
  }

  // What changes as the point moves.
  let point = inPlane(model.get("point"));
  let shownNeighbour = -1;
  let shownInk = "";
  function show(next) {
    point = next;
    if (!width) return;
    const [x, y] = toScreen(point);
    const { index, distance } = codes.nearest(point);
    const [nx, ny] = toScreen(codes.at(index));
    const name = names[codes.classes[index]];
    handle.style.transform = `translate(${x}px, ${y}px)`;
    setAttributes(circle, { cx: x, cy: y, r: (distance / plane.width) * width });
    setAttributes(thread, { x1: x, y1: y, x2: nx, y2: ny });
    setAttributes(ring, { cx: nx, cy: ny });
    ring.style.fill = colors[codes.classes[index]];

    drawImage(image, decode(point), ink);
    if (shownNeighbour !== index || shownInk !== String(ink)) {
      [shownNeighbour, shownInk] = [index, String(ink)];
      drawImage(neighbour, decode(codes.at(index)), ink);
      neighbour.setAttribute("aria-label", `Image decoded at the nearest training code, a ${name}`);
      neighbourText.textContent = `at the nearest code, a\u00a0${name}`;
    }
    const lonely = distance > far;
    root.classList.toggle("cs-lonely", lonely);
    const code = `(${number(point[0])}, ${number(point[1])})`;
    codeText.textContent = code;
    distanceText.textContent = `${number(distance)} away`;
    verdict.textContent = lonely ? "Far from every training code" : "Among the training codes";
    level.style.width = `${Math.min(100, (100 * distance) / gaugeEnd)}%`;
    gauge.setAttribute("aria-valuenow", Math.min(distance, gaugeEnd).toFixed(digits));
    gauge.setAttribute("aria-valuetext", number(distance));
    sliders.forEach((slider, axis) => {
      slider.value = point[axis];
      slider.setAttribute("aria-valuetext", `code ${code}`);
    });
    speaker.say(() => {
      image.setAttribute("aria-label", `Image decoded at the code ${code}`);
      return `code ${code}, nearest training code ${number(distance)} away, `
        + `looks like its class ${name}; ${verdict.textContent.toLowerCase()}`;
    });
  }
  function moveTo(next) {
    glider.stop();
    show(inPlane(next));
    tell();
  }
  const teller = makeTeller(model, ["point"], () => {
    glider.stop();
    show(inPlane(model.get("point")));
  });
  const tell = () => teller.tell({ point: [...point] });
  const speaker = makeSpeaker(status);
  const glider = makeGlider(show, tell);
  const glideTo = (goal) => glider.glide(point, inPlane(goal));

  // The reader's hand.
  const hand = {
    node: handle,
    input: sliders[0],
    place: () => toScreen(point),
    moveTo: (place) => moveTo(toCode(place)),
  };
  makeDraggable(surface, [hand], {
    choose: () => hand,
    tap: (place) => glideTo(toCode(place)),
  });
  sliders.forEach((slider, axis) => {
    onArrowKeys(slider, (step) => moveTo(point.map((from, i) => from + plane.width * step[i])));
    // Home, End, the page keys, and what a screen reader does to a slider.
    slider.addEventListener("input", () => {
      moveTo(point.map((from, i) => (i === axis ? Number(slider.value) : from)));
    });
  });
  classButtons.forEach((button, i) => {
    button.addEventListener("click", () => glideTo(model.get("typical")[i]));
  });
  let hole = 0;
  holeButton.addEventListener("click", () => glideTo(holes[hole++ % holes.length]));

  const stopDrawing = keepDrawn(root, surface, drawBackground);

  return () => {
    stopDrawing();
    teller.leave();
    glider.stop();
    speaker.hush();
  };
}

export { makeNetwork };
export default { render };
