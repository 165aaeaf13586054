// Asks the bot: JSON, the packed matrix, and the stream. The token is in this tab alone and is sent as a header.

const KEY = "canary-token";

/** The token of this tab; empty if there is none. */
export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** The bot refused the token. */
export class Unauthorized extends Error {}

/** An answer takes at most so long: a bot that stands still does not break the connection. */
const PATIENCE = 8000;

async function ask(path, accept, ended, patience = PATIENCE) {
  const signal = AbortSignal.any([ended, ...(patience ? [AbortSignal.timeout(patience)] : [])]);
  const headers = { Accept: accept, Authorization: `Bearer ${token.get()}` };
  const response = await fetch(path, { headers, signal, cache: "no-cache", credentials: "omit" });
  if (response.status === 401) throw new Unauthorized("the bot does not know this token");
  if (response.status === 429) throw new Unauthorized("too many failed sign-ins; wait a moment");
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  return response;
}

export const json = async (path, signal) => (await ask(`api/v2/${path}`, "application/json", signal)).json();

/** The matrix: names, and for each pair a byte of state and a 16-bit code of its value, row by row. */
export async function matrix(metric, signal) {
  const response = await ask(`api/v2/matrix?metric=${metric}`, "application/octet-stream", signal);
  return unpack(await response.arrayBuffer());
}

export function unpack(buffer) {
  const view = new DataView(buffer);
  if (view.getUint32(0) !== 0x43424d31) throw new Error("the matrix has a form that this page does not know");
  const length = view.getUint32(4, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const n = head.nodes.length;
  const states = new Uint8Array(n * n);
  const values = new Uint16Array(n * n);
  const ages = new Array(n);
  for (let row = 0, at = 8 + length; row < n; row++, at += 4 + 3 * n) {
    const age = view.getUint32(at, true);
    ages[row] = age === 0xffffffff ? null : age / 1000;
    states.set(new Uint8Array(buffer, at + 4, n), row * n);
    for (let column = 0; column < n; column++) values[row * n + column] = view.getUint16(at + 4 + n + 2 * column, true);
  }
  return { ...head, n, states, values, ages };
}

/** Seconds, or a ratio, of a code; null for none. */
export function decode(code, metric) {
  if (code === 0) return null;
  return metric === "loss" ? (code - 1) / 10000 : 1e-9 * Math.exp(((code - 1) * 27.631021) / 16383);
}

const FAILURES = ["dns", "refused", "unreachable", "timeout", "tls", "reset", "protocol", "auth", "identity", "local"];

/** What a byte of state means. */
export function state(byte) {
  const stale = (byte & 0x80) !== 0;
  const low = byte & 0x7f;
  if (low === 0x40) return { word: "self" };
  if (low === 0) return { word: "unknown" };
  const failure = low >= 2 ? (FAILURES[low - 2] ?? "other") : null;
  return { word: stale ? "stale" : failure ? "failed" : "ok", failure };
}

/** Calls `handle(event, data)` for every message until `signal`; throws when the stream breaks. */
export async function stream(handle, signal) {
  const response = await ask("api/v2/stream", "text/event-stream", signal, null);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the bot ended the stream");
    const messages = (rest + value).split("\n\n");
    rest = messages.pop();
    for (const message of messages) {
      const field = (name) => message.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const data = field("data");
      if (data) handle(field("event"), JSON.parse(data));
    }
  }
}
