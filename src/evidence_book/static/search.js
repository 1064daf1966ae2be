// Search results show the text around what was found. A formula stands in a page three times, as
// MathML, as TeX and drawn: its first form is text enough.
{
  const { htmlToText } = Search;
  Search.htmlToText = (page, anchor) => {
    const parsed = new DOMParser().parseFromString(page, "text/html");
    for (const copy of parsed.querySelectorAll(".katex-html, .katex annotation")) copy.remove();
    return htmlToText(parsed.documentElement.outerHTML, anchor);
  };
}
