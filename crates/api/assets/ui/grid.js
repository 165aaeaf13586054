// Draws a matrix on a canvas: rows measure columns. A cell is { word, failure, value, failed, total }.

import { decode, state } from "./data.js";
import { element, value as spelled } from "./words.js";

const LETTERS = { timeout: "T", refused: "R", unreachable: "U", dns: "D", tls: "S", reset: "X", protocol: "P", auth: "A", identity: "I", local: "L", other: "O" };
const NAMED = { timeout: "timeout", refused: "refused", unreachable: "unreachable", dns: "DNS", tls: "TLS", reset: "reset", protocol: "protocol", auth: "auth", identity: "other node", local: "source cannot try", other: "other" };

/** From so many cells on, each is a pixel of an image. */
const PIXELS_FROM = 40_000;

/** Room for the names of groups. */
const EDGE = 20;

/** A cell of so many pixels has room for a number. */
const NUMBERS_FROM = 50;

const font = (size, weight = "") => `${weight} ${size}px system-ui, sans-serif`;

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Colours from fast to slow: one hue, so that lightness alone tells, also to those who do not see hues. */
const SCALES = {
  light: [[232, 241, 250], [158, 202, 225], [66, 146, 198], [8, 81, 156], [8, 30, 75]],
  dark: [[24, 47, 71], [33, 90, 138], [75, 143, 196], [158, 202, 225], [240, 247, 255]],
};

function palette() {
  return dark.matches
    ? { scale: SCALES.dark, failed: "#e4572e", failedInk: "#160400", unknown: "#1a2129", stale: "#3b444d", line: "#35404b", ink: "#e8edf2", dim: "#a3b0bd", self: "#10151b", cursor: "#ffffff", shade: "rgba(16,21,27,.72)" }
    : { scale: SCALES.light, failed: "#c2410c", failedInk: "#ffffff", unknown: "#ffffff", stale: "#c9ced4", line: "#d5dae0", ink: "#17202a", dim: "#566270", self: "#eceff2", cursor: "#111111", shade: "rgba(255,255,255,.78)" };
}

function mix(scale, share) {
  const at = Math.min(0.9999, Math.max(0, share)) * (scale.length - 1);
  const [low, high] = [scale[Math.floor(at)], scale[Math.floor(at) + 1]];
  return low.map((part, index) => Math.round(part + (high[index] - part) * (at % 1)));
}

/** The colour of a value between the ends of what is shown. */
function range(metric, values) {
  if (metric === "loss") return { low: 0, high: 1, share: (value) => (value <= 0 ? 0 : 0.35 + 0.65 * Math.min(1, value)) };
  let [low, high] = [Infinity, 0];
  for (const value of values) if (value > 0) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (high === 0) [low, high] = [0.001, 0.004];
  // Noise is no difference: the scale spans a factor of eight at least.
  const middle = Math.sqrt(low * high);
  if (high / low < 8) [low, high] = [middle / Math.sqrt(8), middle * Math.sqrt(8)];
  return { low, high, share: (value) => Math.log(value / low) / Math.log(high / low) };
}

/** The cell of one pair. */
export function pairCell(matrix, source, target) {
  const at = source * matrix.n + target;
  const cell = state(matrix.states[at]);
  return { ...cell, value: cell.word === "self" || cell.word === "unknown" ? null : decode(matrix.values[at], matrix.metric) };
}

/** All pairs from one group to another as one cell: failures first, else the median. */
export function groupCell(matrix, sources, targets) {
  const counts = { ok: 0, failed: 0, stale: 0, unknown: 0, self: 0 };
  const values = new Uint16Array(sources.length * targets.length);
  let [failed, known] = [0, 0];
  for (const source of sources) {
    for (const target of targets) {
      const at = source * matrix.n + target;
      const byte = matrix.states[at];
      if (byte === 1) {
        counts.ok++;
        if (matrix.values[at]) values[known++] = matrix.values[at];
      } else if (byte === 0x40) counts.self++;
      else if (byte === 0) counts.unknown++;
      else if (byte & 0x80) counts.stale++;
      else [counts.failed, failed] = [counts.failed + 1, byte];
    }
  }
  const total = sources.length * targets.length - counts.self;
  const value = known ? decode(values.subarray(0, known).sort()[known >> 1], matrix.metric) : null;
  const failure = failed ? state(failed).failure : null;
  const word = total === 0 ? "self" : counts.failed ? "failed" : counts.ok > total / 2 ? "ok" : counts.stale ? "stale" : "unknown";
  return { word, failure, value, counts, total };
}

export class Grid {
  constructor(holder, canvas, on) {
    Object.assign(this, { holder, canvas, on, cursor: null, drawn: null });
    canvas.addEventListener("pointermove", (event) => this.hover(this.at(event)));
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("click", (event) => this.choose(this.at(event)));
    holder.addEventListener("keydown", (event) => this.key(event));
    dark.addEventListener("change", () => this.drawn && this.draw(this.drawn));
    new ResizeObserver(() => this.drawn && this.draw(this.drawn)).observe(holder);
  }

  clear() {
    this.drawn = this.cursor = null;
    this.canvas.width = this.canvas.height = 0;
  }

  /** `view`: rows and columns ({ label, group, mark }), cell(row, column), metric, lit(row, column) or null, selected [row, column]. */
  draw(view) {
    this.keep(view);
    this.drawn = view;
    const { rows, columns, metric } = view;
    const colours = palette();
    this.base ??= document.createElement("canvas");
    const context = this.base.getContext("2d");
    context.font = font(12);
    const width = (entries) => Math.min(150, entries.reduce((most, entry) => Math.max(most, context.measureText(entry.label).width), 20) + 22);
    const room = this.holder.clientWidth - 2;
    let left = Math.ceil(width(rows));
    const most = rows.length <= 60 && room < 600 ? 15 : 4;
    let size = Math.max(rows.length > 150 ? 1 : most, Math.min(rows.length <= 12 ? 62 : 38, Math.floor((room - left - EDGE) / columns.length)));
    const named = size >= 10;
    if (!named) [left, size] = [Math.min(left, 90), Math.max(1, Math.min(9, Math.floor((room - 90) / columns.length)))];
    const top = named ? Math.min(120, Math.ceil(width(columns))) : 24;
    // The names of the groups stand at the far edges.
    const edge = named && rows.some((row) => row.group !== null) && view.kind === "pairs" ? EDGE : 1;
    const [wide, high] = [left + size * columns.length + edge, top + size * rows.length + edge];
    const ratio = devicePixelRatio || 1;
    for (const canvas of [this.base, this.canvas]) {
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(high * ratio);
    }
    this.canvas.style.width = `${wide}px`;
    this.canvas.style.height = `${high}px`;
    context.scale(ratio, ratio);
    this.shape = { left, top, size, named };

    this.scale = view.kind === "pairs" && rows.length * columns.length > PIXELS_FROM ? this.pixels(context, view, colours) : this.cells(context, view, colours);
    this.lines(context, view, colours);
    this.compose();
  }

  /** The cursor stands on nodes, not on a place: nodes come and go. */
  keep(view) {
    if (!this.cursor || !this.drawn || this.drawn === view) return;
    const place = (before, now, at) => (at < 0 ? -1 : now.findIndex((entry) => entry.label === before[at]?.label));
    const [row, column] = this.cursor;
    const moved = [place(this.drawn.rows, view.rows, row), place(this.drawn.columns, view.columns, column)];
    this.cursor = (row >= 0 && moved[0] < 0) || (column >= 0 && moved[1] < 0) ? null : moved;
  }

  /** Every cell by itself, with its letter. */
  cells(context, view, colours) {
    const { left, top, size } = this.shape;
    const { rows, columns, metric } = view;
    const cells = [];
    for (let row = 0; row < rows.length; row++) for (let column = 0; column < columns.length; column++) cells.push(view.cell(row, column));
    const scale = range(metric, cells.filter((cell) => cell.word === "ok").map((cell) => cell.value));
    const gap = size >= 6 ? 1 : 0;
    cells.forEach((cell, index) => {
      const [row, column] = [Math.floor(index / columns.length), index % columns.length];
      const [x, y, side] = [left + column * size, top + row * size, size - gap];
      context.fillStyle = this.colour(cell, scale, colours, metric);
      context.fillRect(x, y, side, side);
      if (cell.word === "failed" && cell.counts) this.share(context, cell, x, y, side, scale, colours, metric);
      else if (size >= 10) this.glyph(context, cell, x, y, side, colours);
      if (size >= NUMBERS_FROM && (!view.lit || view.lit(row, column)) && cell.word === "ok" && cell.value !== null) this.number(context, cell, x, y, side, scale, colours, metric);
      if (view.lit && !view.lit(row, column)) {
        context.fillStyle = colours.shade;
        context.fillRect(x, y, side, side);
      }
    });
    return scale;
  }

  /** A pixel a cell, then enlarged: a million cells are as smooth as a hundred. */
  pixels(context, view, colours) {
    const { left, top, size } = this.shape;
    const { rows, columns, metric, matrix } = view;
    const seen = new Set();
    for (const row of rows) for (const column of columns) if (matrix.states[row.node * matrix.n + column.node] === 1) seen.add(matrix.values[row.node * matrix.n + column.node]);
    const scale = range(metric, [...seen].map((code) => decode(code, metric)));
    const packed = ([red, green, blue]) => (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
    const hex = (colour) => packed([1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
    const colour = new Map([...seen].map((code) => [code, code ? packed(mix(colours.scale, scale.share(decode(code, metric)))) : hex(colours.unknown)]));
    const image = new ImageData(columns.length, rows.length);
    const pixels = new Uint32Array(image.data.buffer);
    const [self, unknown, stale, failed] = [hex(colours.self), hex(colours.unknown), hex(colours.stale), hex(colours.failed)];
    let at = 0;
    for (let row = 0; row < rows.length; row++) {
      const base = rows[row].node * matrix.n;
      for (let column = 0; column < columns.length; column++) {
        const byte = matrix.states[base + columns[column].node];
        const full = byte === 1 ? colour.get(matrix.values[base + columns[column].node]) : byte === 0x40 ? self : byte === 0 ? unknown : byte & 0x80 ? stale : failed;
        pixels[at++] = view.lit && !view.lit(row, column) ? (full & 0x00ffffff) | 0x40000000 : full;
      }
    }
    this.picture ??= document.createElement("canvas");
    [this.picture.width, this.picture.height] = [columns.length, rows.length];
    this.picture.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.picture, left, top, columns.length * size, rows.length * size);
    return scale;
  }

  /** What was drawn, with the names and the cursor over it: moving the cursor draws no cell. */
  compose() {
    const view = this.drawn;
    const colours = palette();
    const { left, top, size } = this.shape;
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.base, 0, 0);
    const ratio = devicePixelRatio || 1;
    context.scale(ratio, ratio);
    this.names(context, view, colours);
    const frame = (at, colour, thick) => {
      if (!at || at[0] < 0 || at[1] < 0) return;
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.strokeRect(left + at[1] * size - 1, top + at[0] * size - 1, size + 1, size + 1);
    };
    frame(view.selected, colours.cursor, 3);
    frame(this.cursor, "#1a8cff", 2);
  }

  colour(cell, scale, colours, metric) {
    if (cell.word === "self") return colours.self;
    if (cell.word === "failed") return colours.failed;
    if (cell.word === "stale") return colours.stale;
    if (cell.word === "unknown" || cell.value === null) return colours.unknown;
    return `rgb(${mix(colours.scale, scale.share(cell.value, metric)).join(",")})`;
  }

  /** A group of which some pairs fail: as much of it is red as fails, and enough to be seen. */
  share(context, cell, x, y, side, scale, colours, metric) {
    const high = Math.max(0.42, cell.counts.failed / cell.total) * side;
    context.fillStyle = this.colour({ ...cell, word: cell.counts.ok ? "ok" : "failed" }, scale, colours, metric);
    context.fillRect(x, y, side, side);
    context.fillStyle = colours.failed;
    context.fillRect(x, y + side - high, side, high);
    context.fillStyle = colours.failedInk;
    context.font = font(Math.max(8, Math.min(13, side * 0.36)), "600");
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(String(cell.counts.failed), x + side / 2, y + side - high / 2, side - 2);
  }

  /** The value in its cell, dark on light or light on dark. */
  number(context, cell, x, y, side, scale, colours, metric) {
    const [red, green, blue] = mix(colours.scale, scale.share(cell.value));
    context.fillStyle = 0.3 * red + 0.59 * green + 0.11 * blue > 105 ? "#0b1620" : "#ffffff";
    context.font = font(12);
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(spelled(cell.value, metric), x + side / 2, y + side / 2, side - 4);
  }

  glyph(context, cell, x, y, side, colours) {
    const text = { failed: cell.counts ? String(cell.counts.failed) : LETTERS[cell.failure] ?? "O", unknown: "?", stale: "~" }[cell.word];
    if (cell.word === "unknown") {
      context.strokeStyle = colours.line;
      context.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
    }
    if (!text) return;
    context.fillStyle = cell.word === "failed" ? colours.failedInk : colours.dim;
    context.font = `600 ${Math.max(8, Math.min(14, side * 0.62))}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(text, x + side / 2, y + side / 2 + 0.5, side);
  }

  /** Lines between groups. */
  lines(context, view, colours) {
    const { left, top, size } = this.shape;
    const ends = (entries) => entries.map((entry, index) => index > 0 && entry.group !== entries[index - 1].group);
    context.strokeStyle = colours.dim;
    context.lineWidth = size >= 6 ? 1.5 : 1;
    ends(view.rows).forEach((isEnd, row) => isEnd && line(context, 0, top + row * size - 0.5, left + size * view.columns.length, top + row * size - 0.5));
    ends(view.columns).forEach((isEnd, column) => isEnd && line(context, left + column * size - 0.5, 0, left + column * size - 0.5, top + size * view.rows.length));
  }

  names(context, view, colours) {
    const { left, top, size, named } = this.shape;
    context.font = font(Math.min(12, Math.max(9, size - 1)));
    context.textBaseline = "middle";
    const [row, column] = this.cursor ?? [-1, -1];
    const paint = (entry, isCursor) => {
      context.fillStyle = entry.mark ? colours.failed : isCursor ? colours.ink : colours.dim;
      context.font = font(Math.min(12, Math.max(9, size - 1)), isCursor || entry.mark ? "700" : "");
    };
    if (named) {
      view.rows.forEach((entry, index) => {
        paint(entry, index === row);
        context.textAlign = "right";
        context.fillText(fit(context, `${entry.label}${entry.mark ?? ""}`, left - 8), left - 6, top + index * size + size / 2);
      });
      view.columns.forEach((entry, index) => {
        context.save();
        context.translate(left + index * size + size / 2, top - 6);
        context.rotate(-Math.PI / 2);
        paint(entry, index === column);
        context.textAlign = "left";
        context.fillText(fit(context, `${entry.label}${entry.mark ?? ""}`, top - 8), 0, 0);
        context.restore();
      });
      if (view.kind === "pairs") this.edges(context, view, colours);
      return;
    }
    context.fillStyle = colours.dim;
    for (const { group, from, count } of runs(view.rows)) {
      context.textAlign = "right";
      if (count * size >= 12) context.fillText(fit(context, group ?? "", left - 8), left - 6, top + (from + count / 2) * size);
    }
    for (const { group, from, count } of runs(view.columns)) {
      context.textAlign = "center";
      context.fillText(fit(context, group ?? "", count * size - 4), left + (from + count / 2) * size, top - 10);
    }
  }

  /** The names of the groups, beside and below what they hold. */
  edges(context, view, colours) {
    const { left, top, size } = this.shape;
    context.fillStyle = colours.dim;
    context.font = font(12, "600");
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (const { group, from, count } of runs(view.columns)) {
      context.fillText(fit(context, group ?? "", count * size - 4), left + (from + count / 2) * size, top + size * view.rows.length + EDGE / 2);
    }
    for (const { group, from, count } of runs(view.rows)) {
      context.save();
      context.translate(left + size * view.columns.length + EDGE / 2, top + (from + count / 2) * size);
      context.rotate(Math.PI / 2);
      context.fillText(fit(context, group ?? "", count * size - 4), 0, 0);
      context.restore();
    }
  }

  /** Row and column under a pointer; -1 stands for the names. */
  at(event) {
    if (!this.drawn) return null;
    const { left, top, size } = this.shape;
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - left) / size);
    const row = Math.floor((event.clientY - box.top - top) / size);
    if (row >= this.drawn.rows.length || column >= this.drawn.columns.length || (row < 0 && column < 0)) return null;
    return [Math.max(-1, row), Math.max(-1, column)];
  }

  hover(at) {
    if (String(at) === String(this.cursor)) return;
    this.cursor = at;
    if (this.drawn) requestAnimationFrame(() => this.drawn && this.compose());
    this.on.hover(at);
  }

  choose(at) {
    if (at) this.on.choose(at);
  }

  key(event) {
    if (!this.drawn || event.ctrlKey || event.metaKey || event.altKey) return;
    const [rows, columns] = [this.drawn.rows.length, this.drawn.columns.length];
    const [row, column] = this.cursor && this.cursor[0] >= 0 && this.cursor[1] >= 0 ? this.cursor : (this.drawn.selected ?? [0, -1]);
    const moves = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], Home: [row, 0], End: [row, columns - 1], PageUp: [0, column], PageDown: [rows - 1, column] };
    if (moves[event.key]) {
      const [to, over] = moves[event.key];
      this.hover([Math.min(rows - 1, Math.max(0, to)), Math.min(columns - 1, Math.max(0, over))]);
      this.follow();
    } else if (event.key === "Enter" && this.cursor) this.choose(this.cursor);
    else if (event.key.toLowerCase() === "n" && this.cursor && this.cursor[0] >= 0) this.choose([this.cursor[0], -1]);
    else if (event.key === "Escape") this.on.close();
    else return;
    event.preventDefault();
  }

  /** Keeps the cursor in sight. */
  follow() {
    const { left, top, size } = this.shape;
    const [row, column] = this.cursor;
    const holder = this.holder;
    const keep = (low, high, from, length) => (low < from ? low : high > from + length ? high - length : from);
    holder.scrollTop = keep(top + row * size - top, top + (row + 1) * size, holder.scrollTop, holder.clientHeight);
    holder.scrollLeft = keep(column * size, left + (column + 1) * size, holder.scrollLeft, holder.clientWidth);
  }

  /** What the colours and letters mean. */
  legend(metric, failures) {
    const colours = palette();
    const swatch = (draw, wide = 16) => {
      const canvas = element("canvas", { width: wide, height: 16, "aria-hidden": "true" });
      draw(canvas.getContext("2d"));
      return canvas;
    };
    const box = (cell) => swatch((context) => {
      context.fillStyle = this.colour(cell, { share: () => 0 }, colours, metric);
      context.fillRect(0, 0, 16, 16);
      this.glyph(context, cell, 0, 0, 16, colours);
    });
    const bar = swatch((context) => {
      for (let x = 0; x < 90; x++) {
        context.fillStyle = `rgb(${mix(colours.scale, x / 90).join(",")})`;
        context.fillRect(x, 0, 1, 16);
      }
    }, 90);
    const scale = this.scale ?? { low: 0.001, high: 0.01 };
    const entries = [element("span", {}, spelled(metric === "loss" ? 0 : scale.low, metric), bar, spelled(scale.high, metric))];
    for (const failure of failures) entries.push(element("span", {}, box({ word: "failed", failure }), `failed: ${NAMED[failure]}`));
    entries.push(element("span", {}, box({ word: "stale" }), "stale"), element("span", {}, box({ word: "unknown" }), "unknown"), element("span", { text: "! unreliable, † dead" }));
    return entries;
  }
}

/** Entries of one group that stand together. */
function runs(entries) {
  const found = [];
  entries.forEach((entry, index) => (index && entry.group === entries[index - 1].group ? found.at(-1).count++ : found.push({ group: entry.group, from: index, count: 1 })));
  return found;
}

function line(context, ...ends) {
  context.beginPath();
  context.moveTo(ends[0], ends[1]);
  context.lineTo(ends[2], ends[3]);
  context.stroke();
}

function fit(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let end = text.length;
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > room) end--;
  return end > 1 ? `${text.slice(0, end)}…` : "";
}
