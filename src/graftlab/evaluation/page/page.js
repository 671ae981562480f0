// Search and order of the prompts.
"use strict";
{
  const orders = JSON.parse(document.getElementById("orders").textContent);
  const holder = document.getElementById("cases");
  const cases = [...holder.children].map((node, index) => ({
    node, index, place: Number(node.dataset.place), text: node.textContent.toLowerCase(),
  }));
  const by = document.getElementById("by");
  const order = document.getElementById("order");
  const search = document.getElementById("search");
  const shown = document.getElementById("shown");
  const ways = {
    "largest differences first": (a, b, values) =>
      Math.abs(values[b.index]) - Math.abs(values[a.index]) || values[a.index] - values[b.index],
    "worst first": (a, b, values) => values[a.index] - values[b.index],
    "best first": (a, b, values) => values[b.index] - values[a.index],
    "as asked": () => 0,
  };
  const fill = (select, names) => names.forEach((name) => {
    const option = document.createElement("option");
    option.textContent = option.value = name;
    select.append(option);
  });
  fill(by, Object.keys(orders));
  fill(order, Object.keys(ways));

  const sort = () => {
    const values = orders[by.value];
    const way = ways[order.value];
    const sorted = [...cases].sort((a, b) => way(a, b, values) || a.place - b.place);
    holder.append(...sorted.map((one) => one.node));
  };
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const one of cases) {
      const hit = words.every((word) => one.text.includes(word));
      one.node.hidden = !hit;
      count += hit;
    }
    shown.textContent = `${count} of ${cases.length} prompts`;
  };
  by.addEventListener("change", sort);
  order.addEventListener("change", sort);
  search.addEventListener("input", filter);
  filter();
}
