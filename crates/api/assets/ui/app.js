// The page: what is wrong, the matrix, and what stands behind each cell. The URL holds what is shown; the token never stands in it for long.

import * as data from "./data.js";
import { Grid, groupCell, pairCell } from "./grid.js";
import { Chart } from "./chart.js";
import { ago, clock, duration, element, isolated, moment, percent, since, value as spelled } from "./words.js";

const METRICS = { total: "Total", request: "Request", jitter: "Jitter", loss: "Loss" };
const VIEWS = { matrix: "Matrix", table: "Table" };
/** Above so many nodes groups come first. */
const NODES_SHOWN = 150;
const TABLE_ROWS = 200;

const $ = (id) => document.getElementById(id);
const seen = { verdict: null, matrix: null, incidents: [], loadedAt: 0, brokenSince: null };
let shown = {};
let session = null;
/** What the chart of the open pair shows. */
const samples = { pair: null, points: [] };
let chart = null;

// What is shown is what the URL says.

const DEFAULTS = { metric: "total", view: "matrix", group: null, find: "", source: null, target: null, node: null, incident: null, from: null, to: null, paused: null };

function readUrl() {
  const query = new URLSearchParams(location.search);
  shown = Object.fromEntries(Object.entries(DEFAULTS).map(([key, usual]) => [key, query.get(key) ?? usual]));
  if (!Object.hasOwn(METRICS, shown.metric)) shown.metric = "total";
  if (!Object.hasOwn(VIEWS, shown.view)) shown.view = "matrix";
}

function show(changes, { replace = false } = {}) {
  const metric = shown.metric;
  Object.assign(shown, changes);
  const query = new URLSearchParams(Object.entries(shown).filter(([key, value]) => value !== DEFAULTS[key] && value !== null && value !== ""));
  const url = `${location.pathname}${query.size ? `?${query}` : ""}`;
  if (url !== location.pathname + location.search) history[replace ? "replaceState" : "pushState"](null, "", url);
  if (shown.metric !== metric) load({ anyway: true });
  render();
}

addEventListener("popstate", () => {
  readUrl();
  load({ anyway: true });
  render();
});

// Signing in.

/** A link may carry the token behind `#`, which no server sees; it leaves the address at once. */
function takeToken() {
  if (!location.hash.startsWith("#token=")) return false;
  // Not as a form: there a plus sign would be a space.
  const given = location.hash.slice("#token=".length);
  history.replaceState(null, "", location.pathname + location.search);
  try {
    data.token.set(decodeURIComponent(given));
  } catch {
    return false;
  }
  return true;
}

addEventListener("hashchange", () => takeToken() && start());

function signOut(why = "") {
  session?.abort();
  session = null;
  data.token.set("");
  forget();
  $("view").hidden = $("signout").hidden = $("live").hidden = true;
  $("where").textContent = $("age").textContent = "";
  $("broken").hidden = true;
  $("login").hidden = false;
  $("login-error").textContent = why;
  $("token").value = "";
  $("token").focus();
}

/** Nothing of the mesh stays in a page that nobody is signed in to. */
function forget() {
  Object.assign(seen, { mesh: null, verdict: null, matrix: null, incidents: [], loadedAt: 0, brokenSince: null });
  Object.assign(samples, { pair: null, points: [] });
  chart?.destroy();
  chart = null;
  grid.clear();
  for (const id of ["side", "table", "legend", "crumb"]) $(id).replaceChildren();
  for (const id of ["verdict-text", "counts", "cell", "matrix-title"]) $(id).textContent = "";
  delete $("side").dataset.shows;
  document.title = "canary-bot";
}

$("signout").addEventListener("click", () => signOut());
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("token").value.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) return void ($("login-error").textContent = "Sign-in failed: a token has no such characters.");
  data.token.set(given);
  start();
});

// Loading: the stream says that something changed, and the matrix is asked for at its own pace.

async function start() {
  session?.abort();
  session = new AbortController();
  const { signal } = session;
  $("login").hidden = true;
  try {
    await loadAll(signal);
  } catch (error) {
    if (error instanceof data.Unauthorized) return signOut(data.token.get() ? `Sign-in failed: ${error.message}.` : "");
    broke();
  }
  unveil();
  render();
  follow(signal);
  poll(signal);
}

const unveil = () => ($("view").hidden = $("signout").hidden = $("live").hidden = false);

async function loadAll(signal) {
  const asked = data.matrix(shown.metric, signal);
  // What is wrong is small and comes first; a failure of the other is noticed where it is awaited.
  asked.catch(() => {});
  const [mesh, incidents] = await Promise.all([data.json("mesh", signal), data.json("incidents", signal)]);
  Object.assign(seen, { mesh, verdict: mesh.verdict, incidents: incidents.incidents });
  if (!seen.matrix) {
    unveil();
    render();
  }
  const matrix = await asked;
  // What the bot knows may stand still while it answers: then its age grows.
  const isNew = matrix.as_of !== seen.matrix?.as_of;
  Object.assign(seen, { matrix, loadedAt: isNew ? Date.now() : seen.loadedAt, brokenSince: null });
  sample();
}

let loading = false;
let again = false;

/** Loads everything again; at most one at a time. */
async function load({ anyway = false } = {}) {
  if (!session || (shown.paused && !anyway)) return;
  if (loading) return void (again = true);
  loading = true;
  try {
    await loadAll(session.signal);
  } catch (error) {
    if (error instanceof data.Unauthorized) signOut(`Signed out: ${error.message}.`);
    else if (!session?.signal.aborted) broke();
  }
  loading = false;
  render();
  if (again) {
    again = false;
    soon();
  }
}

const soon = () => {
  clearTimeout(soon.timer);
  soon.timer = setTimeout(load, 300);
};

function pace() {
  const n = seen.matrix?.n ?? 0;
  return n <= NODES_SHOWN ? 2000 : n <= 400 ? 5000 : 15000;
}

async function poll(signal) {
  while (!signal.aborted) {
    await new Promise((done) => setTimeout(done, seen.brokenSince ? 2000 : pace()));
    if (!signal.aborted && !document.hidden) await load();
  }
}

async function follow(signal) {
  while (!signal.aborted) {
    try {
      await data.stream((event, message) => {
        if (shown.paused) return;
        if (event === "verdict") {
          seen.verdict = message;
          render();
        }
        if (event !== "tick") soon();
      }, signal);
    } catch (error) {
      if (signal.aborted || error instanceof data.Unauthorized) return;
      load();
    }
    await new Promise((done) => setTimeout(done, 2000));
  }
}

document.addEventListener("visibilitychange", () => document.hidden || load());

function broke() {
  seen.brokenSince ??= Date.now();
}

// Drawing.

const grid = new Grid($("grid"), $("canvas"), { hover, choose, close: () => show({ source: null, target: null, node: null, incident: null }) });

function render() {
  if ($("view").hidden) return;
  renderBar();
  renderVerdict();
  renderTools();
  renderMatrix();
  renderSide();
}

function renderBar() {
  const broken = seen.brokenSince;
  const node = seen.verdict?.node;
  document.title = `${broken ? "? " : seen.verdict?.severity ? "● " : ""}${node ? `${node} – ` : ""}canary-bot`;
  $("where").textContent = node ? `seen from ${node}${seen.mesh?.mesh ? `, mesh ${seen.mesh.mesh}` : ""}, version ${seen.mesh?.version ?? "?"}` : "";
  $("live").textContent = shown.paused ? "Paused" : "Live";
  $("live").setAttribute("aria-pressed", String(!shown.paused));
  document.body.classList.toggle("stalepage", Boolean(broken));
  const isolated = seen.verdict?.isolated;
  $("broken").hidden = !broken && !isolated;
  const words = broken
    ? `The connection to this bot is broken since ${clock(broken)}. Below is what it knew then; it may be different now.`
    : "This bot is cut off: it hears from no other. What it shows of the others is old.";
  if ($("broken").textContent !== words) $("broken").textContent = words;
  renderAge();
}

function renderAge() {
  if (!seen.matrix || $("view").hidden) return;
  const age = (Date.now() - seen.loadedAt) / 1000;
  $("age").textContent = `${shown.paused ? "paused, " : ""}as of ${clock(seen.matrix.as_of)}, ${ago(age)} ago`;
  $("age").classList.toggle("old", !shown.paused && age * 1000 > pace() * 2 + 3000);
}

setInterval(renderAge, 1000);
$("live").addEventListener("click", () => {
  show({ paused: shown.paused ? null : "1" }, { replace: true });
  load();
});

function renderVerdict() {
  const verdict = seen.verdict;
  if (!verdict) return;
  const level = verdict.severity ?? (verdict.pairs.failed ? "warning" : "healthy");
  $("verdict").className = `verdict ${level}`;
  $("verdict-mark").textContent = { critical: "✖", warning: "▲", healthy: "✔" }[level];
  if ($("verdict-text").textContent !== verdict.verdict) $("verdict-text").textContent = verdict.verdict;
  const { nodes, pairs } = verdict;
  $("counts").textContent = `${nodes.visible} of ${nodes.known} nodes visible; ${pairs.ok} pairs ok, ${pairs.failed} failed, ${pairs.unknown} unknown`;
}

function radios(holder, name, entries, current, pick) {
  if (holder.childElementCount <= 1) {
    for (const [key, label] of Object.entries(entries)) {
      const input = element("input", { type: "radio", name, value: key, onchange: () => pick(key) });
      holder.append(element("label", {}, input, label));
    }
  }
  for (const input of holder.querySelectorAll("input")) input.checked = input.value === current;
}

function renderTools() {
  radios($("metrics"), "metric", METRICS, shown.metric, (metric) => show({ metric }));
  radios($("views"), "view", VIEWS, shown.view, (view) => show({ view }));
  const keys = ["(none)", ...new Set((seen.matrix?.nodes ?? []).flatMap((node) => Object.keys(node.labels)))];
  const select = $("group");
  if ([...select.options].map((option) => option.value).join("\n") !== keys.join("\n")) select.replaceChildren(...keys.map((key) => element("option", { value: key, text: key })));
  select.value = groupKey() ?? "(none)";
  if (document.activeElement !== $("find")) $("find").value = shown.find;
}

$("group").addEventListener("change", (event) => show({ group: event.target.value, from: null, to: null }));
$("find").addEventListener("input", (event) => show({ find: event.target.value }, { replace: true }));

/** The value of a label; other nodes choose its key, and objects have keys of their own. */
const label = (node, key) => (Object.hasOwn(node.labels, key) ? node.labels[key] : undefined);

/** The label to group by: the one that was chosen, else `zone`, else one that some nodes share. */
function groupKey() {
  const nodes = seen.matrix?.nodes ?? [];
  const keys = new Set(nodes.flatMap((node) => Object.keys(node.labels)));
  if (shown.group) return keys.has(shown.group) ? shown.group : null;
  if (keys.has("zone")) return "zone";
  return [...keys].find((key) => {
    const values = new Set(nodes.map((node) => label(node, key)));
    return values.size > 1 && values.size <= nodes.length / 2;
  }) ?? null;
}

/** Nodes in the order of the matrix: by group, then by name. */
function ordered() {
  const { nodes } = seen.matrix;
  const key = groupKey();
  const unreliable = new Set(seen.incidents.filter((incident) => incident.state === "open" && incident.kind === "observer_unreliable").map((incident) => incident.culprit.node));
  const entries = nodes.map((node, index) => ({
    node: index,
    label: node.name,
    group: key ? (label(node, key) ?? "(no label)") : null,
    mark: unreliable.has(node.name) ? " !" : node.state === "dead" ? " †" : null,
  }));
  return entries.sort((a, b) => (a.group ?? "").localeCompare(b.group ?? "") || a.label.localeCompare(b.label, undefined, { numeric: true }));
}

/** What the matrix shows now: nodes, or groups of them where there are too many. */
function view() {
  const { matrix } = seen;
  const all = ordered();
  const found = shown.find ? all.filter((entry) => entry.label.toLowerCase().includes(shown.find.toLowerCase())) : all;
  const groups = [...new Set(all.map((entry) => entry.group))];
  const of = (group) => all.filter((entry) => entry.group === group).map((entry) => entry.node);
  const incident = seen.incidents.find((incident) => incident.id === shown.incident);
  const [sources, targets] = [new Set(incident?.pairs.sources), new Set(incident?.pairs.targets)];
  const explains = (source, target) => (sources.has(source) && targets.has(target)) || (incident.pairs.both_ways && sources.has(target) && targets.has(source));
  const name = (node) => matrix.nodes[node].name;
  if (all.length > NODES_SHOWN && groups.length > 1 && !(groups.includes(shown.from) && groups.includes(shown.to)) && !shown.find) {
    const members = new Map(groups.map((group) => [group, of(group)]));
    const entries = groups.map((group) => ({ label: group, group, nodes: members.get(group) }));
    const lit = incident ? (row, column) => entries[row].nodes.some((source) => entries[column].nodes.some((target) => explains(name(source), name(target)))) : null;
    return { kind: "groups", rows: entries, columns: entries, metric: matrix.metric, matrix, lit, cell: (row, column) => groupCell(matrix, entries[row].nodes, entries[column].nodes) };
  }
  let [rows, columns] = [found, shown.find ? all : found];
  const isPart = shown.from !== null && !shown.find && groups.includes(shown.from) && groups.includes(shown.to);
  if (isPart) {
    [rows, columns] = [all.filter((entry) => entry.group === shown.from), all.filter((entry) => entry.group === shown.to)];
  }
  const place = (entries, named) => entries.findIndex((entry) => entry.label === named);
  return {
    kind: "pairs", isPart, rows, columns, metric: matrix.metric, matrix,
    cell: (row, column) => pairCell(matrix, rows[row].node, columns[column].node),
    lit: incident ? (row, column) => explains(rows[row].label, columns[column].label) : null,
    selected: shown.source !== null ? [place(rows, shown.source), place(columns, shown.target)] : null,
  };
}

let current = null;

function renderMatrix() {
  if (!seen.matrix) return;
  const isTable = shown.view === "table";
  for (const id of ["grid", "cell", "legend", "keys"]) $(id).hidden = isTable;
  $("table").hidden = !isTable;
  $("matrix-title").textContent = `${METRICS[seen.matrix.metric]}, ${seen.matrix.n} nodes`;
  current = view();
  renderCrumb();
  if (isTable) return renderTable();
  grid.draw(current);
  const failures = new Set();
  for (const byte of seen.matrix.states) if (byte >= 2 && byte < 0x40) failures.add(data.state(byte).failure);
  $("legend").replaceChildren(...grid.legend(seen.matrix.metric, [...failures]));
  describe(grid.cursor);
}

function renderCrumb() {
  const crumb = $("crumb");
  crumb.hidden = current.kind !== "groups" && !current.isPart;
  if (crumb.hidden) return;
  const words = current.kind === "groups"
    ? `Groups by ${groupKey()}: the median of each, or how many pairs failed. Open one to see its nodes.`
    : `From ${shown.from} to ${shown.to}. `;
  const back = current.kind === "groups" ? null : element("button", { type: "button", text: "All groups", onclick: () => show({ from: null, to: null }) });
  crumb.replaceChildren(words, ...(back ? [back] : []));
}

/** One pair in words. */
function said(source, target) {
  const { matrix } = seen;
  const cell = pairCell(matrix, source, target);
  const name = (node) => matrix.nodes[node].name;
  const words = { ok: spelled(cell.value, matrix.metric), failed: `failed (${cell.failure})`, stale: "stale", unknown: "unknown", self: "itself" }[cell.word];
  return `${isolated(name(source))} → ${isolated(name(target))}: ${words}`;
}

function describe(at) {
  let words = "";
  if (at && current && at[0] < current.rows.length && at[1] < current.columns.length) {
    const [row, column] = [current.rows[at[0]], current.columns[at[1]]];
    if (current.kind === "groups" && row && column) {
      const { counts, value, total } = current.cell(...at);
      words = `${isolated(row.label)} → ${isolated(column.label)}: ${total} pairs, ${counts.failed} failed, ${counts.stale} stale, ${counts.unknown} unknown, median ${spelled(value, current.metric)}`;
    } else if (row && column) {
      words = row.node === column.node ? row.label : `${said(row.node, column.node)}; back: ${said(column.node, row.node)}`;
    } else words = (row ?? column).label;
  }
  if ($("cell").textContent !== words) $("cell").textContent = words;
}

function hover(at) {
  describe(at);
  $("canvas").title = "";
}

function choose([row, column]) {
  const [source, target] = [current.rows[row], current.columns[column]];
  if (!source && !target) return;
  if (current.kind === "groups") {
    const [from, to] = [(source ?? target).label, (target ?? source).label];
    return show({ from, to, source: null, target: null, node: null });
  }
  if (!source || !target || source.node === target.node) return openNode((source ?? target).label);
  openPair(source.label, target.label);
}

const openPair = (source, target) => show({ source, target, node: null });
const openNode = (node) => show({ node, source: null, target: null });

// The table: the same for those who cannot use the picture, and for other programs.

function tableRows() {
  const { matrix } = seen;
  const rows = [];
  const all = ordered();
  const [sources, targets] = current.kind === "pairs" ? [current.rows, current.columns] : [all, all];
  for (const source of sources) {
    for (const target of targets) {
      if (source.node === target.node) continue;
      const cell = pairCell(matrix, source.node, target.node);
      rows.push({ source: source.label, target: target.label, state: cell.word, failure: cell.failure ?? null, [matrix.metric]: cell.word === "ok" || matrix.metric === "loss" ? cell.value : null });
    }
  }
  const rank = { failed: 0, stale: 1, unknown: 2, ok: 3 };
  return rows.sort((a, b) => rank[a.state] - rank[b.state] || (b[matrix.metric] ?? 0) - (a[matrix.metric] ?? 0));
}

function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** RFC 4180; a text that a spreadsheet would take for a formula gets a quote before it. */
const field = (value) => {
  const text = value === null ? "" : String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};

function renderTable() {
  const rows = tableRows();
  const { metric, as_of } = seen.matrix;
  const columns = ["source", "target", "state", "failure", metric];
  const csv = () => save("matrix.csv", "text/csv", [columns, ...rows.map((row) => columns.map((key) => row[key]))].map((line) => line.map(field).join(",")).join("\r\n"));
  const all = () => save("matrix.json", "application/json", JSON.stringify({ as_of, unit: seen.matrix.unit, pairs: rows }));
  const line = (row) => element("tr", {},
    element("td", { text: row.source }), element("td", { text: row.target }),
    element("td", { class: row.state === "failed" ? "bad" : "", text: row.failure ? `${row.state} (${row.failure})` : row.state }),
    element("td", { class: "number", text: spelled(row[metric], metric) }),
    element("td", {}, element("button", { type: "button", text: "open", "aria-label": `open ${row.source} to ${row.target}`, "data-key": `open ${row.source} ${row.target}`, onclick: () => openPair(row.source, row.target) })));
  const head = element("tr", {}, ...["Source", "Target", "State"].map((text) => element("th", { scope: "col", text })), element("th", { scope: "col", class: "number", text: METRICS[metric] }), element("th", { scope: "col" }, element("span", { class: "hidden", text: "Open" })));
  replace($("table"),
    element("p", { class: "small" }, `${rows.length} pairs, the worst first${rows.length > TABLE_ROWS ? `; the first ${TABLE_ROWS} are listed` : ""}. `,
      element("button", { type: "button", text: "CSV", "aria-label": "Save as CSV", "data-key": "csv", onclick: csv }), " ", element("button", { type: "button", text: "JSON", "aria-label": "Save as JSON", "data-key": "json", onclick: all })),
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Pairs", "data-key": "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows.slice(0, TABLE_ROWS).map(line)))));
}

// Beside the matrix: incidents, a node, or a pair.

function renderSide() {
  const side = $("side");
  const key = JSON.stringify([shown.source, shown.target, shown.node]);
  const isNew = side.dataset.shows !== key;
  if (isNew) {
    side.dataset.shows = key;
    chart?.destroy();
    chart = null;
    const parts = [];
    if (shown.source !== null) parts.push(element("section", { class: "card", id: "pair" }));
    else if (shown.node !== null) parts.push(element("section", { class: "card", id: "node" }));
    parts.push(element("section", { class: "card", id: "incidents" }));
    const hadFocus = side.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    side.replaceChildren(...parts);
    if (hadFocus) side.dataset.focus = hadFocus;
    if (hadFocus && shown.source === null && shown.node === null) $("grid").focus();
  }
  if (shown.source !== null) renderPair(isNew);
  else if (shown.node !== null) renderNode();
  renderIncidents();
}

/** Replaces what a holder shows without taking the focus away. */
function replace(holder, ...parts) {
  const made = parts.filter(Boolean);
  const alike = (part) => part.outerHTML;
  const old = [...holder.children].filter((part) => !part.classList.contains("chart"));
  const fresh = made.filter((part) => !part.classList.contains("chart"));
  const holdsChart = made.every((part) => !part.classList.contains("chart") || part.parentElement === holder);
  if (holdsChart && old.length === fresh.length && old.every((part, index) => alike(part) === alike(fresh[index]))) return;
  // Somebody reads it, presses a button in it, or copies from it: it is renewed with the next look.
  const selection = getSelection();
  if (old.length && (held.has(holder) || (!selection.isCollapsed && holder.contains(selection.anchorNode)))) return;
  const side = $("side");
  const focused = side.dataset.focus ?? (holder.contains(document.activeElement) ? document.activeElement.dataset.key : null);
  const scrolled = holder.querySelector(".scroll")?.scrollTop ?? 0;
  holder.replaceChildren(...made);
  const scroll = holder.querySelector(".scroll");
  if (scroll) scroll.scrollTop = scrolled;
  const found = focused && [...holder.querySelectorAll("[data-key]")].find((part) => part.dataset.key === focused);
  if (found) {
    found.focus({ preventScroll: true });
    delete side.dataset.focus;
  }
}

/** Where a button is pressed at this moment. */
const held = new Set();
addEventListener("pointerdown", (event) => ["incidents", "pair", "node", "table"].map($).forEach((holder) => holder?.contains(event.target) && held.add(holder)));
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => setTimeout(() => held.clear()));

function renderIncidents() {
  const button = (incident) => element("button", {
    type: "button", class: `incident ${incident.state === "open" ? incident.severity : ""}`, "aria-pressed": String(shown.incident === incident.id), "data-key": incident.id,
    onclick: () => show({ incident: shown.incident === incident.id ? null : incident.id }),
  },
  element("span", { class: "what", text: incident.summary }),
  element("span", { class: "small", text: incident.state === "open"
    ? `${incident.severity}, since ${since(incident.since)}, confidence ${incident.confidence}, explains ${incident.pairs.explained} pairs`
    : `over: ${moment(incident.since)} to ${clock(incident.closed_at)}` }),
  shown.incident === incident.id ? element("ul", { class: "evidence" }, ...incident.evidence.map((text) => element("li", { text }))) : null);
  const open = seen.incidents.filter((incident) => incident.state === "open");
  const closed = seen.incidents.filter((incident) => incident.state !== "open").slice(0, 20);
  replace($("incidents"),
    element("h2", { text: open.length ? `Open incidents (${open.length})` : "No open incident" }), ...open.map(button),
    closed.length ? element("h3", { text: "Recently over" }) : null, ...closed.map(button));
}

const close = () => element("button", { type: "button", text: "Close", "data-key": "close", onclick: () => show({ source: null, target: null, node: null }) });

const named = (name) => element("button", { type: "button", class: "plain", text: name, "data-key": `node ${name}`, onclick: () => openNode(name) });


/** What a panel is asking for; a slow answer is awaited, not asked for again. */
let asking = { key: null };

/** Asks for what a panel shows; none if the same is asked for already, or another panel is open by the time it comes. */
async function askFor(path, holder) {
  if (asking.key === path && asking.holder === holder) return null;
  asking.abort?.abort();
  const mine = (asking = { key: path, holder, abort: new AbortController() });
  try {
    return await data.json(path, mine.abort.signal);
  } catch (error) {
    if (mine !== asking || !holder.isConnected) return null;
    return { error };
  } finally {
    if (mine === asking) asking = { key: null };
  }
}

async function renderPair(isNew) {
  const { source, target } = shown;
  const holder = $("pair");
  if (isNew) {
    holder.replaceChildren(element("p", { class: "small", text: "asking…" }));
    asking.abort?.abort();
  }
  const detail = await askFor(`pairs/${encodeURIComponent(source)}/${encodeURIComponent(target)}`, holder);
  if (!detail || !holder.isConnected || shown.source !== source || shown.target !== target) return;
  if (detail.error) {
    const words = "This pair cannot be read now. A node that has left has no pairs.";
    return replace(holder, element("div", { class: "head" }, element("h2", { dir: "ltr" }, named(source), " → ", named(target)), close()), element("p", { class: "small", text: words }));
  }
  const both = [detail, detail.reverse];
  const row = (label, read) => element("tr", {}, element("th", { scope: "row", text: label }), ...both.map((measured) => element("td", { class: "number", text: read(measured) })));
  const words = (measured) => (measured.state === "failed" ? `failed (${measured.failure})` : measured.state);
  const table = element("table", {},
    element("thead", {}, element("tr", {}, element("td", { text: "" }), element("th", { scope: "col", class: "number", text: `${isolated(source)} → ${isolated(target)}` }), element("th", { scope: "col", class: "number", text: `${isolated(target)} → ${isolated(source)}` }))),
    element("tbody", {},
      element("tr", {}, element("th", { scope: "row", text: "State" }), ...both.map((measured) => element("td", { class: `number ${measured.state === "failed" ? "bad" : ""}`, text: words(measured) }))),
      row("Total", (measured) => latest(measured, "rtt_seconds")), row("Request", (measured) => latest(measured, "request_seconds")),
      row("Jitter", (measured) => latest(measured, "jitter_seconds")), row("Loss", (measured) => percent(measured.loss_ratio)),
      row("Sent again", (measured) => String(measured.retransmissions)), row("Measured", (measured) => (measured.age_seconds === null ? "never" : `${ago(measured.age_seconds)} ago`))));
  replace(holder,
    element("div", { class: "head" }, element("h2", { dir: "ltr" }, named(source), " → ", named(target)), element("span", {}, swap(source, target), " ", close())),
    table, chartOf(source, target).holder, ...phases(detail, source));
  if (!samples.points.length) return;
  chart.draw(samples.points);
}

/** A duration of one direction; one that is old is in brackets. */
const latest = (measured, key) => (measured.state === "stale" && measured[key] !== null ? `(${duration(measured[key])})` : duration(measured[key]));

/** The chart of a pair and a metric; another metric is another chart. */
function chartOf(source, target) {
  const { metric } = seen.matrix ?? shown;
  if (chart?.metric !== metric) {
    chart?.destroy();
    chart = new Chart(source, target, metric, METRICS[metric]);
  }
  return chart;
}

const swap = (source, target) => element("button", { type: "button", text: "⇄", "aria-label": "Other direction", "data-key": "swap", onclick: () => openPair(target, source) });

function phases(detail, source) {
  const known = detail.detail;
  if (!known) return [element("p", { class: "small", text: `Phases and counters of this pair are kept by ${source}, and ${detail.detail_problem}.` })];
  const parts = known.phases;
  const entries = [];
  const add = (name, text) => entries.push(element("dt", { text: name }), element("dd", { text }));
  if (parts) {
    add("Resolve", duration(parts.resolve_seconds));
    add("Connect", duration(parts.connect_seconds));
    if (parts.tls_seconds !== null) add("TLS", duration(parts.tls_seconds));
    add("First request", duration(parts.first_request_seconds));
    add("Request", duration(parts.request_seconds));
    if (parts.kernel_rtt_seconds !== null) add("Kernel’s RTT", duration(parts.kernel_rtt_seconds));
  }
  if (known.failing_since) add("Failing since", since(known.failing_since));
  add("Last success", moment(known.last_success_at));
  const failures = Object.entries(known.failures).map(([kind, count]) => `${count} ${kind}`).join(", ");
  add("Attempts", `${known.successes} answered${failures ? `; failed: ${failures}` : ""}`);
  add("Segments", `${known.retransmissions} of ${known.segments} sent again`);
  add("Told by", `${source}, ${detail.detail_age_seconds < 1 ? "just now" : `${ago(detail.detail_age_seconds)} ago`}`);
  return [element("h3", { text: parts ? "Phases of the latest attempt" : "The latest attempt failed" }), element("dl", {}, ...entries)];
}

// The chart of the open pair grows while it is looked at.

const POINTS_MAX = 1800;

function sample() {
  if (shown.source === null || !seen.matrix) return;
  const pair = JSON.stringify([shown.source, shown.target, seen.matrix.metric]);
  if (samples.pair !== pair) Object.assign(samples, { pair, points: [] });
  const place = (name) => seen.matrix.nodes.findIndex((node) => node.name === name);
  const [source, target] = [place(shown.source), place(shown.target)];
  if (source < 0 || target < 0) return;
  const point = (from, to) => {
    const cell = pairCell(seen.matrix, from, to);
    return { value: cell.word === "ok" ? cell.value : null, failed: cell.word === "failed" };
  };
  const at = Date.parse(seen.matrix.as_of) / 1000;
  const last = samples.points.at(-1)?.at;
  if (last === at) return;
  // Nothing is known of the time in between: no line leads over it.
  const nothing = { value: null, failed: false };
  if (last !== undefined && (at - last) * 1000 > 3 * pace()) samples.points.push({ at: (last + at) / 2, there: nothing, back: nothing });
  samples.points.push({ at, there: point(source, target), back: point(target, source) });
  if (samples.points.length > POINTS_MAX) samples.points.shift();
}

async function renderNode() {
  const { node } = shown;
  const holder = $("node");
  if (!holder.childElementCount) holder.replaceChildren(element("p", { class: "small", text: "asking…" }));
  const detail = await askFor(`nodes/${encodeURIComponent(node)}`, holder);
  if (!detail || !holder.isConnected || shown.node !== node) return;
  if (detail.error) {
    return replace(holder, element("div", { class: "head" }, element("h2", { text: node }), close()), element("p", { class: "small", text: "This node is not known, or cannot be read now." }));
  }
  const entries = [];
  const add = (name, text) => entries.push(element("dt", { text: name }), element("dd", { text }));
  add("State", `${detail.state}${detail.since ? ` since ${since(detail.since)}` : ""}${detail.is_self ? " (this bot)" : ""}`);
  add("Address", detail.target);
  add("Visible", detail.visible ? `yes, published ${ago(detail.row_age_seconds)} ago` : `no, last published ${detail.row_age_seconds === null ? "never" : `${ago(detail.row_age_seconds)} ago`}`);
  if (Object.keys(detail.labels).length) add("Labels", Object.entries(detail.labels).map(([key, label]) => `${key}=${label}`).join(", "));
  if (detail.version) add("Release", detail.version);
  if (Math.abs(detail.clock_offset_seconds ?? 0) >= 1) add("Clock", `${Math.abs(detail.clock_offset_seconds).toFixed(0)} s ${detail.clock_offset_seconds > 0 ? "ahead of" : "behind"} the clock of the bot that answers`);
  if (detail.certificate_expires_at) add("Certificate", `expires ${moment(detail.certificate_expires_at)}`);
  const counts = ({ ok, failed, unknown, stale }) => `${ok} ok, ${failed} failed, ${unknown} unknown, ${stale} stale`;
  add("Reaches", counts(detail.outbound));
  add("Reached by", counts(detail.inbound));
  replace(holder, element("div", { class: "head" }, element("h2", { text: node }), close()), element("dl", {}, ...entries), peers(node));
}

/** Both directions of a node with every other one, the worst first. */
function peers(node) {
  const { matrix } = seen;
  if (!matrix) return null;
  const me = matrix.nodes.findIndex((entry) => entry.name === node);
  if (me < 0) return null;
  const rank = (cell) => ({ failed: 1e9, stale: 1e8, unknown: 1e7 })[cell.word] ?? cell.value ?? 0;
  const rows = matrix.nodes
    .map((entry, index) => ({ name: entry.name, out: pairCell(matrix, me, index), back: pairCell(matrix, index, me), index }))
    .filter((row) => row.index !== me)
    .sort((a, b) => Math.max(rank(b.out), rank(b.back)) - Math.max(rank(a.out), rank(a.back)));
  const words = (cell) => element("td", { class: `number ${cell.word === "failed" ? "bad" : ""}`, text: cell.word === "ok" ? spelled(cell.value, matrix.metric) : cell.failure && cell.word === "failed" ? cell.failure : cell.word });
  const cell = (row, source, target, state) => {
    const made = words(state);
    const button = element("button", { type: "button", text: made.textContent, "data-key": `${source} ${target}`, "aria-label": `${source} to ${target}: ${made.textContent}`, onclick: () => openPair(source, target) });
    made.replaceChildren(button);
    return made;
  };
  return element("div", { class: "scroll", tabindex: 0, role: "region", "data-key": "scroll", "aria-label": `Pairs of ${node}` }, element("table", {},
    element("thead", {}, element("tr", {}, element("th", { scope: "col", text: "Node" }), element("th", { scope: "col", class: "number", text: "from here" }), element("th", { scope: "col", class: "number", text: "to here" }))),
    element("tbody", {}, ...rows.slice(0, TABLE_ROWS).map((row) => element("tr", {}, element("td", {}, named(row.name)), cell(row, node, row.name, row.out), cell(row, row.name, node, row.back))))));
}

readUrl();
takeToken();
if (data.token.get()) start();
else signOut();
