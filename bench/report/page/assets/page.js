// A chart in a part of the page that is closed has no width: it is drawn when the part is opened.
const draw = place => {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "yes";
  vegaEmbed(place, JSON.parse(document.getElementById(place.dataset.chart).textContent), {renderer: "svg", actions: false});
};
for (const place of document.querySelectorAll("[data-chart]"))
  if (!place.closest("details.more")) draw(place);
for (const part of document.querySelectorAll("details.more"))
  part.addEventListener("toggle", () => part.querySelectorAll("[data-chart]").forEach(draw));

// A table that is wider than its place says so.
for (const place of document.querySelectorAll(".wide")) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.textContent = "This table is wider than the page: scroll it sideways →";
  hint.hidden = true;
  place.before(hint);
  const observer = new ResizeObserver(() => { hint.hidden = place.scrollWidth <= place.clientWidth; });
  observer.observe(place);
  observer.observe(place.firstElementChild);
}

// Browsers may have no clipboard for a file: then the text is selected and copied.
const copy = async text => {
  try {
    await navigator.clipboard.writeText(text.textContent);
  } catch {
    getSelection().selectAllChildren(text);
    document.execCommand("copy");
  }
};
for (const button of document.querySelectorAll("[data-copy]"))
  button.addEventListener("click", async () => {
    await copy(document.getElementById(button.dataset.copy));
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  });
