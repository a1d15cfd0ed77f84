// The page

function choices(name, options, value, changed) {
  return html("div", { class: "choices", role: "radiogroup", "aria-label": name }, ...Object.entries(options).map(([key, words]) => {
    const input = html("input", { type: "radio", name, value: key });
    input.checked = key === value;
    input.addEventListener("change", () => changed(key));
    return html("label", {}, input, html("span", {}, words));
  }));
}

function tagChoices() {
  const groups = new Map();
  for (const tag of data.tags) {
    const group = tag.includes("/") ? tag.slice(0, tag.indexOf("/")) : "";
    groups.set(group, [...(groups.get(group) || []), tag]);
  }
  return html("div", { class: "tags" }, ...[...groups].map(([group, tags]) => html("div", { class: "choices" }, html("em", {}, group),
    ...tags.map((tag) => {
      const input = html("input", { type: "checkbox", value: tag });
      input.checked = state.tags.has(tag);
      input.addEventListener("change", () => {
        state.tags[input.checked ? "add" : "delete"](tag);
        show({});
      });
      return html("label", { title: tag }, input, html("span", {}, tag.slice(group ? group.length + 1 : 0)));
    }))));
}

function swatch(look) {
  const line = svg("line", { x1: 1, x2: 27, y1: 6, y2: 6 });
  line.style.setProperty("--colour", look.colour);
  line.style.strokeDasharray = look.dashes.map((length) => length * 2).join(" ");
  return svg("svg", { class: "swatch", width: 28, height: 12 }, line);
}

function legend(run) {
  const items = run.jobs.filter((job) => job.kept).map((job) => html("li", {}, swatch(job.look), job.words));
  const notes = run.best ? [html("li", { class: "best-words" }, html("i"), run.best.words)] : [];
  if (Object.values(run.lines).flat().some((line) => !line.kept)) {
    notes.push(html("li", { class: "again-words" }, html("i"), "trained again by a later job"));
  }
  return [html("ul", { class: "legend" }, ...items), html("ul", { class: "legend notes" }, ...notes)];
}

const controls = html("div", { class: "controls" });
const charts = html("div", { class: "charts" });
const reset = html("button", { type: "button", hidden: "" }, "whole curve");
reset.addEventListener("click", () => show({ zoom: null }));
controls.append(choices("x axis", AXES, state.axis, (axis) => show({ axis, zoom: null })));
if (several) {
  controls.append(choices("runs", { yes: "overlaid", no: "side by side" }, "yes", (key) => show({ together: key === "yes" })));
}
controls.append(reset, html("small", {}, "drag across a chart to look closer"));
figure.append(controls, tagChoices(), charts);

/** Draw all charts anew, with what has changed. */
function show(change) {
  Object.assign(state, change);
  reset.hidden = !state.zoom;
  const span = state.zoom || wholeSpan();
  const groups = new Map();
  for (const tag of data.tags.filter((name) => state.tags.has(name))) {
    groups.set(measure(tag), [...(groups.get(measure(tag)) || []), tag]);
  }
  const beside = several && !state.together;
  charts.classList.toggle("beside", beside);
  const parts = beside ? data.runs.map((run) => [run]) : [data.runs];
  const gap = 24;
  const width = Math.max(320, beside && figure.clientWidth > 900 ? (figure.clientWidth - gap) / 2 : figure.clientWidth);
  charts.replaceChildren(...parts.map((runs) => {
    const drawn = [...groups].map(([name, tags]) => new Chart(name, tags, runs, span, width))
      .filter((chart) => chart.series.length).map((chart) => chart.draw());
    const runLegend = () => [html("ul", { class: "legend" }, ...runs.map((run) => html("li", {}, swatch(run.look), run.name)))];
    const below = runs.length > 1 ? runLegend() : legend(runs[0]);
    return html("section", { "data-axis": state.axis }, ...drawn, ...(drawn.length ? below : [html("p", {}, "No curve is chosen.")]));
  }));
}

let wide = 0;
new ResizeObserver(() => {
  if (figure.clientWidth === wide) return;
  wide = figure.clientWidth;
  show({});
}).observe(figure);
