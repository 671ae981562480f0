// What the other scripts share: the data, which runs are shown and chosen, and who is told of it.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
data.runs.forEach((run, id) => { run.id = id; });

const page = {
  shown: new Set(data.runs.keys()), // passed by the filter
  chosen: [],                       // ticked, in the order of ticking
  lit: null,                        // pointed at
  listeners: { shown: [], chosen: [], lit: [] },
  on(what, listener) { this.listeners[what].push(listener); },
  set(what, value) {
    this[what] = value;
    this.listeners[what].forEach((listener) => listener(value));
  },
};

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children); // texts become text nodes: nothing in them is markup
  return made;
}

function written(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return String(Number(value.toPrecision(4)));
}
