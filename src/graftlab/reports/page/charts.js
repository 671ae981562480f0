// The charts: loss curves, parallel coordinates, heat maps, loss against cost.
"use strict";

{
  const axes = { step: "step", tokens: "tokens", seconds: "seconds of training" };
  const lossTitle = "validation loss (nats per token)";

  function nothing(place, text) {
    Plotly.purge(place);
    place.classList.remove("js-plotly-plot");
    place.replaceChildren(element("p", { class: "empty" }, text));
  }

  function line(run, kind, axis, look) {
    return {
      x: run[kind][axis], y: run[kind].loss, meta: run.id, name: run.label, mode: "lines",
      hovertemplate: `<b>%{y:.4f}</b> ${kind === "valid" ? "validation" : "training"} at %{x:,}` +
        "<extra>%{fullData.name}</extra>", ...look,
    };
  }

  function curves() {
    const place = document.getElementById("curves-chart");
    const runs = shownRuns(), axis = across(), kinds = which() === "both" ? ["train", "valid"] : [which()];
    const hue = colours(runs.map((run) => run.id)), few = runs.length <= hues.length;
    const traces = runs.flatMap((run) => kinds.filter((kind) => run[kind].loss.length).map((kind, n) =>
      line(run, kind, axis, {
        showlegend: few && n === 0, legendgroup: run.id, mode: kind === "valid" && few ? "lines+markers" : "lines",
        line: { color: hue.get(run.id), width: few ? 2 : 1, dash: kind === "train" && kinds.length > 1 ? "dot" : "solid" },
        opacity: few ? 1 : 0.75, marker: { size: 5, color: hue.get(run.id) },
      })));
    if (!traces.length) return nothing(place, "No run that is shown has logged a loss.");
    plot(place, traces, layout({
      xaxis: { title: { text: axes[axis] } },
      yaxis: { title: { text: "loss (nats per token)" }, type: height() },
    }));
  }

  const redraw = () => renewCurves();
  const which = choice("curves", "loss", { valid: "validation", train: "training", both: "both" }, redraw);
  const across = choice("curves", "by", { step: "step", tokens: "tokens", seconds: "time" }, redraw);
  const height = choice("curves", "scale", { linear: "linear", log: "logarithmic" }, redraw);
  const renewCurves = chart("curves", curves);

  // Where a value lies on an axis of parallel coordinates: 0 below, 1 above.
  function height01(parameter, value) {
    const { values, log } = parameter;
    if (values.every((other) => typeof other === "number")) {
      const to = log ? Math.log : (number) => number;
      const [low, high] = [to(values[0]), to(values.at(-1))];
      return high > low ? (to(value) - low) / (high - low) : 0.5;
    }
    return values.length > 1 ? values.indexOf(value) / (values.length - 1) : 0.5;
  }

  function parallel() {
    const place = document.getElementById("parallel-chart");
    const runs = shownRuns().filter((run) => run.counts);
    if (!data.parameters.length || !runs.length) return nothing(place, "No finished runs that differ are shown.");
    const scores = [...new Set(runs.map((run) => run.score))].sort((a, b) => a - b);
    const last = { name: "validation loss", values: scores, log: false, score: true };
    const columns = [...data.parameters, last];
    const ids = runs.map((run) => run.id), hue = colours(ids);
    const at = (run, column) => height01(column, column.score ? run.score : run.values[column.key]);
    const traces = runs.map((run) => ({
      x: columns.map((_, n) => n), y: columns.map((column) => at(run, column)), meta: run.id, mode: "lines",
      line: { color: hue.get(run.id), width: 1.5, shape: "spline", smoothing: 0.6 }, opacity: 0.8, showlegend: false,
      text: columns.map(() => `<b>${run.score.toFixed(4)}</b> ${run.label}`), hovertemplate: "%{text}<extra></extra>",
    }));
    plot(place, traces, layout({
      annotations: columns.flatMap(ticks), hoverdistance: 40,
      shapes: columns.map((_, n) => ({ type: "line", x0: n, x1: n, y0: 0, y1: 1, line: { color: colour("soft"), width: 1 } })),
      xaxis: { tickvals: columns.map((_, n) => n), ticktext: columns.map(({ name }) => name), side: "top",
        range: [-0.35, columns.length - 0.65], showgrid: false, zeroline: false, fixedrange: true },
      yaxis: { visible: false, range: [-0.06, 1.06], fixedrange: true },
    }));
  }

  // At most seven values are written beside an axis, the first and the last among them.
  function ticks(column, n) {
    const count = column.values.length, most = Math.min(7, count);
    const places = [...new Set(Array.from({ length: most }, (_, k) => Math.round(k * (count - 1) / Math.max(1, most - 1))))];
    const kept = column.score ? [0, count - 1] : places;
    return [...new Set(kept)].map((k) => ({
      x: n, y: height01(column, column.values[k]), text: written(column.values[k]), showarrow: false,
      xanchor: "left", xshift: 4, bgcolor: colour("paper"), borderpad: 1, opacity: 0.85, font: { size: 11, color: colour("ink") },
    }));
  }

  chart("parallel", parallel);

  function maps() {
    const place = document.getElementById("maps-chart");
    if (!data.maps.length) return nothing(place, "Fewer than two keys were varied among the finished runs.");
    const all = data.maps.flatMap((map) => map.means.flat()).filter((mean) => mean !== null);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const steps = scaleNow().map((hue, n, { length }) => [n / (length - 1), hue]);
    place.classList.add("maps");
    place.replaceChildren();
    const names = Object.fromEntries(data.parameters.map(({ key, name }) => [key, name]));
    data.maps.forEach((map, n) => {
      const cell = place.appendChild(element("div", { id: `map-${n}` }));
      Plotly.newPlot(cell, [{
        type: "heatmap", z: map.means, x: map.labels[0], y: map.labels[1], zmin: low, zmax: high, colorscale: steps,
        customdata: map.points, xgap: 2, ygap: 2, colorbar: { thickness: 10, outlinewidth: 0, title: { text: "" } },
        texttemplate: map.means.length * map.means[0].length <= 36 ? "%{z:.3f}" : "",
        hovertemplate: "<b>%{z:.4f}</b>, mean of %{customdata}<br>%{xaxis.title.text} %{x}, %{yaxis.title.text} %{y}<extra></extra>",
      }], layout({
        height: 320, margin: { l: 60, r: 10, t: 10, b: 46 },
        xaxis: { type: "category", showgrid: false, title: { text: names[map.keys[0]] } },
        yaxis: { type: "category", showgrid: false, title: { text: names[map.keys[1]] } },
      }), { ...settings, displayModeBar: false });
    });
  }

  chart("maps", maps);

  function cost() {
    const place = document.getElementById("cost-chart"), price = paid();
    const runs = shownRuns().filter((run) => run.counts && run[price] !== null);
    if (!runs.length) return nothing(place, "No finished run that is shown has this cost.");
    const ids = new Set(data.fronts[price]), hue = colours(runs.map((run) => run.id));
    const edge = data.fronts[price].map((id) => data.runs[id]);
    plot(place, [
      { x: edge.map((run) => run[price]), y: edge.map((run) => run.score), mode: "lines", name: "front", hoverinfo: "skip",
        line: { color: colour("warn"), width: 1.5, shape: "hv" }, showlegend: false },
      { x: runs.map((run) => run[price]), y: runs.map((run) => run.score), mode: "markers", showlegend: false,
        customdata: runs.map((run) => run.id), text: runs.map((run) => run.label),
        marker: { color: runs.map((run) => hue.get(run.id)), size: runs.map((run) => ids.has(run.id) ? 11 : 7),
          line: { color: runs.map((run) => ids.has(run.id) ? colour("warn") : colour("paper")), width: runs.map((run) => ids.has(run.id) ? 2 : 0.5) } },
        hovertemplate: "<b>%{y:.4f}</b> for %{x:,.4~g}<br>%{text}<extra></extra>" },
    ], layout({ xaxis: { title: { text: data.costs[price] } }, yaxis: { title: { text: lossTitle } } }));
  }

  const paid = choice("cost", "by", { seconds: "time", tokens: "tokens", cost: "money" }, () => renewCost());
  const renewCost = chart("cost", cost);
}
