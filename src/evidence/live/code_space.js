// The plane of an autoencoder's codes, a point that the reader moves, and what it decodes to.

function render({ model, el }) {
  const plane = makePlane(model);
  const { codes, names, number } = plane;
  const size = model.get("size");
  const far = model.get("far");
  const holes = model.get("holes");
  const decode = makeNetwork(model.get("layers"), model.get("weights"));
  const gaugeEnd = Math.max(1.15 * model.get("hole_radius"), 2 * far);

  // What is on the page.
  const circle = svgElement("circle", { class: "cs-circle" });
  const thread = svgElement("line", { class: "cs-thread" });
  const ring = svgElement("circle", { class: "cs-ring", r: 5.5 });
  const overlay = svgElement("svg", {}, plane.ticks, circle, plane.numerals, thread, ring);
  const sliders = plane.makeSliders("the code", (next) => moveTo(next));
  const handle = element("div", { class: "live-handle" }, ...sliders.inputs);
  const surface = element(
    "div", { class: "live-plane cs-plane", role: "group", "aria-label": "Plane of codes" },
    element("div", { class: "live-drawing", "aria-hidden": "true" }, plane.dots, overlay), handle,
  );
  const classButtons = plane.makeClassButtons("Jump to a typical", (code) => glideTo(code));
  const jumps = element(
    "div", { class: "live-jumps cs-jumps", role: "group", "aria-label": "Jump to" },
    element("span", { "aria-hidden": "true" }, "Jump to a typical"),
    ...classButtons,
    element("button", { type: "button", class: "cs-hole" }, "Jump to a hole"),
  );
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

  // What does not change as the point moves: dots, ticks, numerals, colours.
  let ink = [0, 0, 0];
  function drawBackground() {
    if (!plane.draw(surface, overlay, root)) return; // not on the page yet
    ink = computedColor(root);
    plane.colorButtons(classButtons);
    isDrawn = true;
    show(point);
  }

  // What changes as the point moves.
  let isDrawn = false;
  let point = plane.inPlane(model.get("point"));
  let shownNeighbour = -1;
  let shownInk = "";
  function show(next) {
    point = next;
    if (!isDrawn) return;
    const [x, y] = plane.toScreen(point);
    const { index, distance } = codes.nearest(point);
    const [nx, ny] = plane.toScreen(codes.at(index));
    const name = names[codes.classes[index]];
    handle.style.transform = `translate(${x}px, ${y}px)`;
    setAttributes(circle, { cx: x, cy: y, r: plane.toPixels(distance) });
    setAttributes(thread, { x1: x, y1: y, x2: nx, y2: ny });
    setAttributes(ring, { cx: nx, cy: ny });
    ring.style.fill = plane.colors[codes.classes[index]];

    drawImage(image, decode(point), ink);
    if (shownNeighbour !== index || shownInk !== String(ink)) {
      [shownNeighbour, shownInk] = [index, String(ink)];
      drawImage(neighbour, decode(codes.at(index)), ink);
      neighbour.setAttribute("aria-label", `Image decoded at the nearest training code, a ${name}`);
      neighbourText.textContent = `at the nearest code, a\u00a0${name}`;
    }
    const lonely = distance > far;
    root.classList.toggle("cs-lonely", lonely);
    const code = plane.format(point);
    codeText.textContent = code;
    distanceText.textContent = `${number(distance)} away`;
    verdict.textContent = lonely ? "Far from every training code" : "Among the training codes";
    level.style.width = `${Math.min(100, (100 * distance) / gaugeEnd)}%`;
    gauge.setAttribute("aria-valuenow", number(Math.min(distance, gaugeEnd)));
    gauge.setAttribute("aria-valuetext", number(distance));
    sliders.show(point);
    speaker.say(() => {
      image.setAttribute("aria-label", `Image decoded at the code ${code}`);
      return `code ${code}, nearest training code ${number(distance)} away, `
        + `looks like its class ${name}; ${verdict.textContent.toLowerCase()}`;
    });
  }
  const { moveTo, glide, leave } = makeMover(model, ["point"], {
    read: () => model.get("point"),
    write: () => ({ point: [...point] }),
    inRange: plane.inPlane,
    show,
  });
  const speaker = makeSpeaker(status);
  const glideTo = (goal) => glide(point, goal);

  // The reader's hand.
  const hand = {
    node: handle,
    input: sliders.inputs[0],
    place: () => plane.toScreen(point),
    moveTo: (place) => moveTo(plane.toCode(place)),
  };
  makeDraggable(surface, [hand], {
    choose: () => hand,
    tap: (place) => glideTo(plane.toCode(place)),
  });
  let hole = 0;
  holeButton.addEventListener("click", () => glideTo(holes[hole++ % holes.length]));

  const stopDrawing = keepDrawn(root, surface, drawBackground);

  return () => {
    stopDrawing();
    leave();
    speaker.hush();
  };
}

export { makeNetwork };
export default { render };
