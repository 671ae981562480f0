// How charts look and behave: colours of the page, drawn when seen, runs that light up together.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const hues = ["#3b6ea5", "#c2622d", "#3f8f5b", "#8a5aa8", "#b03a5b", "#7a7a2e", "#2c8c99", "#a8752a",
  "#5a6b8c", "#6b4f3a"];
// Viridis without its faintest end; the best is what stands out most from the paper.
const scale = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function scaleNow() {
  return dark.matches ? [...scale].reverse() : scale;
}

// Few runs get a hue each; many are coloured by the rank of their score, the best first.
function colours(ids) {
  if (ids.length <= hues.length) return new Map(ids.map((id, n) => [id, hues[n]]));
  const ranked = ids.filter((id) => data.runs[id].score !== null)
    .sort((a, b) => data.runs[a].score - data.runs[b].score);
  const steps = scaleNow();
  const step = (n) => steps[Math.min(steps.length - 1, Math.floor(n / ranked.length * steps.length))];
  return new Map([...ids.map((id) => [id, colour("soft")]), ...ranked.map((id, n) => [id, step(n)])]);
}

function layout(more = {}) {
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"),
    automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", height: 440,
    margin: { l: 60, r: 20, t: 16, b: 46 }, font: { family: "inherit", size: 12, color: colour("soft") },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    legend: { font: { size: 11 }, orientation: "v", itemclick: "toggle" },
    ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
  };
}

const settings = { responsive: true, displaylogo: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

// A chart is drawn when its section comes into view, and again when what it shows has changed.
function chart(name, draw) {
  const section = document.getElementById(name);
  let seen = false, stale = true;
  const renew = () => {
    if (seen && stale) { stale = false; draw(); }
  };
  const changed = () => { stale = true; renew(); };
  new IntersectionObserver((entries) => {
    seen = entries.some((entry) => entry.isIntersecting);
    renew();
  }, { rootMargin: "200px" }).observe(section);
  page.on("shown", changed);
  dark.addEventListener("change", changed);
  return changed;
}

// Traces that belong to a run carry its number as `meta`. Pointing at one lights up the run.
function plot(place, traces, arranged) {
  const first = !place.classList.contains("js-plotly-plot");
  Plotly.react(place, traces, arranged, settings);
  if (!first) return;
  place.on("plotly_hover", ({ points: [point] }) => page.set("lit", point.customdata ?? point.data.meta ?? null));
  place.on("plotly_unhover", () => page.set("lit", null));
  page.on("lit", (id) => {
    const lines = [...place.querySelectorAll(".scatterlayer .trace")];
    const own = lines.filter((line) => id !== null && line.__data__?.[0]?.trace.meta === id);
    place.classList.toggle("dim", own.length > 0);
    lines.forEach((line) => line.classList.toggle("on", own.includes(line)));
  });
}

// Radio buttons above a chart; `changed` is called when another one is taken.
function choice(name, title, options, changed) {
  const place = document.querySelector(`[data-for="${name}"]`);
  const inputs = Object.entries(options).map(([value, label], n) => {
    const input = element("input", { type: "radio", name: `${name}-${title}`, value });
    input.checked = n === 0;
    input.addEventListener("change", changed);
    return [input, element("label", {}, input, label)];
  });
  place.append(element("fieldset", {}, element("legend", {}, title), ...inputs.map(([, label]) => label)));
  return () => inputs.find(([input]) => input.checked)[0].value;
}

function shownRuns() {
  return data.runs.filter((run) => page.shown.has(run.id));
}
