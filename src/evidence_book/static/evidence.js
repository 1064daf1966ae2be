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

// Widths are known once the fonts of the mathematics are.
document.fonts.ready.then(markScrollers);
addEventListener("resize", markScrollers);
addEventListener("beforeprint", unfoldForPrint);
addEventListener("hashchange", unfoldTarget);
unfoldTarget();
