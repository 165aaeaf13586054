// Numbers and times as people read them.

/** Seconds as milliseconds or microseconds, with three digits. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 10) return `${seconds.toFixed(1)} s`;
  if (seconds >= 1) return `${seconds.toFixed(2)} s`;
  const ms = seconds * 1000;
  if (ms >= 100) return `${ms.toFixed(0)} ms`;
  if (ms >= 10) return `${ms.toFixed(1)} ms`;
  if (ms >= 0.1) return `${ms.toFixed(2)} ms`;
  return `${(ms * 1000).toFixed(0)} µs`;
}

export const percent = (ratio) => (ratio === null || ratio === undefined ? "–" : `${(ratio * 100).toFixed(ratio > 0 && ratio < 0.1 ? 1 : 0)} %`);

export const value = (number, metric) => (metric === "loss" ? percent(number) : duration(number));

/** How long ago, in the largest unit that says enough. */
export function ago(seconds) {
  if (seconds === null || seconds === undefined) return "never";
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** The time of day in UTC, as the verdict and the logs say it. */
export const clock = (time) => `${new Date(time).toISOString().slice(11, 19)} UTC`;

export const moment = (time) => (time ? `${new Date(time).toISOString().slice(0, 10)} ${clock(time)}` : "–");

export const since = (iso) => `${clock(iso)} (${ago((Date.now() - new Date(iso)) / 1000)} ago)`;

/** A name beside an arrow: one that is written from right to left must not turn the arrow around. */
export const isolated = (name) => `\u2068${name}\u2069`;

/** An element with text and children; text is never markup. */
export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, option] of Object.entries(options)) {
    if (key === "class") made.className = option;
    else if (key === "text") made.textContent = option;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), option);
    else if (option !== false && option !== null && option !== undefined) made.setAttribute(key, option === true ? "" : option);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
