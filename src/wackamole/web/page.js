// The page: takes what it is told (web/feed.py), keeps it, and draws what changed. All text goes in as text, never as markup.
"use strict";

const RECENT_SECONDS = 60, EVENTS_MAX = 1000, DENSE_FROM = 200;
const SIGNS = { good: "·", notice: "!", bad: "×" };
const MEANINGS = { good: "as it should be", notice: "under way, meant so, or worth knowing", bad: "not as it should be" };
const order = new Intl.Collator("en", { numeric: true }).compare;
const at = (id) => document.getElementById(id);

let cluster = null, events = [], daemon = { gone: null, late: false };
let offset = 0, toldAt = 0, connected = false, opened = null;
const vips = new Map(), chips = new Map(), rows = new Map();
const sources = new Map(); // of each VIP by name: the last move that was told, from and to

function make(tag, text, className) {
  const found = document.createElement(tag);
  if (text !== undefined) found.textContent = text;
  if (className) found.className = className;
  return found;
}

const now = () => Date.now() / 1000 + offset;

function ago(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  for (const [unit, size, below, per] of [["d", 86400, "h", 3600], ["h", 3600, "m", 60]]) {
    if (whole >= size) return `${Math.floor(whole / size)}${unit} ${Math.floor((whole % size) / per)}${below}`;
  }
  return whole >= 60 ? `${Math.floor(whole / 60)}m` : `${whole}s`;
}

function stamp(seconds) {
  const when = new Date(seconds * 1000);
  const time = when.toLocaleTimeString("en-GB");
  return when.toDateString() === new Date().toDateString() ? time : `${when.toISOString().slice(5, 10)} ${time.slice(0, 5)}`;
}

// -- what is told ---------------------------------------------------------------------------------------------------------

function take(told) {
  offset = told.now - Date.now() / 1000;
  toldAt = now();
  if (told.daemon) daemon = told.daemon;
  if (told.cluster) cluster = told.cluster;
  for (const key of told.removed || []) { vips.delete(key); rows.get(key)?.remove(); rows.delete(key); chips.get(key)?.remove(); chips.delete(key); }
  for (const vip of told.vips || []) vips.set(vip.key, vip);
  if (told.events) events = events.concat(told.events).slice(-EVENTS_MAX);
  for (const event of told.events || []) if (event.moved) sources.set(event.moved[0], event.moved);
  draw(told);
}

function forget() {
  // the server begins anew with every connection
  cluster = null; events = [];
  for (const each of [vips, chips, rows, sources]) each.clear();
  for (const id of ["map", "vips", "events"]) at(id).replaceChildren();
}

// -- what is drawn --------------------------------------------------------------------------------------------------------

const sorted = () => [...vips.values()].sort((a, b) => order(a.name, b.name) || order(a.key, b.key));
const isFresh = (vip) => vip.since !== null && now() - vip.since < RECENT_SECONDS;

function passes(vip) {
  if (at("wrong").checked && vip.grade === "good") return false;
  const wanted = at("filter").value.trim().toLowerCase();
  const words = [vip.name, ...vip.addresses, vip.holder ?? "nobody", vip.target ?? "", vip.cause, ...vip.words];
  return words.some((word) => word.toLowerCase().includes(wanted));
}

function draw(told = { cluster: true, vips: true, events: true }) {
  drawLink();
  if (!cluster) return;
  document.title = `${cluster.troubles.some((t) => t.grade === "bad") ? "× " : ""}${cluster.cluster} – wackamole`;
  at("cluster").textContent = cluster.cluster;
  at("facts").replaceChildren(...[["seen from", cluster.node], ["", cluster.phase], ["view", cluster.view], ["engine", cluster.engine],
    ["fence", cluster.fence]].map(([name, value]) => { const d = make("div"); d.append(make("dt", name), make("dd", value)); return d; }));
  const troubles = cluster.troubles.length ? cluster.troubles : [{ grade: "good", sentence: "all is as it should be" }];
  at("troubles").replaceChildren(...troubles.map((t) => make("li", `${t.grade === "good" ? "✓" : SIGNS[t.grade]} ${t.sentence}`, t.grade)));
  if (told.cluster || told.vips || told.removed) drawMap();
  if (told.cluster || told.vips || told.removed || told.events) drawTable();
  if (told.events) drawEvents();
  if (opened) drawDetail();
}

function drawLink() {
  const link = at("link");
  const old = !connected || daemon.gone !== null;
  document.body.classList.toggle("old", old);
  link.className = old || daemon.late ? "bad" : "";
  if (!connected) link.textContent = `no connection to this page's server; what is shown was so ${ago(now() - toldAt)} ago`;
  else if (daemon.gone !== null) link.textContent = `${daemon.gone} What is shown is from before.`;
  else if (daemon.late) link.textContent = "the daemon does not answer just now; what is shown is from before";
  else link.textContent = `live, ${new Date(now() * 1000).toLocaleTimeString("en-GB")}`;
}

function drawMap() {
  const map = at("map");
  const from = new Map([...chips].map(([key, chip]) => [key, chip.getBoundingClientRect()]));
  map.classList.toggle("dense", vips.size > DENSE_FROM);
  map.style.setProperty("--node", cluster.nodes.length > 12 ? "9.5rem" : "15rem");
  const homeless = { name: "nobody", vips: 0, grade: "bad", words: ["held by no node"], present: true, nobody: true };
  const lost = [...vips.values()].some((v) => v.holder === null);
  const nodes = lost ? [...cluster.nodes, homeless] : cluster.nodes;
  const held = new Map(nodes.map((n) => [n.name, []]));
  for (const vip of sorted()) held.get(vip.holder ?? "nobody")?.push(vip);
  map.replaceChildren(...nodes.map((node) => {
    const card = make("li", undefined, `node ${node.grade}`);
    const head = make("h3", undefined);
    head.append(make("span", node.name), make("span", node.present ? String(held.get(node.name).length) : "–", "soft"));
    const words = node.words.length ? `${SIGNS[node.grade]} ${node.words.join("; ")}` : "ok";
    const state = make("p", node.first ? `${words}, representative` : words, node.words.length ? node.grade : "soft");
    const box = make("div", undefined, "held");
    box.append(...held.get(node.name).map(chipOf));
    card.append(head, state, box);
    return card;
  }));
  moveChips(from);
}

function chipOf(vip) {
  let chip = chips.get(vip.key);
  if (!chip) {
    chip = make("button", vip.name);
    chip.type = "button";
    chip.tabIndex = -1; // the table below has a button for each, for the keyboard
    chip.addEventListener("click", () => open(vip.key));
    chips.set(vip.key, chip);
  }
  chip.className = `chip ${vip.grade}${isFresh(vip) ? " fresh" : ""}${passes(vip) ? "" : " dim"}`;
  chip.title = `${vip.name}, ${vip.addresses.join(", ")}: ${vip.words.join("; ") || vip.cause}`;
  return chip;
}

function moveChips(from) {
  // From where it was to where it is: put back without a transition, then let go.
  const moved = [];
  for (const [key, before] of from) {
    const chip = chips.get(key);
    if (!chip?.isConnected) continue;
    const after = chip.getBoundingClientRect();
    if (before.left === after.left && before.top === after.top) continue;
    chip.style.transition = "none";
    chip.style.transform = `translate(${before.left - after.left}px, ${before.top - after.top}px)`;
    moved.push(chip);
  }
  if (!moved.length) return;
  document.body.getBoundingClientRect();
  for (const chip of moved) { chip.style.transition = ""; chip.style.transform = ""; }
}

function drawTable() {
  const shown = sorted().filter(passes);
  at("count").textContent = `${shown.length} of ${vips.size} VIPs`;
  at("vips").replaceChildren(...shown.map(rowOf));
}

function rowOf(vip) {
  let row = rows.get(vip.key);
  const last = sources.get(vip.name);
  if (row && row.shown === vip && row.last === last) { row.cells[4].textContent = vip.since === null ? "–" : ago(now() - vip.since); return row; }
  row = make("tr", undefined, isFresh(vip) ? "fresh" : "");
  const sign = make("td", SIGNS[vip.grade], vip.grade);
  sign.setAttribute("aria-label", MEANINGS[vip.grade]);
  const name = make("td"), button = make("button", vip.name);
  button.type = "button";
  button.addEventListener("click", () => open(vip.key));
  name.append(button);
  const moving = vip.moving && vip.target !== vip.holder;
  const holder = make("td", moving ? `${vip.holder ?? "nobody"} → ${vip.target ?? "nobody"}` : vip.holder ?? "nobody", vip.holder === null ? "bad" : "");
  const address = vip.addresses.map((a) => a.replace(/\/(32|128)$/, "")).join(" ");
  const source = last && last[2] === vip.holder && last[1] !== "nobody" ? `from ${last[1]}: ` : "";
  const why = make("td", (vip.words.join("; ") || source + vip.cause) + (vip.pinned ? " (stays until `balance`)" : ""), vip.words.length ? vip.grade : "soft");
  row.append(sign, name, make("td", address), holder, make("td", vip.since === null ? "–" : ago(now() - vip.since)), why);
  row.shown = vip;
  row.last = last;
  rows.set(vip.key, row);
  return row;
}

function eventItem(event) {
  const item = make("li");
  item.append(make("span", SIGNS[event.grade], event.grade), make("time", stamp(event.time)), make("b", event.by),
    make("span", event.sentence, event.grade === "good" ? "" : event.grade));
  return item;
}

function drawEvents() {
  const wanted = at("filter").value.trim().toLowerCase(), wrong = at("wrong").checked;
  const shown = events.filter((e) => !(wrong && e.grade === "good") && `${e.by} ${e.sentence}`.toLowerCase().includes(wanted));
  at("events").replaceChildren(...shown.toReversed().map(eventItem));
}

// -- one VIP --------------------------------------------------------------------------------------------------------------

function open(key) {
  opened = key;
  drawDetail();
  if (!at("detail").open) at("detail").showModal();
}

function drawDetail() {
  const vip = vips.get(opened);
  if (!vip) { at("detail").close(); return; }
  at("detail-title").textContent = vip.name;
  const since = vip.since === null ? "" : `, for ${ago(now() - vip.since)}`;
  at("detail-facts").textContent = `${vip.addresses.join(", ")} is held by ${vip.holder ?? "nobody"}${since}: ${vip.words.join("; ") || vip.cause}`;
  const moves = events.filter((e) => e.moved && e.moved[0] === vip.name);
  const theirs = events.filter((e) => moves.includes(e) || e.sentence.split(/[\s,:]+/).includes(vip.name));
  at("detail-events").replaceChildren(...theirs.toReversed().map(eventItem));
  at("timeline").replaceChildren(timeline(vip, moves));
}

function timeline(vip, moves) {
  if (!moves.length) return make("p", "no move of it is told in the history that is kept", "soft");
  const begin = moves[0].time, end = Math.max(now(), begin + 1), wide = 640, left = 110, lane = 22;
  const spans = moves.map((m, i) => ({ node: m.moved[2], from: m.time, to: moves[i + 1]?.time ?? end, cause: m.sentence }));
  const nodes = [...new Set(spans.map((s) => s.node))].sort(order);
  const svg = (tag, fields, text) => {
    const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(fields)) found.setAttribute(name, value);
    if (text !== undefined) found.textContent = text;
    return found;
  };
  const x = (t) => left + ((t - begin) / (end - begin)) * (wide - left - 8);
  const said = spans.map((s) => `${stamp(s.from)} ${s.node}`).join(", ");
  const picture = svg("svg", { viewBox: `0 0 ${wide} ${nodes.length * lane + 24}`, role: "img", "aria-label": `held by: ${said}` });
  nodes.forEach((node, i) => {
    picture.append(svg("rect", { class: "lane", x: left, y: i * lane + 2, width: wide - left - 8, height: lane - 4 }));
    picture.append(svg("text", { x: left - 8, y: i * lane + 15, "text-anchor": "end" }, node));
  });
  spans.forEach((s, i) => {
    const bar = svg("rect", { class: `bar${i === spans.length - 1 ? " last" : ""}`, x: x(s.from), y: nodes.indexOf(s.node) * lane + 5,
      width: Math.max(2, x(s.to) - x(s.from)), height: lane - 10, rx: 2 });
    bar.append(svg("title", {}, s.cause));
    picture.append(bar);
  });
  picture.append(svg("text", { x: left, y: nodes.length * lane + 17 }, stamp(begin)));
  picture.append(svg("text", { x: wide - 8, y: nodes.length * lane + 17, "text-anchor": "end" }, "now"));
  return picture;
}

// -- beginning ------------------------------------------------------------------------------------------------------------

at("filters").addEventListener("submit", (event) => event.preventDefault());
at("filter").addEventListener("input", () => draw());
at("wrong").addEventListener("change", () => draw());
at("detail").addEventListener("close", () => { opened = null; });
addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target.tagName !== "INPUT") { event.preventDefault(); at("filter").focus(); }
});

const stream = new EventSource("events");
let anew = true;
stream.addEventListener("open", () => { connected = true; anew = true; drawLink(); });
stream.addEventListener("error", () => { connected = false; drawLink(); });
stream.addEventListener("message", (message) => {
  if (anew) { forget(); anew = false; }
  take(JSON.parse(message.data));
});
setInterval(() => {
  drawLink();
  for (const [key, row] of rows) {
    const vip = vips.get(key);
    if (row.isConnected && vip) {
      row.cells[4].textContent = vip.since === null ? "–" : ago(now() - vip.since);
      row.classList.toggle("fresh", isFresh(vip));
      chips.get(key)?.classList.toggle("fresh", isFresh(vip));
    }
  }
}, 1000);
