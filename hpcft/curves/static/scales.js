// Draws the curves of this page. All data are in it: nothing is fetched, and it works from a file without a network.
"use strict";

const data = JSON.parse(document.getElementById("drawn").textContent);
const figure = document.getElementById("figure");
const state = { axis: data.axis, tags: new Set(data.chosen), together: true, zoom: null };
const AXES = { step: "steps", hours: "active hours", time: "time" };
const MARGIN = { left: 64, right: 16, top: 40, bottom: 40 };
const HEIGHT = 340;
const several = data.runs.length > 1;

for (const run of data.runs) {
  for (const lines of Object.values(run.lines)) {
    for (const line of lines) {
      const job = run.jobs[line.job];
      line.values = line.values.map(Number); // "NaN" and "Infinity" come as words: JSON has no others
      line.at = {
        step: line.steps,
        hours: line.times.map((t) => job.before + Math.min(job.hours, Math.max(0, t / 3600))),
        time: line.times.map((t) => job.begins + t),
      };
    }
  }
}

// Elements

function html(name, attributes = {}, ...children) {
  return build(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function build(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Words

const grouped = (number) => Math.round(number).toLocaleString("en");
const measure = (tag) => tag.slice(tag.lastIndexOf("/") + 1);
const isEvaluation = (tag) => /^(validation|test)\//.test(tag);

function short(value) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(3).replace(/\.?0+e/, "e");
  return Number(value.toPrecision(5)).toLocaleString("en", { maximumFractionDigits: 10 });
}

function clock(seconds, from = 0, to = 19) {
  return new Date((seconds + data.zone) * 1000).toISOString().replace("T", " ").slice(from, to);
}

// Scales

function ticks(low, high, count, whole = false) {
  const rough = Math.max((high - low) / count, whole ? 1 : 1e-12);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough && (!whole || Number.isInteger(n))) || rough;
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step + 0); // no -0
  return found;
}

const MINUTE = 60, HOUR = 3600, DAY = 86400;
const INTERVALS = [1, 5, 15, 30, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY,
  2 * DAY, 7 * DAY, 30 * DAY, 90 * DAY, 365 * DAY];

function timeTicks(low, high, count) {
  const step = INTERVALS.find((seconds) => (high - low) / seconds <= count) || high - low;
  const first = Math.ceil((low + data.zone) / step) * step - data.zone;
  const found = [];
  for (let at = first; at <= high; at += step) {
    const day = found.length === 0 || (at + data.zone) % DAY < step;
    found.push([at, step >= DAY ? clock(at, 5, 10) : clock(at, 11, step < MINUTE ? 19 : 16), day ? clock(at, 0, 10) : ""]);
  }
  return found;
}

function axisTicks(low, high, width) {
  const count = Math.max(2, Math.floor(width / 110));
  if (state.axis === "time") return timeTicks(low, high, count);
  const words = state.axis === "step" ? grouped : (hours) => `${Number(hours.toPrecision(6))} h`;
  return ticks(low, high, count, state.axis === "step").map((at) => [at, words(at), ""]);
}

// Where things lie

/** Index of the first point at or behind a place. */
function search(places, place) {
  let low = 0, high = places.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (places[middle] < place) low = middle + 1;
    else high = middle;
  }
  return low;
}

function nearest(places, place) {
  const index = search(places, place);
  return index > 0 && (index === places.length || place - places[index - 1] < places[index] - place) ? index - 1 : index;
}

function startOf(job) {
  return { step: job.resume, hours: job.before, time: job.begins }[state.axis];
}

/** Where a run went beyond a step. */
function placeOfStep(run, step) {
  if (state.axis === "step") return step;
  const found = (run.lines["train/loss"] || []).filter((line) => line.kept)
    .map((line) => line.at[state.axis][search(line.steps, step + 1)]).filter((at) => at !== undefined);
  return found.length ? Math.min(...found) : undefined;
}

/** From the first to the last place of all that is chosen. */
function wholeSpan() {
  let low = Infinity, high = -Infinity;
  for (const run of data.runs) {
    for (const tag of state.tags) {
      for (const line of run.lines[tag] || []) {
        const at = line.at[state.axis];
        // What a job took to start is seen, too.
        low = Math.min(low, at[0], state.axis === "step" ? Infinity : startOf(run.jobs[line.job]));
        high = Math.max(high, at[at.length - 1]);
      }
    }
  }
  const margin = Math.max((high - low) * 0.015, state.axis === "step" ? 0.5 : 1e-4);
  return [low - margin, high + margin];
}
