// Votes on pairs of replies, kept in the browser until they are saved.
"use strict";
{
  const pairs = JSON.parse(document.getElementById("pairs").textContent);
  const at = (id) => document.getElementById(id);
  const store = `graftlab votes ${pairs.map((pair) => pair.id).join("").slice(0, 256)}`;
  let votes = {};
  try {
    votes = JSON.parse(localStorage.getItem(store)) ?? {};
  } catch { /* a browser that keeps nothing for files */ }
  let place = pairs.findIndex((pair) => !(pair.id in votes));
  if (place < 0) place = pairs.length;

  const show = () => {
    const pair = pairs[place];
    const count = Object.keys(votes).length;
    at("progress").max = Math.max(pairs.length, 1);
    at("progress").value = count;
    at("count").textContent = `${count} of ${pairs.length}`;
    at("pair").hidden = pair === undefined;
    at("done").hidden = pair !== undefined;
    if (pair === undefined) return;
    at("prompt").replaceChildren(...pair.turns.map(([role, text]) => {
      const turn = document.createElement("div");
      turn.className = "turn";
      const name = document.createElement("div");
      name.className = "part note";
      name.textContent = role;
      const said = document.createElement("div");
      said.className = "said";
      said.textContent = text;
      turn.append(name, said);
      return turn;
    }));
    at("reference").hidden = pair.reference === null;
    at("reference").open = false;
    at("reference").querySelector(".said").textContent = pair.reference ?? "";
    at("one").textContent = pair.replies[0];
    at("two").textContent = pair.replies[1];
    for (const button of document.querySelectorAll(".vote")) {
      button.ariaPressed = String(votes[pair.id] === Number(button.dataset.vote));
    }
    window.scrollTo(0, 0);
  };
  const keep = () => {
    try {
      localStorage.setItem(store, JSON.stringify(votes));
    } catch { /* they are saved by the button all the same */ }
  };
  const vote = (choice) => {
    if (place >= pairs.length) return;
    votes[pairs[place].id] = choice;
    keep();
    place += 1;
    show();
  };
  const back = () => {
    if (place === 0) return;
    place -= 1;
    show();
  };
  const save = () => {
    const text = JSON.stringify({ kind: "graftlab votes", of: pairs.length, votes }, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "votes.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    if (["0", "1", "2"].includes(event.key)) vote(Number(event.key));
    else if (event.key === "Backspace") back();
    else return;
    event.preventDefault();
  });
  for (const button of document.querySelectorAll(".vote")) {
    button.addEventListener("click", () => vote(Number(button.dataset.vote)));
  }
  at("back").addEventListener("click", back);
  at("save").addEventListener("click", save);
  show();
}
