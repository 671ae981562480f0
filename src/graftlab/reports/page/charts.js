// The charts: loss curves, parallel coordinates, heat maps, loss against cost.
"use strict";

{
  const axes = { step: "step", tokens: "tokens", seconds: "seconds of training" };

  // Loss curves.

  function curves(place) {
    const runs = shownRuns();
    const few = runs.length <= hues.length;
    const kinds = which() === "both" ? ["valid", "train"] : [which()];
    const hue = colours(runs);
    const traces = runs.flatMap((run) => kinds
      .filter((kind) => run[kind].loss.length > 0)
      .map((kind, n) => curve(run, kind, { few, hue: hue.get(run.id), first: n === 0 })));
    if (!traces.length) return nothing(place, "No run that is shown has logged this loss.");
    plot(place, traces, layout({
      xaxis: { title: { text: axes[across()] } },
      yaxis: { title: { text: `loss (${data.measure})` }, type: height() },
    }));
  }

  function curve(run, kind, { few, hue, first }) {
    const valid = kind === "valid";
    return {
      x: run[kind][across()], y: run[kind].loss, meta: run.id, name: run.label,
      mode: valid && few ? "lines+markers" : "lines", opacity: few ? 1 : 0.75,
      line: { color: hue, width: few ? 2 : 1, dash: valid ? "solid" : "dot" },
      marker: { size: 5, color: hue }, legendgroup: run.id, showlegend: few && first,
      hovertemplate: `<b>%{y:.4f}</b> ${valid ? "validation" : "training"} loss at %{x:,}` +
        `<br>${data.measure}<br>%{fullData.name}<extra></extra>`,
    };
  }

  const losses = { valid: "validation", train: "training", both: "both" };
  const which = choice("curves", "loss", losses, () => redraw());
  const across = choice("curves", "by", { step: "step", tokens: "tokens", seconds: "time" },
    () => redraw());
  const height = choice("curves", "scale", { linear: "linear", log: "logarithmic" },
    () => redraw());
  const redraw = chart("curves", curves);

  // Rewards of runs that learn preferences; the section is there if one does.

  if (document.getElementById("rewards-chart")) {
    const kinds = {
      reward_margin: "margin", rewards_chosen: "chosen", rewards_rejected: "rejected",
      reward_accuracy: "accuracy",
    };
    const kind = choice("rewards", "of", kinds, () => anew());
    const along = choice("rewards", "by", { step: "step", tokens: "tokens", seconds: "time" },
      () => anew());
    const anew = chart("rewards", (place) => {
      const runs = shownRuns().filter((run) => run.rewards[kind()]?.loss.length > 0);
      if (!runs.length) return nothing(place, "No run that is shown has logged rewards.");
      const few = runs.length <= hues.length;
      const hue = colours(runs);
      plot(place, runs.map((run) => ({
        x: run.rewards[kind()][along()], y: run.rewards[kind()].loss, meta: run.id,
        name: run.label, mode: "lines", opacity: few ? 1 : 0.75, showlegend: few,
        line: { color: hue.get(run.id), width: few ? 2 : 1 },
        hovertemplate: `<b>%{y:.4f}</b> ${kinds[kind()]} at %{x:,}` +
          "<br>%{fullData.name}<extra></extra>",
      })), layout({
        xaxis: { title: { text: axes[along()] } },
        yaxis: { title: { text: kind().replace("_", " ") } },
      }));
    });
  }

  // Parallel coordinates: every axis runs from 0 below to 1 above.

  function place01(axis, value) {
    const { values, log } = axis;
    if (values.length < 2) return 0.5;
    if (values.some((other) => typeof other !== "number")) {
      return values.indexOf(value) / (values.length - 1);
    }
    const [low, high, own] = [values[0], values.at(-1), value].map(log ? Math.log : Number);
    return (own - low) / (high - low);
  }

  function parallel(place) {
    const runs = shownRuns().filter((run) => run.counts);
    if (!data.parameters.length || !runs.length) {
      return nothing(place, "No finished runs that differ are shown.");
    }
    const scores = [...new Set(runs.map((run) => run.score))].sort((a, b) => a - b);
    const columns = [...data.parameters, { name: data.score, values: scores }];
    const numbers = columns.map((_, n) => n);
    const hue = colours(runs);
    const value = (run, n) => (n === columns.length - 1 ? run.score : run.values[columns[n].key]);
    plot(place, runs.map((run) => ({
      x: numbers, y: numbers.map((n) => place01(columns[n], value(run, n))), meta: run.id,
      mode: "lines", line: { color: hue.get(run.id), width: 1.5 }, opacity: 0.8,
      showlegend: false, text: numbers.map(() => `<b>${run.score.toFixed(4)}</b> ${run.label}`),
      hovertemplate: `%{text}<br>${data.measure}<extra></extra>`,
    })), layout({
      annotations: columns.flatMap(ticks),
      shapes: numbers.map((n) => ({
        type: "line", x0: n, x1: n, y0: 0, y1: 1, line: { color: colour("soft"), width: 1 },
      })),
      xaxis: {
        tickvals: numbers, ticktext: columns.map(({ name }) => name), side: "top", ticklen: 0,
        range: [-0.2, columns.length - 0.7], showgrid: false, showline: false, zeroline: false,
        fixedrange: true, tickfont: { size: 13, color: colour("ink") },
      },
      yaxis: { visible: false, range: [-0.06, 1.06], fixedrange: true },
    }), { displayModeBar: false });
  }

  // At most seven values are written beside an axis, the first and the last among them.
  function ticks(axis, n) {
    const last = axis.values.length - 1;
    const most = Math.min("key" in axis ? 6 : 1, last);
    const places = Array.from({ length: most + 1 }, (_, k) => Math.round(k * last / (most || 1)));
    return [...new Set([...places, last])].map((k) => ({
      x: n, y: place01(axis, axis.values[k]), text: written(axis.values[k]), showarrow: false,
      xanchor: "left", xshift: 5, bgcolor: colour("paper"), borderpad: 1,
      font: { size: 11, color: colour("ink") },
    }));
  }

  chart("parallel", parallel);

  // Heat maps, all with one scale of colours.

  function maps(place) {
    if (!data.maps.length) {
      return nothing(place, "Fewer than two keys were varied among the finished runs.");
    }
    const means = data.maps.flatMap((map) => map.means.flat()).filter((mean) => mean !== null);
    const steps = scale().map((hue, n, { length }) => [n / (length - 1), hue]);
    const look = { zmin: Math.min(...means), zmax: Math.max(...means), colorscale: steps };
    place.classList.add("maps");
    if (!place.children.length) place.append(...data.maps.map(() => element("div")));
    data.maps.forEach((map, n) => heatMap(place.children[n], map, look));
  }

  function heatMap(place, map, look) {
    const name = (wanted) => data.keys.find(({ key }) => key === wanted).name;
    const few = map.means.length * map.means[0].length <= 36;
    const axis = (n) => ({
      type: "category", showgrid: false, title: { text: name(map.keys[n]), standoff: 8 },
    });
    Plotly.react(place, [{
      ...look, type: "heatmap", z: map.means, x: map.labels[0], y: map.labels[1],
      customdata: map.points, xgap: 2, ygap: 2, colorbar: { thickness: 10, outlinewidth: 0 },
      texttemplate: few ? "%{z:.3f}" : "",
      hovertemplate: `<b>%{z:.4f}</b>, mean of %{customdata}<br>${name(map.keys[0])} %{x}<br>` +
        `${name(map.keys[1])} %{y}<br>${data.measure}<extra></extra>`,
    }], layout({
      height: 320, margin: { l: 60, r: 10, t: 10, b: 46 }, xaxis: axis(0), yaxis: axis(1),
    }), { ...settings, displayModeBar: false });
  }

  chart("maps", maps);

  // Loss against cost; the front is that of all runs, whatever is filtered.

  function cost(place) {
    const price = paid();
    const runs = shownRuns().filter((run) => run.counts && run[price] !== null);
    if (!runs.length) return nothing(place, "No finished run that is shown has this cost.");
    const front = data.fronts[price].map((id) => data.runs[id]);
    const edge = new Set(data.fronts[price]);
    const hue = colours(runs);
    const each = (on, off) => runs.map((run) => (edge.has(run.id) ? on : off));
    plot(place, [{
      x: front.map((run) => run[price]), y: front.map((run) => run.score), mode: "lines",
      line: { color: colour("warn"), width: 1.5, shape: "hv" }, name: "front", hoverinfo: "skip",
      showlegend: false,
    }, {
      x: runs.map((run) => run[price]), y: runs.map((run) => run.score), mode: "markers",
      customdata: runs.map((run) => run.id), text: runs.map((run) => run.label), showlegend: false,
      marker: {
        color: runs.map((run) => hue.get(run.id)), size: each(11, 7), opacity: 1,
        line: { color: each(colour("warn"), colour("paper")), width: each(2, 0.5) },
      },
      hovertemplate: `<b>%{y:.4f}</b> for %{x:,.4~g}<br>%{text}<br>${data.measure}` +
        "<extra></extra>",
    }], layout({
      xaxis: { title: { text: data.costs[price] } },
      yaxis: { title: { text: `${data.score} (${data.measure})` } },
    }));
  }

  const paid = choice("cost", "by", { seconds: "time", tokens: "tokens", cost: "money" },
    () => again());
  const again = chart("cost", cost);
}
