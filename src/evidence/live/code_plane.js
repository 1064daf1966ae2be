// What figures of a plane of codes share: what lies on it, and the way between codes and the screen.

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

// Draw an image of values from 0 (the page's background) to 1 (the colour of its text); by default
// as large as the canvas, else so wide and high, with its corner at a place.
function drawImage(canvas, values, ink, [left, top] = [0, 0], size = canvas.width) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  for (let i = 0; i < values.length; i++) {
    image.data.set([...ink, 255 * values[i]], 4 * i); // a clamped array: rounds, and keeps 0 to 255
  }
  context.putImageData(image, left, top);
}

// The plane: layers to draw, and what goes from codes to places on the screen and back.
function makePlane(model) {
  const { left, bottom, width: extent } = model.get("plane");
  const names = model.get("class_names");
  const codes = readCodes(model);
  const dots = element("canvas", { class: "cs-dots" });
  const ticks = svgElement("g", { class: "live-ticks" });
  const numerals = svgElement("g", { class: "cs-numerals" });
  const digits = Math.max(0, Math.ceil(-Math.log10(extent / 400)));
  const number = (value) => formatNumber(value, digits);
  let width = 0; // on the screen

  const inPlane = ([x, y]) => [
    Math.min(Math.max(x, left), left + extent), Math.min(Math.max(y, bottom), bottom + extent),
  ];
  const toPixels = (distance) => (distance / extent) * width;
  const toScreen = ([x, y]) => [toPixels(x - left), width - toPixels(y - bottom)];
  const toCode = ([x, y]) => inPlane([
    left + (x / width) * extent, bottom + (1 - y / width) * extent,
  ]);

  // Draw what does not change as the reader moves something; nothing where it has no width yet.
  function draw(surface, overlay, root, opacity = 0.62) {
    width = surface.clientWidth;
    if (!width) return false;
    plane.colors = model.get("colors")[isDark(root) ? "dark" : "light"];
    const ratio = window.devicePixelRatio || 1;
    dots.width = dots.height = Math.round(width * ratio);
    const context = dots.getContext("2d");
    context.scale(ratio, ratio);
    context.globalAlpha = opacity;
    const radius = Math.max(1.5, width / 210);
    for (let i = 0; i < model.get("drawn"); i++) {
      const [x, y] = toScreen(codes.at(i));
      context.fillStyle = plane.colors[codes.classes[i]];
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fill();
    }
    overlay.setAttribute("viewBox", `0 0 ${width} ${width}`);
    const axis = (i, name) => {
      const low = i ? bottom : left;
      return { low, high: low + extent, place: (tick) => toScreen([tick, tick])[i], name };
    };
    drawAxes(ticks, width, width, axis(0, "z\u2081"), axis(1, "z\u2082"));
    numerals.replaceChildren(...model.get("numerals").map((place, i) => {
      const [x, y] = toScreen(place);
      const numeral = svgElement("text", { x, y, dy: "0.36em" });
      numeral.textContent = names[i];
      return numeral;
    }));
    return true;
  }

  // Two sliders that only a keyboard and a screen reader find, to move a code: all arrow keys work
  // on the first; the second is there for who reaches it otherwise.
  function makeSliders(what, move) {
    let code = [left, bottom];
    const inputs = ["z\u2081", "z\u2082"].map((name, axis) => {
      const input = element("input", {
        type: "range", class: "live-unseen", step: "any",
        min: axis ? bottom : left,
        max: (axis ? bottom : left) + extent,
        "aria-label": `${name} of ${what}`,
        "aria-orientation": axis ? "vertical" : "horizontal",
        tabindex: axis ? "-1" : "0",
      });
      onArrowKeys(input, (step) => move(code.map((from, i) => from + extent * step[i])));
      // Home, End, the page keys, and what a screen reader does to a slider.
      input.addEventListener("input", () => {
        move(code.map((from, i) => (i === axis ? Number(input.value) : from)));
      });
      return input;
    });
    const show = (next) => {
      code = next;
      inputs.forEach((input, axis) => {
        input.value = code[axis];
        input.setAttribute("aria-valuetext", `code ${format(code)}`);
      });
    };
    return { inputs, show };
  }

  // A button for each class, and the colours that they get with the page's.
  const makeClassButtons = (label, go) => names.map((name, i) => {
    const button = element(
      "button", { type: "button", class: "cs-class", "aria-label": `${label} ${name}` }, name,
    );
    button.addEventListener("click", () => go(model.get("typical")[i]));
    return button;
  });
  const colorButtons = (buttons) => buttons.forEach((button, i) => {
    button.style.setProperty("--cs-color", plane.colors[i]);
  });

  const format = (code) => `(${code.map(number).join(", ")})`;
  const plane = {
    dots, ticks, numerals, codes, names, number, format, colors: [],
    inPlane, toPixels, toScreen, toCode, draw, makeSliders, makeClassButtons, colorButtons,
  };
  return plane;
}
