// What the book's pages need beside the theme's script.
"use strict";

// What scrolls sideways must be reachable by keyboard, and only then be a stop on the way.
const SCROLLERS = "div.math > .katex-display, .ledger-scroll, .pst-scrollable-table-container";

function markScrollers() {
  for (const element of document.querySelectorAll(SCROLLERS)) {
    if (element.scrollWidth > element.clientWidth) {
      element.tabIndex = 0;
      element.role = "group";
      element.ariaLabel = element.matches(".katex-display") ? "wide equation" : "wide table";
    } else {
      element.removeAttribute("tabindex");
      element.removeAttribute("role");
      element.removeAttribute("aria-label");
    }
  }
}

// Paper cannot be clicked: print what is folded, then fold it again.
function unfoldForPrint() {
  const folded = [...document.querySelectorAll(".bd-article details:not([open])")];
  folded.forEach((details) => (details.open = true));
  addEventListener("afterprint", () => folded.forEach((details) => (details.open = false)), {
    once: true,
  });
}

// A link into something folded opens it.
function unfoldTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let element = target; element; element = element.parentElement) {
    if (element.localName === "details") element.open = true;
  }
}

// A term of an equation and its explanation mark each other while the pointer or the keyboard is on
// either: the style sheet sees to that. A click or a tap keeps them marked.
function joinTerms(equation) {
  const buttons = [...equation.querySelectorAll(".terms button")];
  const numberOf = (part) => /term-\d+/.exec(part.closest(".term").className)[0];

  function choose(chosen) {
    for (const button of buttons) button.ariaPressed = button === chosen;
  }

  // In a narrow window, the term may be where the equation has to be scrolled to.
  function bringIntoView(button) {
    const term = equation.querySelector(`.katex .${numberOf(button)}`);
    const box = term.closest(".katex-display");
    const [inner, outer] = [term.getBoundingClientRect(), box.getBoundingClientRect()];
    if (inner.left >= outer.left && inner.right <= outer.right) return;
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    box.scrollBy({
      left: (inner.left + inner.right - outer.left - outer.right) / 2,
      behavior: isStill ? "instant" : "smooth",
    });
  }

  choose(null);
  equation.addEventListener("click", ({ target }) => {
    if (!target.closest(".term") || target.closest("a") || !getSelection().isCollapsed) return;
    const button = buttons.find((button) => numberOf(button) === numberOf(target));
    const isChosen = button.ariaPressed === "true";
    choose(isChosen ? null : button);
    if (!isChosen) bringIntoView(button);
  });
  equation.addEventListener("focusin", ({ target }) => {
    if (buttons.includes(target) && target.matches(":focus-visible")) bringIntoView(target);
  });
  equation.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") choose(null);
  });
}

document.querySelectorAll(".annotated").forEach(joinTerms);

// Widths are known once the fonts of the mathematics are.
document.fonts.ready.then(markScrollers);
addEventListener("resize", markScrollers);
addEventListener("beforeprint", unfoldForPrint);
addEventListener("hashchange", unfoldTarget);
unfoldTarget();
