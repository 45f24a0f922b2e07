/* Links to a prompt, a time and a mode: #prompt=KEY&time=1.25&mode=wipe&against=NAME */
function linkTo(prompt, time) {
  const { key, mode } = prompt.article.dataset, parts = new URLSearchParams({ prompt: key, time: time.toFixed(3) });
  if (mode !== "videos") parts.set("mode", mode);
  if (mode !== "videos" && prompt.reference && !prompt.reference.facts.original) parts.set("against", prompt.reference.facts.name);
  return "#" + parts;
}

function follow() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const found = [...prompts].find(([article]) => article.dataset.key === wanted.get("prompt"));
  if (!found) return;
  const [article, prompt] = found, time = Number(wanted.get("time")) || 0;
  prompt.fill();
  prompt.look(wanted.get("mode") || "videos", wanted.get("against") || undefined);
  article.scrollIntoView();
  if (!prompt.leader) return;
  if (prompt.length()) prompt.seek(time);
  else prompt.leader.addEventListener("loadedmetadata", () => prompt.seek(time), { once: true });
}
addEventListener("hashchange", follow);
follow();
