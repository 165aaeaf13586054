// Both directions of one pair over time.

import { element, isolated, value } from "./words.js";

const dark = matchMedia("(prefers-color-scheme: dark)");

export class Chart {
  constructor(source, target, metric, title) {
    this.metric = metric;
    this.names = [`${isolated(source)} → ${isolated(target)}`, `${isolated(target)} → ${isolated(source)}`];
    this.holder = element("div", { class: "chart", role: "img", "aria-label": `${title} of ${this.names.join(" and ")} since this panel was opened` });
    this.plot = null;
  }

  draw(points) {
    const width = Math.max(200, this.holder.clientWidth || 320);
    const line = (direction) => points.map((point) => (point[direction].value === null ? null : point[direction].value));
    const failed = points.map((point) => (point.there.failed || point.back.failed ? 0 : null));
    const rows = [points.map((point) => point.at), line("there"), line("back"), failed];
    if (this.plot) {
      this.plot.setSize({ width, height: 190 });
      return this.plot.setData(rows);
    }
    const [ink, grid] = dark.matches ? ["#a3b0bd", "#35404b"] : ["#566270", "#d5dae0"];
    const two = (number) => String(number).padStart(2, "0");
    const times = (_, ticks) => ticks.map((at) => new Date(at * 1000)).map((at) => `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`);
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    const series = (label, stroke, dash) => ({ label, stroke, width: 2, dash, points: { size: 4 }, value: (_, number) => (number === null || number === undefined ? "–" : value(number, this.metric)) });
    this.plot = new window.uPlot({
      width, height: 190, cursor: { y: false },
      scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(high, 0.00001) * 1.15] } },
      axes: [{ ...axis, values: times, space: 70 }, { ...axis, size: 68, values: (_, ticks) => ticks.map((number) => value(number, this.metric)) }],
      series: [{ label: "UTC", value: (_, at) => (at === null ? "–" : times(null, [at])[0]) }, series(this.names[0], "#1a8cff"), series(this.names[1], "#d98a00", [6, 4]), { label: "failed", stroke: "#d0392b", width: 0, points: { show: true, size: 8, fill: "#d0392b" }, value: (_, mark) => (mark === null ? "–" : "yes") }],
    }, rows, this.holder);
  }

  destroy() {
    this.plot?.destroy();
    this.plot = null;
  }
}
