// Runs the live figures of a built page: what a notebook's widget manager does, without a kernel.
//
// A figure's place in the page holds its state as JSON; its ES module comes as text, in a script
// that calls `define`, because a browser imports no module file from a page opened as file://.
(() => {
  "use strict";

  const START_AHEAD = "800px"; // of coming into view
  const sources = new Map(); // name of a kind of figure -> text of its module
  const imported = new Map(); // name -> promise of its module
  const figures = []; // those that run, for who looks with the browser's console

  // The part of a widget's model that a figure uses (https://anywidget.dev/en/afm/).
  class Model {
    #state;
    #listeners = new Map();

    constructor(state) {
      this.#state = state;
    }

    get(name) {
      return this.#state[name];
    }

    set(name, value) {
      if (Object.is(this.#state[name], value)) return;
      this.#state[name] = value;
      this.#emit(`change:${name}`, value);
      this.#emit("change");
    }

    on(event, callback) {
      this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), callback]);
    }

    off(event, callback) {
      if (!event) this.#listeners.clear();
      else if (!callback) this.#listeners.delete(event);
      else this.#listeners.set(event, (this.#listeners.get(event) ?? []).filter((c) => c !== callback));
    }

    // Nobody is there to be told.
    save_changes() {}

    send() {}

    #emit(event, ...values) {
      for (const callback of this.#listeners.get(event) ?? []) callback(...values);
    }
  }

  function readState(text) {
    const { values, buffers } = JSON.parse(text);
    for (const [name, base64] of Object.entries(buffers)) {
      const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
      values[name] = new DataView(bytes.buffer);
    }
    return values;
  }

  function importModule(name) {
    if (!imported.has(name)) {
      if (!sources.has(name)) throw new Error(`no module of the name ${name} was loaded`);
      const url = URL.createObjectURL(new Blob([sources.get(name)], { type: "text/javascript" }));
      imported.set(name, import(url).finally(() => URL.revokeObjectURL(url)));
    }
    return imported.get(name);
  }

  async function start(place) {
    try {
      const module = await importModule(place.dataset.live);
      const model = new Model(readState(place.querySelector(".live-state").textContent));
      const stage = place.querySelector(".live-stage");
      await module.default.render({ model, el: stage });
      place.classList.add("live-started");
      figures.push({ place, model, module });
      // In the order of the page, whichever was ready first.
      figures.sort((one, other) =>
        one.place.compareDocumentPosition(other.place) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1);
    } catch (error) {
      // The picture stays: the reader loses the motion, not the figure.
      place.querySelector(".live-stage").replaceChildren();
      console.error("A live figure did not start.", error);
    }
  }

  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      start(target);
    }
  }, { rootMargin: START_AHEAD });

  window.EvidenceLive = { define: (name, source) => sources.set(name, source), figures };
  // Scripts are deferred, in order: at this event all modules are there.
  document.addEventListener("DOMContentLoaded", () => {
    for (const place of document.querySelectorAll("[data-live]")) seen.observe(place);
  });
})();
