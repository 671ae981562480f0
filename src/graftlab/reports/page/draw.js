// How charts look and behave: the page's colours, drawn when seen, runs that light up together.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const hues = ["#3b6ea5", "#c2622d", "#3f8f5b", "#8a5aa8", "#b03a5b", "#7f7f33", "#2c8c99",
  "#b08030", "#6b7c9e", "#7d5f47"];
// Viridis from the best to the worst, without the end that the paper would swallow.
const onLight = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39"];
const onDark = ["#d2e21b", "#86d549", "#42be71", "#22a785", "#25858e", "#34618d", "#4d4a8a"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function scale() {
  return dark.matches ? onDark : onLight;
}

// Few runs get a hue each; many are coloured by the rank of their score.
function colours(runs) {
  if (runs.length <= hues.length) return new Map(runs.map((run, n) => [run.id, hues[n]]));
  const ranked = runs.filter((run) => run.score !== null).sort((a, b) => a.score - b.score);
  const found = new Map(runs.map((run) => [run.id, colour("soft")]));
  const steps = scale();
  ranked.forEach((run, n) => {
    found.set(run.id, steps[Math.floor(n / ranked.length * steps.length)]);
  });
  return found;
}

function layout(more = {}) {
  const line = colour("line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  return {
    height: 440, hovermode: "closest", margin: { l: 60, r: 20, t: 24, b: 46 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("soft") },
    hoverlabel: {
      bgcolor: colour("card"), bordercolor: line, font: { color: colour("ink") }, namelength: -1,
    },
    legend: { orientation: "h", y: -0.18, yanchor: "top", font: { size: 12 } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("line"), activecolor: colour("mark") },
    ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
  };
}

// Buttons by name: Plotly's own set has one that would send the chart away.
const settings = {
  responsive: true, displaylogo: false,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};

// A chart is drawn when its section comes into view, and again when what it shows has changed.
function chart(name, draw) {
  const place = document.getElementById(`${name}-chart`);
  let seen = false;
  let stale = true;
  const renew = () => {
    if (!seen || !stale) return;
    stale = false;
    draw(place);
  };
  const changed = () => {
    stale = true;
    renew();
  };
  new IntersectionObserver((entries) => {
    seen = entries.at(-1).isIntersecting;
    renew();
  }, { rootMargin: "200px" }).observe(place.closest("section"));
  page.on("shown", changed);
  dark.addEventListener("change", changed);
  return changed;
}

// Traces of one run carry its number as `meta`, points of many as `customdata`.
function plot(place, traces, arranged, more = {}) {
  const known = place.classList.contains("js-plotly-plot");
  if (!known) place.replaceChildren();
  Plotly.react(place, traces, arranged, { ...settings, ...more });
  if (known) return;
  place.on("plotly_hover", ({ points: [point] }) => {
    page.set("lit", point.customdata ?? point.data.meta ?? null);
  });
  place.on("plotly_unhover", () => page.set("lit", null));
}

// The run that is pointed at, anywhere, stands out in every chart whose traces are runs.
page.on("lit", (id) => {
  for (const place of document.querySelectorAll(".js-plotly-plot")) {
    const lines = [...place.querySelectorAll(".scatterlayer .trace")];
    const own = lines.filter((line) => id !== null && line.__data__?.[0]?.trace.meta === id);
    place.classList.toggle("dim", own.length > 0);
    lines.forEach((line) => line.classList.toggle("on", own.includes(line)));
  }
});

function nothing(place, text) {
  if (place.classList.contains("js-plotly-plot")) Plotly.purge(place);
  place.classList.remove("js-plotly-plot");
  place.replaceChildren(element("p", { class: "empty" }, text));
}

// Radio buttons above a chart; returns a function that tells which one is taken.
function choice(name, title, options, changed) {
  const labels = Object.entries(options).map(([value, label], n) => {
    const input = element("input", { type: "radio", name: `${name}-${title}`, value });
    input.checked = n === 0;
    input.addEventListener("change", changed);
    return element("label", {}, input, label);
  });
  const tools = document.querySelector(`[data-for="${name}"]`);
  tools.append(element("fieldset", {}, element("legend", {}, title), ...labels));
  return () => tools.querySelector(`[name="${name}-${title}"]:checked`).value;
}

// Few runs in their own order, as in a legend; of many the best last, so that it lies on top.
function shownRuns() {
  const runs = data.runs.filter((run) => page.shown.has(run.id));
  const score = (run) => run.score ?? Infinity;
  return runs.length <= hues.length ? runs : runs.sort((a, b) => score(b) - score(a));
}
