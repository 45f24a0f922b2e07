"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

/* Sorting: the first click puts the better end on top. */
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const first = head.dataset.better === "higher" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach((h) => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => Number(row.cells[column].dataset.sort);
    const body = table.tBodies[0];
    [...body.rows].sort((a, b) => sign * (value(a) - value(b))).forEach((row) => body.append(row));
  }));
}
for (const box of document.querySelectorAll(".show-paper")) {
  box.addEventListener("change", () => box.closest("section").querySelector("table").classList.toggle("with-paper", box.checked));
}
for (const box of document.querySelectorAll(".switch .show-variants")) {
  box.addEventListener("change", () => box.closest("section").querySelector("table").classList.toggle("few", !box.checked));
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text; /* text, never markup: prompts and names come from records */
  return made;
}

/* Decisions: a column per latent slot over the video's time, denoising steps from bottom to top. */
function drawDecisions(canvas, slots) {
  const steps = Math.max(1, ...slots.map((slot) => slot.length));
  canvas.width = Math.max(1, slots.length);
  canvas.height = steps;
  const pen = canvas.getContext("2d");
  slots.forEach((slot, x) => [...slot].forEach((code, step) => {
    pen.fillStyle = data.modes[code];
    pen.fillRect(x, steps - 1 - step, 1, 1);
  }));
}

function drawErrors(canvas, errors, top, colour) {
  const width = canvas.width = 400, height = canvas.height = 72, pen = canvas.getContext("2d");
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 2;
  pen.beginPath();
  errors.forEach((error, n) => pen.lineTo((n + 0.5) / errors.length * width, height - 2 - error / top * (height - 6)));
  pen.stroke();
  pen.lineTo(width, height); pen.lineTo(0, height);
  pen.globalAlpha = 0.12;
  pen.fill();
}

/* One prompt: its videos share a clock. The Original sets the time; a video more than half a frame off is moved to it. */
class Prompt {
  constructor(article) {
    this.article = article;
    this.players = [];
    this.playing = false;
    this.scrub = article.querySelector(".scrub");
    this.button = article.querySelector(".play");
    this.clock = article.querySelector(".clock");
    this.button.addEventListener("click", () => this.playing ? this.pause() : this.play());
    this.scrub.addEventListener("input", () => { this.pause(); this.seek(this.scrub.value * this.length()); });
    article.querySelector(".difference").addEventListener("change", (event) => {
      article.classList.toggle("differs", event.target.checked);
      this.show();
    });
    this.more = article.querySelector(".show-variants"); /* only if there are too many videos to show at once */
    if (this.more) this.more.addEventListener("change", () => { this.pause(); this.players = []; this.fill(); this.seek(0); });
  }

  /* Built when the prompt comes near the screen, so that a page with hundreds of videos opens quickly. */
  fill() {
    if (this.players.length) return;
    const list = data.prompts[this.article.dataset.index].filter((p) => !p.variant || !this.more || this.more.checked);
    const top = Math.max(1e-9, ...list.flatMap((player) => player.errors));
    this.players = list.map((facts) => this.player(facts, top));
    this.article.querySelector(".players").replaceChildren(...this.players.map((player) => player.box));
    this.videos = this.players.filter((player) => player.video).map((player) => player.video);
    this.reference = (this.players.find((p) => p.facts.original && p.video) || {}).video;
    this.leader = this.reference || this.videos[0];
    for (const video of this.videos) {
      video.addEventListener("seeked", () => this.show());
      video.addEventListener("loadeddata", () => this.show());
    }
    this.article.querySelector(".difference").disabled = !this.reference;
  }

  player(facts, top) {
    const box = element("div", "player" + (facts.original ? " original" : ""));
    const title = element("div", "title", facts.name);
    title.append(element("span", "", facts.numbers));
    const screen = element("div", "screen");
    const made = { facts, box, marks: [] };
    if (facts.video) {
      made.video = element("video");
      Object.assign(made.video, { muted: true, playsInline: true, preload: "auto", src: facts.video });
      made.video.addEventListener("loadedmetadata", () =>
        screen.style.setProperty("--shape", made.video.videoWidth + " / " + made.video.videoHeight));
      made.canvas = element("canvas");
      screen.append(made.video, made.canvas);
    } else {
      screen.append(element("div", "absent", "no video was written"));
    }
    if (facts.status) screen.append(element("div", "status", facts.status));
    box.append(title, screen);
    if (facts.warning) box.append(element("div", "warning", facts.warning));
    if (facts.slots.length) this.strip(made, 34, (c) => drawDecisions(c, facts.slots), "decisions", facts.slots.length + " slots");
    if (facts.errors.length) {
      const peak = Math.max(...facts.errors);
      this.strip(made, 36, (c) => drawErrors(c, facts.errors, top, facts.colour), facts.measure, "at most " + peak.toPrecision(2));
    }
    return made;
  }

  strip(made, height, draw, left, right) {
    const strip = element("div", "strip");
    strip.style.cssText = `position: relative; height: ${height}px`;
    const canvas = element("canvas");
    canvas.style.cssText = "width: 100%; height: 100%; display: block; image-rendering: pixelated; border-radius: 3px";
    const mark = element("div", "mark");
    mark.style.cssText = "position: absolute; top: -2px; bottom: -2px; width: 2px; margin-left: -1px; background: var(--accent); left: 0";
    draw(canvas);
    strip.append(canvas, mark);
    strip.addEventListener("click", (event) => {
      const area = strip.getBoundingClientRect();
      this.pause();
      this.seek((event.clientX - area.left) / area.width * this.length());
    });
    const caption = element("div", "caption");
    caption.append(element("span", "", left), element("span", "", right));
    made.marks.push(mark);
    made.box.append(strip, caption);
  }

  length() { return this.leader && this.leader.duration || 0; }

  seek(time) {
    const last = Math.max(0, this.length() - 0.001);
    for (const video of this.videos || []) video.currentTime = Math.min(time, last);
    this.show(time);
  }

  play() {
    this.fill();
    if (!this.leader) return;
    if (this.leader.currentTime >= this.length() - 0.05) this.seek(0);
    this.playing = true;
    this.button.textContent = "❚❚";
    Promise.all(this.videos.map((video) => video.play())).catch(() => this.pause());
    const tick = () => {
      if (!this.playing) return;
      const now = this.leader.currentTime;
      for (const video of this.videos) {
        if (video !== this.leader && !video.seeking && Math.abs(video.currentTime - now) > 0.06) video.currentTime = now;
      }
      this.show();
      if (this.leader.ended) { this.seek(0); this.play(); return; }
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  pause() {
    this.playing = false;
    this.button.textContent = "▶";
    for (const video of this.videos || []) video.pause();
  }

  show(time = this.leader ? this.leader.currentTime : 0) {
    const share = this.length() ? Math.min(1, time / this.length()) : 0;
    this.scrub.value = share;
    this.clock.textContent = time.toFixed(2) + " s";
    for (const player of this.players) {
      for (const mark of player.marks) mark.style.left = 100 * share + "%";
      if (player.canvas && this.article.classList.contains("differs")) this.subtract(player);
    }
  }

  /* |a - b| by compositing, which needs no reading of pixels and so works from a file. */
  subtract({ canvas, video, facts }) {
    if (facts.original || !this.reference || !video.videoWidth) return;
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    const pen = canvas.getContext("2d");
    pen.drawImage(video, 0, 0);
    pen.globalCompositeOperation = "difference";
    pen.drawImage(this.reference, 0, 0, canvas.width, canvas.height);
  }
}

const prompts = new Map([...document.querySelectorAll(".prompt")].map((article) => [article, new Prompt(article)]));
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) prompts.get(entry.target).fill();
    else if (prompts.get(entry.target).playing) prompts.get(entry.target).pause();
  }
}, { rootMargin: "300px" });
for (const article of prompts.keys()) watcher.observe(article);
