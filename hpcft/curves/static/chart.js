// One chart

class Chart {
  /** The chosen tags of one measure, of one run or of several. */
  constructor(name, tags, runs, span, width) {
    Object.assign(this, { name, tags, runs, span, width });
    this.single = runs.length === 1;
    const top = this.single ? MARGIN.top - (runs[0].phases.length ? 0 : 16) : 12;
    this.plot = { left: MARGIN.left, right: width - MARGIN.right, top, bottom: HEIGHT - MARGIN.bottom };
    const shown = (line) => this.single || line.kept;
    this.series = runs.flatMap((run) => tags.flatMap((tag) => (run.lines[tag] || []).filter(shown).map((line) => ({ run, tag, line }))));
    const range = this.range();
    this.x = (at) => this.plot.left + ((at - span[0]) / (span[1] - span[0])) * (this.plot.right - this.plot.left);
    this.y = (value) => this.plot.bottom - ((value - range[0]) / (range[1] - range[0])) * (this.plot.bottom - this.plot.top);
    this.place = (x) => span[0] + ((x - this.plot.left) / (this.plot.right - this.plot.left)) * (span[1] - span[0]);
    this.low = range[0];
    this.high = range[1];
  }

  /** The lowest and the highest value in sight, with some air. */
  range() {
    let low = Infinity, high = -Infinity;
    for (const { line } of this.series) {
      const at = line.at[state.axis];
      const end = search(at, this.span[1]);
      for (let i = search(at, this.span[0]); i < end; i++) {
        if (!Number.isFinite(line.values[i])) continue;
        low = Math.min(low, line.values[i]);
        high = Math.max(high, line.values[i]);
      }
    }
    if (low > high) [low, high] = [0, 1];
    const air = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    return [low - air, high + air];
  }

  look({ run, line }) {
    return this.single ? run.jobs[line.job].look : run.look;
  }

  draw() {
    const { left, right, top, bottom } = this.plot;
    const id = `clip-${Math.random().toString(36).slice(2)}`;
    const title = this.single && several ? `${this.runs[0].name}: ${this.name}` : this.name;
    this.root = svg("svg", { width: this.width, height: HEIGHT, role: "img", "aria-label": title });
    this.root.append(svg("clipPath", { id }, svg("rect", { x: left, y: top - 2, width: right - left + 10, height: bottom - top + 4 })));
    this.drawGround();
    this.lines = svg("g", { "clip-path": `url(#${id})` });
    // What was trained again lies below, evaluations above, and of each the later jobs below the earlier.
    const height = ({ line, tag }) => (line.kept ? 1 : 0) + (line.kept && isEvaluation(tag) ? 1 : 0);
    for (const one of [...this.series].reverse().sort((a, b) => height(a) - height(b))) this.drawLine(one);
    this.drawBest();
    this.cursor = svg("g", { class: "cursor" });
    this.root.append(this.lines, this.cursor);
    this.tip = html("div", { class: "tip", hidden: "" });
    const box = html("div", { class: "chart", "data-chart": this.name, "data-runs": this.runs.map((run) => run.name).join(" ") },
      html("h3", {}, title), this.root, this.tip);
    this.listen();
    return box;
  }

  drawGround() {
    const { left, right, top, bottom } = this.plot;
    const ground = svg("g", { class: "ground" });
    if (this.single) this.drawPhases(ground);
    for (const value of ticks(this.low, this.high, 8)) {
      ground.append(svg("line", { class: "grid", x1: left, x2: right, y1: this.y(value), y2: this.y(value) }));
      ground.append(svg("text", { x: left - 8, y: this.y(value) + 4, "text-anchor": "end" }, short(value)));
    }
    ground.append(svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
    for (const [at, words, day] of axisTicks(...this.span, right - left)) {
      ground.append(svg("line", { class: "axis", x1: this.x(at), x2: this.x(at), y1: bottom, y2: bottom + 4 }));
      ground.append(svg("text", { x: this.x(at), y: bottom + 17, "text-anchor": "middle" }, words));
      if (day) ground.append(svg("text", { class: "day", x: this.x(at), y: bottom + 31, "text-anchor": "middle" }, day));
    }
    if (this.single) this.drawStarts(ground);
    this.root.append(ground);
  }

  /** Tinted ground for every second phase, and its name. */
  drawPhases(ground) {
    const run = this.runs[0];
    const { left, right, top, bottom } = this.plot;
    const edges = run.phases.map((phase, i) => (i ? this.x(placeOfStep(run, phase.begins)) : left));
    run.phases.forEach((phase, i) => {
      if (Number.isNaN(edges[i])) return; // it has no step yet
      const from = Math.max(left, edges[i]);
      const to = Math.min(right, Number.isNaN(edges[i + 1] ?? NaN) ? right : edges[i + 1]);
      if (from >= to) return;
      if (i % 2) ground.append(svg("rect", { class: "phase", x: from, y: top, width: to - from, height: bottom - top }));
      if (i && from > left) ground.append(svg("line", { class: "border", x1: from, x2: from, y1: top, y2: bottom }));
      ground.append(svg("text", { class: "phase-name", x: from + 2, y: top - 22 }, i ? phase.name : `phase ${phase.name}`));
    });
  }

  /** A dashed line where each job begins, and its label as far as there is room. */
  drawStarts(ground) {
    const { left, right, top, bottom } = this.plot;
    const run = this.runs[0];
    const there = new Set(this.series.filter(({ line }) => line.kept).map(({ line }) => line.job));
    const jobs = run.jobs.filter((job, i) => there.has(i) && this.x(startOf(job)) < right);
    const at = jobs.map((job) => Math.max(left, this.x(startOf(job))));
    const room = (words) => 6.4 * words.length + 8;
    const fits = jobs.every((job, i) => (at[i + 1] ?? right) - at[i] >= room(job.label));
    let free = -Infinity;
    jobs.forEach((job, i) => {
      if (i) ground.append(svg("line", { class: "start", x1: at[i], x2: at[i], y1: top, y2: bottom, "data-job": job.label }));
      const words = fits ? job.label : String(job.number);
      if (at[i] < free) return;
      free = at[i] + room(words);
      const name = svg("text", { class: "job-name", x: at[i] + 2, y: top - 6 }, words);
      name.style.setProperty("--colour", job.look.colour);
      ground.append(name);
    });
  }

  drawLine(one) {
    const { run, tag, line } = one;
    const look = this.look(one);
    const job = run.jobs[line.job];
    const kind = `${line.kept ? "kept" : "superseded"}${isEvaluation(tag) ? " evaluation" : ""}`;
    const path = svg("path", { class: kind, d: this.path(one), "data-run": run.name, "data-job": job.label, "data-tag": tag });
    path.style.setProperty("--colour", look.colour);
    if (line.kept && look.dashes.length) path.style.strokeDasharray = look.dashes.join(" ");
    path.append(svg("title", {}, `${run.name}, ${tag}, ${job.words}${line.kept ? "" : ", trained again by a later job"}`));
    this.lines.append(path);
    const finite = line.values.filter(Number.isFinite).length;
    if (!isEvaluation(tag) && finite !== 1) return;
    const marks = svg("g", { class: `marks ${kind}` });
    marks.style.setProperty("--colour", look.colour);
    const radius = finite > 60 ? 2 : 3.6;
    line.values.forEach((value, i) => {
      const cx = this.x(line.at[state.axis][i]);
      if (Number.isFinite(value)) marks.append(svg("circle", { cx, cy: this.y(value), r: radius }));
    });
    this.lines.append(marks);
  }

  /** The path through a line's points: of each pixel column its first, lowest, highest and last one, so that no spike is
   * lost. It is broken where a value is no number, and where a phase begins whose losses are of another kind. */
  path({ run, tag, line }) {
    const at = line.at[state.axis];
    const borders = run.phases.filter((phase) => phase.apart).map((phase) => phase.begins);
    const era = (step) => borders.filter((border) => border < step).length;
    const parts = [];
    let pen = "M", current = null, column = [], last = null;
    const flush = () => {
      if (!column.length) return;
      let low = column[0], high = column[0];
      for (const i of column) {
        if (line.values[i] < line.values[low]) low = i;
        if (line.values[i] > line.values[high]) high = i;
      }
      for (const i of [...new Set([column[0], low, high, column[column.length - 1]])].sort((a, b) => a - b)) point(at[i], line.values[i]);
      column = [];
    };
    const point = (place, value) => {
      parts.push(`${pen}${this.x(place).toFixed(1)},${this.y(value).toFixed(1)}`);
      pen = "L";
    };
    const left = this.leftAt(run, tag, line);
    if (left) {
      point(left.at, left.value);
      last = era(left.step);
    }
    const from = Math.max(0, search(at, this.span[0]) - 1);
    const to = Math.min(at.length, search(at, this.span[1]) + 1);
    for (let i = from; i < to; i++) {
      const age = era(line.steps[i]);
      if (!Number.isFinite(line.values[i]) || (last !== null && age !== last)) {
        flush();
        pen = "M";
      }
      last = age;
      if (!Number.isFinite(line.values[i])) continue;
      const here = Math.floor(this.x(at[i]));
      if (here !== current) flush();
      current = here;
      column.push(i);
    }
    flush();
    return parts.join("");
  }

  /** The point where a line sets out: the last one that survives before it, on the axis of steps. Nothing is learnt in a
   * wait, or while a job starts: over them a line only joins evaluations, which are few. What was trained again sets out
   * where its job left the curve. */
  leftAt(run, tag, line) {
    const joined = state.axis === "step" || (state.axis === "hours" && isEvaluation(tag));
    const before = run.lines[tag].filter((other) => other.kept && other.steps[0] < line.steps[0]
      && (line.kept ? joined : other.job === line.job));
    const other = before[before.length - 1];
    const i = other ? search(other.steps, line.steps[0]) - 1 : -1;
    return i < 0 || !Number.isFinite(other.values[i]) ? null
      : { at: other.at[state.axis][i], value: other.values[i], step: other.steps[i] };
  }

  /** A ring around the validation loss of the best model on disk. */
  drawBest() {
    const run = this.runs[0];
    if (!this.single || !run.best || !this.tags.includes("validation/loss")) return;
    for (const line of run.lines["validation/loss"] || []) {
      const i = line.kept ? line.steps.indexOf(run.best.step) : -1;
      if (i < 0) continue;
      const ring = svg("circle", { class: "best", cx: this.x(line.at[state.axis][i]), cy: this.y(line.values[i]), r: 8 });
      this.lines.append(build(ring, {}, [svg("title", {}, run.best.words)]));
    }
  }

  // What the pointer does

  listen() {
    let from = null;
    const band = svg("rect", { class: "band", y: this.plot.top, height: this.plot.bottom - this.plot.top, width: 0 });
    const inside = (event) => Math.min(this.plot.right, Math.max(this.plot.left, event.offsetX));
    this.root.addEventListener("pointermove", (event) => {
      if (from === null) return this.point(event.offsetX);
      const [low, high] = [from, inside(event)].sort((a, b) => a - b);
      return build(band, { x: low, width: high - low }, []);
    });
    this.root.addEventListener("pointerleave", () => from === null && this.leave());
    this.root.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      from = inside(event);
      this.root.setPointerCapture(event.pointerId);
      this.root.append(build(band, { width: 0 }, []));
    });
    this.root.addEventListener("pointerup", (event) => {
      const [low, high] = [from, inside(event)].sort((a, b) => a - b);
      from = null;
      band.remove();
      if (high - low > 5) show({ zoom: [this.place(low), this.place(high)] });
    });
    this.root.addEventListener("dblclick", () => show({ zoom: null }));
  }

  leave() {
    this.tip.hidden = true;
    this.cursor.replaceChildren();
  }

  /** Show the values at the point that is nearest to this place. */
  point(x) {
    const place = this.place(x);
    const found = this.series.map((one) => {
      const index = nearest(one.line.at[state.axis], place);
      return { ...one, index, at: one.line.at[state.axis][index], step: one.line.steps[index], value: one.line.values[index] };
    }).filter(({ at }) => at >= this.span[0] && at <= this.span[1]);
    const distance = ({ at }) => Math.abs(at - place);
    const nearestFirst = (a, b) => distance(a) - distance(b) || b.line.kept - a.line.kept;
    const [head] = found.sort(nearestFirst);
    if (!head) return this.leave();
    const rows = new Map();
    for (const one of found) {
      const name = `${one.run.name} ${one.tag} ${one.line.kept}`;
      if (!rows.has(name) && (one.line.kept || one.step === head.step)) rows.set(name, one);
    }
    this.cursor.replaceChildren(svg("line", { x1: this.x(head.at), x2: this.x(head.at), y1: this.plot.top, y2: this.plot.bottom }));
    for (const one of rows.values()) {
      if (!Number.isFinite(one.value)) continue;
      const dot = svg("circle", { cx: this.x(one.at), cy: this.y(one.value), r: 4 });
      dot.style.setProperty("--colour", one.line.kept ? this.look(one).colour : "var(--again)");
      this.cursor.append(dot);
    }
    this.tip.replaceChildren(...this.words(head, [...rows.values()]));
    this.tip.hidden = false;
    const right = this.x(head.at) > (this.plot.left + this.plot.right) / 2;
    this.tip.style.left = right ? "" : `${this.x(head.at) + 14}px`;
    this.tip.style.right = right ? `${this.width - this.x(head.at) + 14}px` : "";
    return undefined;
  }

  words(head, rows) {
    const job = head.run.jobs[head.line.job];
    const hours = head.line.at.hours[head.index];
    const order = (one) => this.runs.indexOf(one.run) * 1000 + this.tags.indexOf(one.tag) * 2 + !one.line.kept;
    return [
      html("b", { class: "tip-step" }, `step ${grouped(head.step)}`),
      html("span", { class: "tip-job" }, this.single ? job.words : head.run.name),
      html("span", { class: "tip-time" }, `${clock(head.line.at.time[head.index])} ${data.zone_name}, ${short(hours)} active hours`),
      ...rows.sort((a, b) => order(a) - order(b)).map((one) => {
        const swatch = html("i");
        swatch.style.background = one.line.kept ? this.look(one).colour : "var(--again)";
        const where = one.step === head.step ? "" : ` at step ${grouped(one.step)}`;
        const name = this.single ? one.tag : `${one.run.name} ${one.tag}`;
        return html("span", { class: "tip-row", "data-tag": one.tag },
          swatch, html("b", {}, short(one.value)), ` ${name}${where}${one.line.kept ? "" : ", trained again later"}`);
      }),
    ];
  }
}
