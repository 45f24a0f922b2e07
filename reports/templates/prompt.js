/* One prompt: its videos share a clock. The Original sets the time; a video more than half a frame off is moved to it. */
class Prompt {
  constructor(article) {
    this.article = article;
    this.players = [];
    this.playing = false;
    this.wanted = () => true;
    for (const name of ["scrub", "play", "clock", "mode", "against", "divider", "permalink"]) {
      this[name + "_"] = article.querySelector("." + name);
    }
    this.play_.addEventListener("click", () => this.toggle());
    this.scrub_.addEventListener("input", () => { this.pause(); this.seek(this.scrub_.value * this.length()); });
    this.mode_.addEventListener("change", () => this.look(this.mode_.value));
    this.against_.addEventListener("change", () => this.look(this.mode_.value, this.against_.value));
    this.divider_.addEventListener("input", () => this.divide(Number(this.divider_.value)));
    this.more = article.querySelector(".show-variants"); /* only if there are too many videos to show at once */
    if (this.more) this.more.addEventListener("change", () => { this.pause(); this.players = []; this.fill(); this.seek(0); });
    article.dataset.mode = "videos";
  }

  /* Built when the prompt comes near the screen, so that a page with hundreds of videos opens quickly. */
  fill() {
    if (this.players.length) return;
    const list = data.prompts[this.article.dataset.index].filter((p) => !p.variant || !this.more || this.more.checked);
    const top = Math.max(1e-9, ...list.flatMap((player) => player.errors));
    const slowest = Math.max(0, ...list.map((player) => player.ready ? player.ready.total : 0));
    this.players = list.map((facts) => makePlayer(this, facts, top, slowest));
    this.article.querySelector(".players").replaceChildren(...this.players.map((player) => player.box));
    const shown = this.players.filter((player) => player.video);
    this.videos = shown.map((player) => player.video);
    this.reference = shown.find((player) => player.facts.original);
    this.leader = (this.reference || shown[0] || {}).video;
    this.against_.replaceChildren(...shown.map((player) => new Option(player.facts.name)));
    if (this.reference) this.against_.value = this.reference.facts.name;
    this.reference = this.reference || shown[0];
    for (const video of this.videos) {
      video.addEventListener("seeked", () => this.show());
      video.addEventListener("loadeddata", () => this.show());
    }
    this.mode_.disabled = shown.length < 2;
    this.filter(this.wanted);
    this.look(this.mode_.value);
  }

  length() { return this.leader && this.leader.duration || 0; }

  rate() { return (this.players.find((player) => player.facts.fps) || { facts: { fps: 8 } }).facts.fps; }

  seek(time) {
    const last = Math.max(0, this.length() - 0.001);
    for (const video of this.videos || []) video.currentTime = Math.min(Math.max(0, time), last);
    this.show(Math.min(Math.max(0, time), last));
  }

  /* By whole frames, to the middle of a frame, where rounding cannot show its neighbour. */
  step(frames) {
    this.fill();
    this.pause();
    const rate = this.rate(), last = Math.max(0, Math.round(this.length() * rate) - 1);
    const now = Math.floor((this.leader ? this.leader.currentTime : 0) * rate + 1e-6);
    this.seek((Math.min(Math.max(0, now + frames), last) + 0.5) / rate);
  }

  toggle() { if (this.playing) this.pause(); else this.play(); }

  play() {
    this.fill();
    if (!this.leader) return;
    if (this.leader.currentTime >= this.length() - 0.05) this.seek(0);
    this.playing = true;
    this.play_.textContent = "❚❚";
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
    this.play_.textContent = "▶";
    for (const video of this.videos || []) video.pause();
  }

  show(time = this.leader ? this.leader.currentTime : 0) {
    const share = this.length() ? Math.min(1, time / this.length()) : 0;
    this.scrub_.value = share;
    this.clock_.textContent = `${time.toFixed(2)} s, frame ${Math.floor(time * this.rate() + 1e-6)}`;
    this.permalink_.href = linkTo(this, time);
    for (const player of this.players) {
      for (const mark of player.marks) mark.style.left = 100 * share + "%";
      if (player.canvas) this.compare(player);
    }
  }

  /* mode: "videos", "difference" or "wipe"; against: the name of the video that the others are compared with. */
  look(mode, against = this.against_.value) {
    const known = [...this.mode_.options].some((option) => option.value === mode);
    this.mode_.value = this.article.dataset.mode = known ? mode : "videos";
    const found = this.players.find((player) => player.video && player.facts.name === against);
    if (found) this.reference = found;
    if (found) this.against_.value = against;
    for (const player of this.players) player.box.classList.toggle("compared-with", player === this.reference);
    this.divide(Number(this.divider_.value));
  }

  divide(share) {
    this.divider_.value = share;
    this.article.style.setProperty("--divider", 100 * share + "%");
    this.show();
  }

  /* Compositing needs no reading of pixels, and so works from a file: |a - b|, or A left of the divider and B right. */
  compare({ canvas, video, box }) {
    const mode = this.article.dataset.mode, other = this.reference && this.reference.video;
    if (mode === "videos" || !other || video === other || box.hidden || !video.videoWidth) return;
    const width = canvas.width = video.videoWidth, height = canvas.height = video.videoHeight;
    const pen = canvas.getContext("2d");
    pen.drawImage(video, 0, 0);
    if (mode === "difference") {
      pen.globalCompositeOperation = "difference";
    } else {
      pen.beginPath();
      pen.rect(0, 0, width * this.divider_.value, height);
      pen.clip();
    }
    pen.drawImage(other, 0, 0, width, height);
  }

  /* The Original stays: the others are compared with it. */
  filter(wanted) {
    this.wanted = wanted;
    for (const { facts, box } of this.players) box.hidden = !facts.original && !wanted(facts.name);
    this.show();
  }
}
