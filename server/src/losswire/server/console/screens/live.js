/** Live: what the server does now, from the differences of /v1/live, one snapshot a second. */

import { get } from "../lib/api.js";
import { announce, Empty, html, Segments, Skeleton, useEffect, useMemo, useState } from "../lib/dom.js";
import { bytes, compact, duration, percent, short } from "../lib/numbers.js";
import { useQuery } from "../lib/state.js";
import { plural } from "../lib/words.js";
import { LazyTwin, LineKey, LinePlot } from "./plot.js";

const EVERY_MS = 1000;
const PATIENCE_MS = 4000;
const KEEP_S = 900;
const HEIGHT = 120;
/** Quantiles and means of one second are noise: they are taken over the last few. */
const SMOOTH = 5;
const WINDOWS = [
  [60, "1 min"],
  [300, "5 min"],
  [900, "15 min"],
];
const DEFAULTS = { window: 60 };

// One name for one outcome, by whichever door the call came.
const CODES = {
  400: "INVALID_ARGUMENT",
  401: "UNAUTHENTICATED",
  404: "NOT_FOUND",
  409: "ALREADY_EXISTS",
  412: "FAILED_PRECONDITION",
  413: "RESOURCE_EXHAUSTED",
  429: "RESOURCE_EXHAUSTED",
  500: "INTERNAL",
  501: "UNIMPLEMENTED",
  503: "UNAVAILABLE",
  504: "DEADLINE_EXCEEDED",
};
const codeOf = (code) => (code === "OK" || /^[23]\d\d$/.test(code) ? "ok" : (CODES[code] ?? code));

/** Add histograms of equal bounds: pairs of a bound and the count up to it. */
function addBuckets(all) {
  const sums = all[0]?.map(([bound]) => [Number(bound), 0]) ?? [];
  for (const each of all)
    each.forEach(([, count], i) => {
      sums[i][1] += count;
    });
  return sums;
}

const minusBuckets = (after, before) =>
  after.map(([bound, count], i) => [Number(bound), count - (before?.[i]?.[1] ?? 0)]);

/**
 * Return the value below which a share of the counts lies, linear within a bucket.
 * @param {[number, number][]} buckets bounds and the counts up to them
 * @param {number} share
 * @returns {number|null} the last finite bound where it lies beyond; null without counts
 */
export function quantile(buckets, share) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!(total > 0)) return null;
  const i = buckets.findIndex(([, count]) => count >= share * total);
  const [bound, count] = buckets[i];
  if (bound === Infinity) return buckets.at(-2)[0];
  const [low, below] = i ? buckets[i - 1] : [0, 0];
  return count > below ? low + ((bound - low) * (share * total - below)) / (count - below) : bound;
}

const keyOf = (call) => `${call.transport} ${call.method} ${call.code}`;
const byKey = (snapshot) => new Map(snapshot.calls.map((each) => [keyOf(each), each]));

/** Return how much the counts of a list have grown, by the name of their kind. */
function growth(before, after, key, nameOf) {
  const old = new Map(before.map((each) => [key(each), each.count]));
  const more = {};
  for (const each of after) {
    const count = each.count - (old.get(key(each)) ?? 0);
    if (count) more[nameOf(each)] = (more[nameOf(each)] ?? 0) + count;
  }
  return more;
}

/** Return the gauges of a snapshot. */
function gauges(snapshot) {
  return {
    time: Date.parse(snapshot.time) / 1000,
    reserved: snapshot.reserved_bytes,
    queue: snapshot.queue,
    ready: snapshot.workers.filter((each) => each.ready).length,
    memory: snapshot.device.memory_reserved_bytes,
  };
}

/**
 * Return what happened between two snapshots of one worker; only the gauges where there is none before.
 * @param {any} before
 * @param {any} after
 */
export function difference(before, after) {
  const point = gauges(after);
  if (!before || before.worker_id !== after.worker_id)
    return { ...point, seconds: 0, calls: {}, latency: [], refused: {}, batches: null, stages: {} };
  const old = byKey(before);
  const less = (name) => ({ count: after[name].count - before[name].count, sum: after[name].sum - before[name].sum });
  const stage = ([name, each]) => [
    name,
    { count: each.count - (before.stages[name]?.count ?? 0), sum: each.sum - (before.stages[name]?.sum ?? 0) },
  ];
  return {
    ...point,
    seconds: Math.max(point.time - Date.parse(before.time) / 1000, 1e-3),
    calls: growth(before.calls, after.calls, keyOf, (each) => codeOf(each.code)),
    latency: addBuckets(after.calls.map((each) => minusBuckets(each.buckets, old.get(keyOf(each))?.buckets))),
    refused: growth(
      before.refusals,
      after.refusals,
      (each) => each.reason,
      (each) => each.reason,
    ),
    batches: less("batch_sizes"),
    stages: Object.fromEntries(Object.entries(after.stages).map(stage)),
  };
}

/** A point of a time without answers: it parts the lines. */
const silence = (time) => ({
  time,
  isSilent: true,
  reserved: {},
  queue: {},
  ready: null,
  memory: null,
  seconds: 0,
  calls: {},
  latency: [],
  refused: {},
  batches: null,
  stages: {},
});

/** What was seen so far: it lives as long as the page, so that a look at another screen loses nothing. */
const seen = { points: [], last: null, lastAt: 0, marks: [], gone: null, isPaused: false, error: null };
const listeners = new Set();
let timer = 0;
const tell = () => listeners.forEach((each) => each());

/** Keep a snapshot; a new worker leaves a mark. */
function keep(snapshot) {
  const time = Date.parse(snapshot.time) / 1000;
  const isNew = seen.last && seen.last.worker_id !== snapshot.worker_id;
  if (seen.gone) {
    seen.points.push(silence(seen.gone + 0.5));
    announce(isNew ? "The server was restarted and answers." : "The server answers again.");
  }
  if (isNew || seen.gone)
    seen.marks.push({ from: seen.gone ?? time, to: time, word: isNew ? "restarted" : "no answer" });
  seen.points.push(difference(seen.last, snapshot));
  seen.points = seen.points.filter((each) => each.time > time - KEEP_S - 2);
  seen.marks = seen.marks.filter((each) => each.to > time - KEEP_S);
  Object.assign(seen, { last: snapshot, lastAt: performance.now(), gone: null, error: null });
}

async function poll() {
  clearTimeout(timer);
  if (!document.hidden && !seen.isPaused) {
    try {
      keep(await get("/v1/live", { signal: AbortSignal.timeout(PATIENCE_MS) }));
    } catch (error) {
      if (!seen.error) announce("The server does not answer.");
      // The time of the last answer, so that the stretch without one is drawn in full.
      Object.assign(seen, { error, gone: seen.gone ?? seen.points.at(-1)?.time ?? null });
    }
    tell();
  }
  clearTimeout(timer);
  timer = setTimeout(poll, EVERY_MS);
}

document.addEventListener("visibilitychange", () => !document.hidden && timer && poll());

/** Return what was seen, and draw again whenever there is more. */
function useSeen() {
  const [, draw] = useState(0);
  useEffect(() => {
    const listen = () => draw((count) => count + 1);
    listeners.add(listen);
    poll();
    return () => listeners.delete(listen);
  }, []);
  return seen;
}

const sum = (points, of) => points.reduce((total, each) => total + of(each), 0);
const total = (counts) => Object.values(counts).reduce((all, n) => all + n, 0);

/** Return a figure of the last `SMOOTH` points up to each one. */
function smoothed(points, of) {
  return points.map((each, i) => (each.isSilent ? null : of(points.slice(Math.max(0, i + 1 - SMOOTH), i + 1))));
}

const meanOf = (parts) => {
  const count = sum(parts, (each) => each?.count ?? 0);
  return count ? sum(parts, (each) => each?.sum ?? 0) / count : null;
};
const latencyOf = (points, share) =>
  quantile(addBuckets(points.map((each) => each.latency).filter((each) => each.length)), share);

/**
 * Say what the last minute was like.
 * @param {any[]} points
 */
export function sentenceOf(points) {
  const end = points.at(-1)?.time ?? 0;
  const last = points.filter((each) => each.time > end - 60 && each.seconds > 0);
  const seconds = sum(last, (each) => each.seconds);
  if (!last.length) return "Listening: the first second is not over.";
  const when = seconds > 55 ? "in the last minute" : `in the last ${Math.round(seconds)} s`;
  const calls = sum(last, (each) => total(each.calls));
  const refused = sum(last, (each) => total(each.refused));
  const told = refused ? `${compact(refused)} refused` : "nothing refused";
  if (!calls) return refused ? `No calls ended, ${told} ${when}.` : `No calls ${when}.`;
  const rate = calls / seconds;
  const how =
    rate >= 1 ? `${rate < 10 ? short(rate, 2) : compact(Math.round(rate))} calls a second` : plural(calls, "call");
  return `${how}, p99 ${duration(Number(latencyOf(last, 0.99).toPrecision(2)))}, ${told} ${when}.`;
}

const perSecond = (n) => (n === null ? "–" : `${short(n, 3)}/s`);
const optional = (write) => (n) => (n === null || n === undefined ? "–" : write(n));
const seconds = optional((n) => duration(Number(n.toPrecision(2))));
const size = optional(bytes);
const plain = optional((n) => short(n, 3));

/** Return what is drawn: for each picture its lines, their values at all points, and how numbers are written. */
function pictures(points, last) {
  const kinds = (name) => [...new Set(points.flatMap((each) => Object.keys(each[name])))].sort();
  const codes = ["ok", ...kinds("calls").filter((each) => each !== "ok")].slice(0, 8);
  const reasons = kinds("refused").slice(0, 8);
  const stages = Object.keys(last.stages);
  const rate = (name, kind) => points.map((each) => (each.seconds ? (each[name][kind] ?? 0) / each.seconds : null));
  const line = (label, values) => ({ label, values });
  // Resident tensors are beside the budget.
  const within = Object.keys(last.reserved_bytes).filter((name) => name !== "residents");
  const held = within.reduce((sum, name) => sum + last.reserved_bytes[name], 0);
  return [
    {
      title: "Calls a second",
      write: perSecond,
      axis: plain,
      lines: codes.map((code) => line(code, rate("calls", code))),
    },
    {
      title: "Latency",
      write: seconds,
      note: `over ${SMOOTH} s`,
      lines: [
        ["p50", 0.5],
        ["p99", 0.99],
      ].map(([name, share]) =>
        line(
          name,
          smoothed(points, (some) => latencyOf(some, share)),
        ),
      ),
    },
    {
      title: "Refused a second",
      write: perSecond,
      axis: plain,
      note: "by reason",
      lines: reasons.length
        ? reasons.map((reason) => line(reason, rate("refused", reason)))
        : [
            line(
              "refused",
              points.map((each) => (each.seconds ? 0 : null)),
            ),
          ],
    },
    {
      title: "Bytes admitted",
      write: size,
      isBytes: true,
      note: `${percent(held / last.budget_bytes)} of ${bytes(last.budget_bytes)}`,
      lines: Object.keys(last.reserved_bytes).map((name) =>
        line(
          name,
          points.map((each) => each.reserved[name] ?? null),
        ),
      ),
    },
    {
      title: "Age of the queue",
      write: seconds,
      note: `${last.queue.length} waiting`,
      lines: [
        line(
          "oldest",
          points.map((each) => each.queue.oldest_seconds ?? null),
        ),
      ],
    },
    {
      title: "Batch size",
      write: plain,
      note: `mean over ${SMOOTH} s`,
      lines: [
        line(
          "evaluations",
          smoothed(points, (some) => meanOf(some.map((each) => each.batches))),
        ),
      ],
    },
    {
      title: "Stages",
      write: seconds,
      note: `mean over ${SMOOTH} s`,
      lines: stages.map((name) =>
        line(
          name,
          smoothed(points, (some) => meanOf(some.map((each) => each.stages[name]))),
        ),
      ),
    },
    {
      title: "Device memory",
      write: size,
      isBytes: true,
      note: `of ${bytes(last.device.memory_bytes)}, ${last.device.name}`,
      lines: [
        line(
          "held",
          points.map((each) => each.memory),
        ),
      ],
    },
    {
      title: "Workers",
      write: plain,
      note: `up ${duration(Math.round(last.uptime_seconds))}`,
      lines: [
        line(
          "ready",
          points.map((each) => each.ready),
        ),
      ],
    },
  ];
}

const TIME_STEPS = [10, 20, 30, 60, 120, 300];
const BYTE_STEPS = Array.from({ length: 50 }, (_, i) => 2 ** i);
const clock = (time) => new Date(time * 1000).toTimeString().slice(0, 8);

/** One picture: its newest numbers, or those under the cursor. */
function Picture({ picture, times, range, marks, hover, onHover }) {
  const { title, lines, write, note } = picture;
  const at = hover === null ? times.length - 1 : Math.min(hover, times.length - 1);
  const textAt = (index) => lines.map((each) => `${each.label} ${write(each.values[index] ?? null)}`).join(" · ");
  const text = textAt(at);
  const top = useMemo(() => Math.max(0, ...lines.flatMap((each) => each.values.filter((n) => n !== null))), [lines]);
  return html`<figure class="figure">
    <header style=${{ flexWrap: "nowrap" }}><h2 class="nowrap">${title}</h2>
      <span class="small quiet clip" title=${note}>${hover === null ? note : clock(times[at])}</span></header>
    <div class="key"
      style=${{ columnGap: "12px", rowGap: "0", overflow: "hidden", height: "32px", alignContent: "flex-start" }}
      title=${text}>${lines.map(
        (each, i) => html`<span key=${each.label} class="nowrap">
      ${lines.length > 1 && html`<${LineKey} index=${i} />`}${each.label} <b style=${{ color: "var(--ink)" }}>
      ${write(each.values[at] ?? null)}</b></span>`,
      )}</div>
    <${LinePlot} xs=${times} lines=${lines} height=${HEIGHT} xRange=${range}
      yRange=${[0, top > 0 ? top * (marks.length ? 1.4 : 1.15) : 1]} shades=${marks} xSteps=${TIME_STEPS}
      ySteps=${picture.isBytes ? BYTE_STEPS : null}
      formatX=${clock} formatY=${picture.axis ?? write} cursor=${hover === null ? null : at} onCursor=${onHover}
        say=${(index) => `${clock(times[index])}: ${textAt(index)}`} label="${title}: ${text}." />
    <${LazyTwin} name="${title}: the numbers" head=${["time", ...lines.map((each) => each.label)]}
      rows=${() => times.map((time, i) => [clock(time), ...lines.map((each) => write(each.values[i] ?? null))]).reverse()} />
  </figure>`;
}

/** The last calls that were refused. */
function Refusals({ refusals }) {
  return html`<section class="card"><header><h2>Last refusals</h2><span class="small quiet">
    ${refusals.length ? `the last ${refusals.length}` : ""}</span></header>
    ${
      refusals.length
        ? html`<div class="table-wrap" tabindex="0" role="region" aria-label="Last refusals"
      style=${{ maxHeight: "480px", overflow: "auto" }}><table>
      <thead><tr>${["time", "call", "code", "reason", "what the caller was told"].map(
        (each) => html`<th scope="col"
        key=${each}>${each}</th>`,
      )}</tr></thead>
      <tbody>${refusals.map(
        (each, i) => html`<tr key=${each.time + i}><td class="nowrap">
        ${clock(Date.parse(each.time) / 1000)}</td><td class="nowrap">${each.method.replace("losswire.v1.", "")}</td>
        <td class="nowrap small">${each.code}</td><td class="nowrap small">${each.reason}</td>
          <td class="small" style=${{ minWidth: "240px", overflowWrap: "anywhere" }}>${each.detail}</td></tr>`,
      )}</tbody>
          </table></div>`
        : html`<p class="quiet">Nothing was refused since the server started.</p>`
    }</section>`;
}

/** What the line on top says: the server's silence, a pause, or the last minute. */
function headline({ points, last, lastAt, gone, isPaused }) {
  if (gone)
    return `The server has not answered for ${duration(Math.max(1, Math.round((performance.now() - lastAt) / 1000)))}. This page asks again each second.`;
  const sentence = sentenceOf(points);
  return `${isPaused ? "Paused. " : ""}${last.ready ? "" : "The server is not ready. "}${sentence}`;
}

/** Pictures, the line on top, and the refusals. */
function Board({ points, last, lastAt, marks, gone, isPaused }) {
  const [query, set] = useQuery(DEFAULTS);
  const [hover, setHover] = useState(null);
  const span = WINDOWS.some(([size_]) => size_ === query.window) ? query.window : DEFAULTS.window;
  // While nothing answers time goes on.
  const end = points.at(-1).time + (gone ? (performance.now() - lastAt) / 1000 : 0);
  const range = [end - span, end];
  const [times, drawn] = useMemo(() => {
    const found = points.filter((each, i) => i === points.length - 1 || each.time >= end - span - SMOOTH);
    return [found.map((each) => each.time), pictures(found, last)];
  }, [last, span]);
  const shades = [...marks, ...(gone ? [{ from: gone, to: end, word: "no answer" }] : [])]
    .filter((each) => each.to >= range[0])
    .map((each) => ({ ...each, from: Math.max(each.from, range[0]), color: "var(--quiet)" }));
  const pause = () => {
    seen.isPaused = !seen.isPaused;
    tell();
    if (!seen.isPaused) poll();
  };
  return html`<div class="screen">
    <header><h1>Live</h1><div class="row"><${Segments} label="Window" small value=${span} options=${WINDOWS}
      onChange=${(window) => set({ window }, true)} />
      <button type="button" class="button small" aria-pressed=${String(isPaused)} onClick=${pause}
        style=${{ minWidth: "64px" }}>${isPaused ? "Go on" : "Pause"}</button></div></header>
    <p class="sentence ${gone ? "bad" : ""}" style=${{ minHeight: "20px" }}>
      ${headline({ points, last, lastAt, gone, isPaused })}</p>
    <div class="grid">${drawn.map(
      (picture) => html`<${Picture} key=${picture.title} picture=${picture} times=${times}
      range=${range} marks=${shades} hover=${hover} onHover=${setHover} />`,
    )}</div>
    <${Refusals} refusals=${last.recent_refusals} />
  </div>`;
}

const NO_COUNTS = "This server does not count its calls, so there is nothing live to show.";
const NO_ANSWER =
  "The server does not answer. This page asks again each second; losswire-server serve --http 127.0.0.1:8080 starts one.";

/** The screen. */
export default function Live() {
  const now = useSeen();
  if (now.last) return html`<${Board} ...${now} />`;
  return html`<div class="screen"><header><h1>Live</h1></header>
    ${
      now.error
        ? html`<${Empty} action="Ask again" onAction=${poll}>${now.error.status === 404 ? NO_COUNTS : NO_ANSWER}
      </${Empty}>`
        : html`<${Skeleton} height=${20} /><div class="grid">
        ${Array.from({ length: 9 }, (_, i) => html`<${Skeleton} key=${i} height=${HEIGHT + 96} />`)}</div>`
    }</div>`;
}
