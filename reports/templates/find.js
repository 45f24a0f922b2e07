/* Prompts are filled when they come near the screen, and pause when they leave it. */
const prompts = new Map([...document.querySelectorAll(".prompt")].map((article) => [article, new Prompt(article)]));
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) prompts.get(entry.target).fill();
    else if (prompts.get(entry.target).playing) prompts.get(entry.target).pause();
  }
}, { rootMargin: "300px" });
for (const article of prompts.keys()) watcher.observe(article);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const prompt of prompts.values()) for (const player of prompt.players) player.redraw.forEach((draw) => draw());
});
addEventListener("beforeprint", () => document.querySelectorAll("details.notes").forEach((part) => { part.open = true; }));

/* Search: a prompt has all words; a method has one of the names between commas. */
const findPrompts = document.getElementById("find-prompts"), findMethods = document.getElementById("find-methods");
function find() {
  const words = findPrompts.value.toLowerCase().split(/\s+/).filter(Boolean);
  const names = findMethods.value.toLowerCase().split(",").map((name) => name.trim()).filter(Boolean);
  const wanted = (name) => !names.length || names.some((part) => name.toLowerCase().includes(part));
  let shown = 0;
  for (const [article, prompt] of prompts) {
    const text = article.querySelector("h3").textContent.toLowerCase();
    article.hidden = !words.every((word) => text.includes(word));
    if (article.hidden) prompt.pause(); else shown += 1;
    prompt.filter(wanted);
  }
  for (const row of document.querySelectorAll("table.sortable tbody tr")) {
    row.hidden = !("original" in row.dataset) && !wanted(row.dataset.name);
  }
  document.getElementById("found").textContent = words.length ? `${shown} of ${prompts.size} prompts` : "";
}
for (const box of [findPrompts, findMethods]) if (box) box.addEventListener("input", find);

/* Keyboard: the prompt that has the focus, else the first on the screen. */
function current() {
  const own = document.activeElement && document.activeElement.closest(".prompt");
  const middle = (article) => { const area = article.getBoundingClientRect(); return !article.hidden && area.bottom > 120 && area.top < innerHeight - 120; };
  return prompts.get(own || [...prompts.keys()].find(middle));
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target, arrow = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const scrub = target.classList.contains("scrub");
  if (!scrub && target.closest("input, select, textarea, a, button, summary")) {
    if (!(arrow && target.classList.contains("play"))) return;
  }
  if (target.closest(".wide, video[controls]")) return; /* a table scrolls with the arrows */
  const prompt = arrow || event.key === " " ? current() : undefined;
  if (!prompt) return;
  event.preventDefault();
  if (arrow) prompt.step(event.shiftKey ? 10 * arrow : arrow); else prompt.toggle();
});
