// Ticked runs side by side: what they answered, and how two of them were configured.
"use strict";

{
  const most = 5; // columns of replies that can still be read

  function headed(run) {
    const note = element("span", { class: "note" }, run.label);
    return element("th", { scope: "col" }, run.name, element("br"), note);
  }

  function heading(text) {
    return element("th", { scope: "col" }, text);
  }

  function grid(heads, rows, kind) {
    const head = element("thead", {}, element("tr", {}, ...heads));
    const table = element("table", { class: kind }, head, element("tbody", {}, ...rows));
    return element("div", { class: "wide" }, table);
  }

  function line(cells) {
    return element("tr", {}, ...cells.map((cell) => element("td", { dir: "auto" }, cell)));
  }

  function put(name, ...content) {
    document.getElementById(`${name}-chosen`).replaceChildren(...content);
  }

  function empty(text) {
    return element("p", { class: "empty" }, text);
  }

  // By prompt: the expected answer, the base's reply, then that of each chosen run's adapter.
  function samples(ids) {
    const runs = ids.map((id) => data.runs[id]).filter((run) => run.samples.length).slice(0, most);
    if (!ids.length) return put("samples");
    if (!runs.length) return put("samples", empty("These runs have no samples."));
    const [prompt, base, adapter, expected] = data.who.keys();
    const said = (sample, who) => (sample ? data.texts[sample[who]] : "–");
    const asked = new Set(runs.flatMap((run) => run.samples.map((sample) => sample[prompt])));
    const rows = [...asked].map((question) => {
      const each = runs.map((run) => run.samples.find((sample) => sample[prompt] === question));
      const any = each.find(Boolean);
      const replies = each.map((sample) => said(sample, adapter));
      return line([data.texts[question], said(any, expected), said(any, base), ...replies]);
    });
    const heads = ["prompt", "expected", "base"].map(heading);
    put("samples", grid([...heads, ...runs.map(headed)], rows, "beside"));
  }

  // Keys that are not the same in the two runs that were ticked last.
  function differences(ids) {
    if (ids.length < 2) return put("differences");
    const [one, other] = ids.slice(-2).map((id) => data.runs[id]);
    const keys = [...new Set([...Object.keys(one.config), ...Object.keys(other.config)])];
    const value = (run, key) => run.config[key] ?? "–";
    const rows = keys.filter((key) => value(one, key) !== value(other, key))
      .map((key) => line([element("code", {}, key), value(one, key), value(other, key)]));
    if (!rows.length) return put("differences", empty("They are configured alike."));
    put("differences", grid([heading("key"), headed(one), headed(other)], rows, "plain"));
  }

  page.on("chosen", samples);
  page.on("chosen", differences);
}
