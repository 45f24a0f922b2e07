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

/* Chunks: a bar over the frames of each, as high as the time when it was ready, out of `top` seconds. The line
 is the deadline at the playback rate; a bar above it is late. */
function drawReady(canvas, { chunks, length }, top, hue, edge) {
  const width = canvas.width = 400, height = canvas.height = 96, pen = canvas.getContext("2d");
  const x = (time) => time / length * width, y = (seconds) => height - 3 - Math.min(1, seconds / top) * (height - 8);
  pen.fillStyle = hue;
  for (const [start, stop, ready, late] of chunks) {
    pen.globalAlpha = late ? 1 : 0.4;
    pen.fillRect(x(start) + 1, y(ready), Math.max(1, x(stop) - x(start) - 2), height - y(ready));
  }
  pen.globalAlpha = 1;
  pen.strokeStyle = edge;
  pen.lineWidth = 3;
  pen.setLineDash([9, 6]);
  pen.beginPath();
  pen.moveTo(0, y(chunks[0][2]));
  pen.lineTo(x(Math.min(length, top - chunks[0][2])), y(Math.min(top, chunks[0][2] + length)));
  pen.stroke();
}

/* A video with its title, decisions and errors. */
function makePlayer(prompt, facts, top, slowest) {
  const box = element("div", "player" + (facts.original ? " original" : ""));
  box.style.setProperty("--light", facts.colours.light);
  box.style.setProperty("--dark", facts.colours.dark);
  const title = element("div", "title", facts.name);
  title.title = facts.name;
  title.append(element("span", "", facts.numbers));
  const screen = element("div", "screen");
  const made = { facts, box, marks: [], redraw: [] };
  if (facts.video) {
    made.video = element("video");
    Object.assign(made.video, { muted: true, playsInline: true, preload: "auto", src: facts.video });
    made.video.setAttribute("aria-label", `${facts.name} ${facts.numbers}`);
    made.video.addEventListener("loadedmetadata", () =>
      screen.style.setProperty("--shape", made.video.videoWidth + " / " + made.video.videoHeight));
    made.canvas = element("canvas");
    screen.append(made.video, made.canvas, element("div", "line"));
    dragDivider(prompt, screen);
  } else {
    screen.append(element("div", "absent", "no video was written"));
  }
  if (facts.status) screen.append(element("div", "status", facts.status));
  box.append(title, screen);
  if (facts.warning) box.append(element("div", "warning", facts.warning));
  if (facts.slots.length) {
    const said = "decisions: " + facts.decided;
    addStrip(prompt, made, "decided", (c) => drawDecisions(c, facts.slots), ["decisions", facts.slots.length + " slots"], said);
  }
  if (facts.ready) {
    const { first, total, late, of } = facts.ready, colour = (name) => getComputedStyle(box).getPropertyValue(name).trim();
    const told = of ? `${late} of ${of} late` : "one chunk";
    const said = `chunks ready: the first after ${first} s, the last after ${total} s, ${told}; full height is ${slowest} s`;
    addStrip(prompt, made, "ready", (c) => drawReady(c, facts.ready, slowest, colour("--hue"), colour("--ink")),
      [`ready ${first}–${total} s`, told], said);
  }
  if (facts.errors.length) {
    const peak = Math.max(...facts.errors).toPrecision(2), last = facts.errors[facts.errors.length - 1].toPrecision(2);
    const said = `${facts.measure} of each frame to the Original: at most ${peak}, ${last} at the end`;
    const hue = () => getComputedStyle(box).getPropertyValue("--hue").trim();
    addStrip(prompt, made, "errors", (c) => drawErrors(c, facts.errors, top, hue()), [facts.measure, "at most " + peak], said);
  }
  return made;
}

function addStrip(prompt, made, kind, draw, [left, right], said) {
  const strip = element("div", "strip " + kind), canvas = element("canvas"), mark = element("div", "mark");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", said);
  strip.append(canvas, mark);
  strip.addEventListener("click", (event) => {
    const area = strip.getBoundingClientRect();
    prompt.pause();
    prompt.seek((event.clientX - area.left) / area.width * prompt.length());
  });
  const caption = element("div", "caption");
  caption.append(element("span", "", left), element("span", "", right));
  made.marks.push(mark);
  made.redraw.push(() => draw(canvas));
  made.box.append(strip, caption);
  requestAnimationFrame(() => draw(canvas)); /* after the box has its place, and so its colours */
}

/* A/B wipe: dragging on any video moves the divider of all. */
function dragDivider(prompt, screen) {
  const move = (event) => {
    if (prompt.article.dataset.mode !== "wipe" || !(event.buttons & 1)) return;
    const area = screen.getBoundingClientRect();
    prompt.divide(Math.min(1, Math.max(0, (event.clientX - area.left) / area.width)));
  };
  screen.addEventListener("pointerdown", move);
  screen.addEventListener("pointermove", move);
}
