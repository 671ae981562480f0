// Ticked runs side by side: what they answered, and how two of them were configured.
"use strict";

{
  const most = 5; // columns of replies that can still be read

  function headed(run) {
    return element("th", { scope: "col" }, run.name, element("br"), element("span", { class: "note" }, run.label));
  }

  function grid(heads, rows, kind = "") {
    const table = element("table", kind ? { class: kind } : {},
      element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
    return element("div", { class: "wide" }, table);
  }

  // Replies by prompt: the reference, the base, then the adapter of each chosen run.
  function samples(ids) {
    const place = document.getElementById("samples-chosen");
    const runs = ids.map((id) => data.runs[id]).filter((run) => run.samples.length).slice(0, most);
    if (!runs.length) return place.replaceChildren(...(ids.length ? [element("p", { class: "empty" }, "These runs have no samples.")] : []));
    const [prompt, base, adapter, reference] = data.who.map((_, n) => n);
    const said = (sample, who) => sample ? data.texts[sample[who]] : "–";
    const prompts = [...new Set(runs.flatMap((run) => run.samples.map((sample) => sample[prompt])))];
    const rows = prompts.map((text) => {
      const each = runs.map((run) => run.samples.find((sample) => sample[prompt] === text));
      const any = each.find(Boolean);
      return element("tr", {}, ...[data.texts[text], said(any, reference), said(any, base),
        ...each.map((sample) => said(sample, adapter))].map((cell) => element("td", { dir: "auto" }, cell)));
    });
    const heads = ["prompt", "reference", "base"].map((head) => element("th", { scope: "col" }, head));
    place.replaceChildren(grid([...heads, ...runs.map(headed)], rows, "beside"));
  }

  // Keys that are not the same in the two runs that were ticked last.
  function differences(ids) {
    const place = document.getElementById("differences-chosen");
    if (ids.length < 2) return place.replaceChildren();
    const [one, other] = ids.slice(-2).map((id) => data.runs[id]);
    const keys = [...new Set([...Object.keys(one.config), ...Object.keys(other.config)])];
    const value = (run, key) => run.config[key] ?? "–";
    const rows = keys.filter((key) => value(one, key) !== value(other, key)).map((key) => element("tr", {},
      element("td", {}, element("code", {}, key)), element("td", {}, value(one, key)), element("td", {}, value(other, key))));
    const same = element("p", { class: "empty" }, "They are configured alike.");
    place.replaceChildren(rows.length ? grid([element("th", { scope: "col" }, "key"), headed(one), headed(other)], rows) : same);
  }

  page.on("chosen", samples);
  page.on("chosen", differences);
}
