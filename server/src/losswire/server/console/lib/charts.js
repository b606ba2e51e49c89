/** Drawings as SVG. Each has a title, a sentence, keys and a table twin. */
import { cx, html, useRef, useState, useWidth } from "./dom.js";
import { compact, count, decimalsOf, fixed, percent, short, withInterval } from "./numbers.js";

const DASHES = ["none", "6 3", "2 3", "8 3 2 3", "10 4", "4 2", "1 2", "12 3 3 3"];
const MARKERS = ["●", "■", "▲", "◆", "▼", "✚", "✖", "★"];

/**
 * Return the colour and the second channel of the n-th series.
 * @param {number} index
 * @returns {{color: string, dash: string, marker: string, token: string}}
 */
export const hue = (index) => ({
  color: `var(--c${index % 8})`,
  token: `--c${index % 8}`,
  dash: DASHES[index % 8],
  marker: MARKERS[index % 8],
});

/** Map a range of data to a range of pixels. @param {number} d0 @param {number} d1 @param {number} r0 @param {number} r1 */
export function linear(d0, d1, r0, r1) {
  const span = d1 - d0 || 1;
  return Object.assign((value) => r0 + ((value - d0) / span) * (r1 - r0), {
    back: (pixel) => d0 + ((pixel - r0) / (r1 - r0 || 1)) * span,
    ticks: (most) => ticks(d0, d1, most),
  });
}

/**
 * Map linearly near 0 and by magnitude beyond `knee`, for losses of either sign.
 * @param {number} d0
 * @param {number} d1
 * @param {number} r0
 * @param {number} r1
 * @param {number} knee
 */
export function logarithmic(d0, d1, r0, r1, knee) {
  const bend = (value) => Math.sign(value) * Math.log10(1 + Math.abs(value) / knee);
  const unbend = (value) => Math.sign(value) * (10 ** Math.abs(value) - 1) * knee;
  const inner = linear(bend(d0), bend(d1), r0, r1);
  return Object.assign((value) => inner(bend(value)), {
    back: (pixel) => unbend(inner.back(pixel)),
    ticks: (most) => logTicks(d0, d1, knee, most),
  });
}

/** Return round numbers in a range. @param {number} low @param {number} high @param {number} most @returns {number[]} */
export function ticks(low, high, most = 6) {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5].find((each) => each * power >= raw) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, index) =>
    Number(((first + index) * step).toPrecision(12)),
  );
}

function logTicks(low, high, knee, most) {
  const powers = [];
  for (
    let exponent = Math.ceil(Math.log10(knee) - 1e-9);
    10 ** exponent <= Math.max(Math.abs(low), Math.abs(high));
    exponent += 1
  )
    powers.push(10 ** exponent);
  const all = [...powers.map((each) => -each).reverse(), 0, ...powers].filter((each) => each >= low && each <= high);
  const keep = Math.ceil(all.length / Math.max(2, most));
  return all.filter((_, index) => index % keep === 0);
}

/**
 * The frame of a drawing: title, sentence, key, the picture and its table.
 * @param {{title: string, sentence?: string, actions?: any, series?: {name: string, index?: number}[], table?: {head: any[], rows: any[][]}, children: any, class?: string}} props
 */
export function Figure({ title, sentence, actions, series, table, children, class: name }) {
  return html`<figure class=${cx("figure", name)}>
    <header><h3>${title}</h3>${actions && html`<div class="row">${actions}</div>`}</header>
    ${sentence && html`<figcaption class="small quiet sentence">${sentence}</figcaption>`}
    ${
      series?.length > 1 &&
      html`<div class="key">${series.map((each, index) => {
        const { color, dash, marker } = hue(each.index ?? index);
        return html`<span key=${each.name}><svg width="24" height="12" aria-hidden="true">
          <path d="M0 6H24" stroke=${color} stroke-width="2" stroke-dasharray=${dash} /></svg>
          <i style=${{ color, fontStyle: "normal" }} aria-hidden="true">${marker}</i>${each.name}</span>`;
      })}</div>`
    }
    ${children}
    ${table && html`<${Twin} ...${table} />`}
  </figure>`;
}

/** A drawing's numbers as a table, behind a summary. @param {{head: any[], rows: any[][], name?: string}} props */
export function Twin({ head, rows, name = "The numbers" }) {
  const [open, setOpen] = useState(false);
  const shown = rows.slice(0, 500);
  return html`<details onToggle=${(event) => setOpen(event.target.open)}><summary>${name}</summary>
    ${
      open &&
      html`<div class="twin" tabindex="0" role="region" aria-label=${name}><table><thead>
        <tr>${head.map((each, index) => html`<th key=${index} scope="col"
        class=${index ? "num" : ""}>${each}</th>`)}</tr></thead>
      <tbody>${shown.map((row, at) => html`<tr key=${at}>${row.map((each, index) => html`<td key=${index}
        class=${index ? "num" : ""}>${typeof each === "number" ? short(each, 6) : each}</td>`)}</tr>`)}</tbody></table>
      ${rows.length > shown.length && html`<p class="hint">${count(rows.length - shown.length)} more rows are in the download.</p>`}</div>`
    }
  </details>`;
}

/** Return how the numbers of an axis are written: with the decimals that tell neighbours apart. */
function writer(all = []) {
  const steps = all.slice(1).map((each, index) => each - all[index]);
  const even = steps.length > 0 && steps.every((each) => Math.abs(each - steps[0]) < 1e-6 * Math.abs(steps[0]));
  const most = Math.max(...all.map(Math.abs));
  if (!even || most >= 1e4 || steps[0] < 1e-6) return (value) => (most >= 1e4 ? compact(value) : short(value, 3));
  return (value) => fixed(value, Math.max(0, -Math.floor(Math.log10(steps[0]) + 1e-9)));
}

/**
 * Axes of a plot.
 * @param {{x?: any, y?: any, width: number, height: number, left: number, bottom: number, xLabel?: string, formatX?: (v: number) => string, formatY?: (v: number) => string}} props
 */
export function Axes({ x, y, width, height, left, bottom, xLabel, formatX, formatY }) {
  const base = height - bottom;
  const [acrossTicks, upTicks] = [x?.ticks(Math.max(2, Math.floor((width - left) / 80))), y?.ticks(4)];
  const [writeX, writeY] = [formatX ?? writer(acrossTicks), formatY ?? writer(upTicks)];
  return html`<g class="axis" aria-hidden="true">
    ${upTicks?.map((each) => html`<g key=${`y${each}`}><path d="M${left} ${y(each)}H${width}" />
      <text x=${left - 6} y=${y(each) + 4} text-anchor="end">${writeY(each)}</text></g>`)}
    <path d="M${left} ${base}H${width}" />
    ${acrossTicks?.map((each) => html`<g key=${`x${each}`}><path d="M${x(each)} ${base}v4" />
      <text x=${x(each)} y=${base + 16} text-anchor="middle">${writeX(each)}</text></g>`)}
    ${xLabel && html`<text x=${width} y=${height - 2} text-anchor="end">${xLabel}</text>`}
  </g>`;
}

const LEFT = 48;
const BOTTOM = 36;

/** Return the range of finite buckets, and the smallest magnitude above 0. */
function extent(series) {
  let [low, high, knee] = [Infinity, -Infinity, Infinity];
  for (const each of series) {
    each.weight.forEach((weight, index) => {
      const [from, to] = [each.low[index], each.high[index]];
      if (!(weight > 0) || !Number.isFinite(from) || !Number.isFinite(to)) return;
      low = Math.min(low, from);
      high = Math.max(high, to);
      const size = Math.max(Math.abs(from), Math.abs(to));
      if (size > 0) knee = Math.min(knee, size);
    });
  }
  if (low > high) return { low: 0, high: 1, knee: 0.1 };
  return {
    low,
    high: high > low ? high : low + (Math.abs(low) || 1) * 0.01,
    knee: Math.max(knee, Math.max(Math.abs(low), Math.abs(high)) * 1e-6),
  };
}

/** Share buckets out over equal steps of the axis, so that bars of unequal buckets compare. */
function rebin(each, scale, from, to, bars) {
  const heights = new Float64Array(bars);
  const step = (to - from) / bars;
  each.weight.forEach((weight, index) => {
    if (!(weight > 0)) return;
    const [a, b] = [scale(each.low[index]), scale(each.high[index])].map((pixel) => (pixel - from) / step);
    if (!Number.isFinite(a) || !Number.isFinite(b)) return;
    const first = Math.min(bars - 1, Math.max(0, Math.floor(a)));
    const last = Math.min(bars - 1, Math.max(first, Math.ceil(b) - 1));
    if (first === last) {
      heights[first] += weight;
      return;
    }
    for (let bar = first; bar <= last; bar += 1)
      heights[bar] += (weight * Math.max(0, Math.min(b, bar + 1) - Math.max(a, bar))) / (b - a);
  });
  return heights;
}

/** Drag, or Shift with the arrow keys, chooses a range of the axis. */
function useBrush(x, low, high, brush, onBrush) {
  const from = useRef(null);
  const at = (event) => x.back(event.clientX - event.currentTarget.getBoundingClientRect().left);
  const clamp = (value) => Math.min(high, Math.max(low, value));
  if (!onBrush) return {};
  return {
    onPointerDown: (event) => {
      from.current = clamp(at(event));
      event.currentTarget.setPointerCapture(event.pointerId);
    },
    onPointerMove: (event) => {
      if (from.current === null) return;
      const to = clamp(at(event));
      if (Math.abs(x(to) - x(from.current)) > 3) onBrush([Math.min(from.current, to), Math.max(from.current, to)]);
    },
    onPointerUp: (event) => {
      if (from.current !== null && Math.abs(x(clamp(at(event))) - x(from.current)) <= 3) onBrush(null);
      from.current = null;
    },
    onKeyDown: (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") onBrush(null);
      if (!step) return;
      event.preventDefault();
      const move = (value, by) => clamp(x.back(x(value) + by * 16));
      const [a, b] = brush ?? [x.back(x(low) + 0.4 * (x(high) - x(low))), x.back(x(low) + 0.6 * (x(high) - x(low)))];
      onBrush(event.shiftKey ? [a, Math.max(move(b, step), a)] : [move(a, step), move(b, step)]);
    },
  };
}

/**
 * A histogram of one or several series over common axes. Buckets may be unequal: they are shared out.
 * @param {{title: string, sentence?: string, series: {name: string, low: number[], high: number[], weight: number[]}[], scale?: "linear"|"log", share?: boolean,
 *   brush?: [number, number]|null, onBrush?: (range: [number, number]|null) => void, marks?: {x: number, label: string}[], xLabel?: string, height?: number, actions?: any, log?: boolean}} props
 *   `share`: heights as shares of each series (default where there are several); `log`: logarithmic heights
 */
export function Histogram({
  title,
  sentence,
  series,
  scale = "linear",
  share = series.length > 1,
  brush = null,
  onBrush,
  marks = [],
  xLabel,
  height = 200,
  actions,
  log = false,
}) {
  const [ref, width] = useWidth();
  const { low, high, knee } = extent(series);
  const x = scale === "log" ? logarithmic(low, high, LEFT, width - 8, knee) : linear(low, high, LEFT, width - 8);
  const bars = Math.max(8, Math.min(80, Math.floor((width - LEFT) / 10)));
  const step = (width - 8 - LEFT) / bars;
  const all = series.map((each) => {
    const heights = rebin(each, x, LEFT, width - 8, bars);
    const total = share ? each.weight.reduce((sum, weight) => sum + weight, 0) || 1 : 1;
    return heights.map((value) => value / total);
  });
  const most = Math.max(1e-12, ...all.map((heights) => Math.max(...heights)));
  const y = log
    ? logarithmic(0, most, height - BOTTOM, 8, share ? most / 1e4 : 1)
    : linear(0, most, height - BOTTOM, 8);
  const outline = (heights) =>
    heights.reduce(
      (path, value, index) => `${path}V${y(value).toFixed(1)}H${(LEFT + (index + 1) * step).toFixed(1)}`,
      `M${LEFT} ${y(0)}`,
    ) + `V${y(0)}`;
  const rows = Array.from({ length: bars }, (_, index) => [
    `${short(x.back(LEFT + index * step))} to ${short(x.back(LEFT + (index + 1) * step))}`,
    ...all.map((heights) => (share ? percent(heights[index]) : Number(heights[index].toPrecision(3)))),
  ]);
  return html`<${Figure} title=${title} sentence=${sentence} actions=${actions} series=${series}
    table=${{ head: [xLabel ?? "value", ...series.map((each) => each.name)], rows: rows.filter((row) => row.slice(1).some((value) => value !== 0 && value !== "0 %")) }}>
    <div class="plot" ref=${ref}><svg width=${width} height=${height} role=${onBrush ? "slider" : "img"}
      aria-label="${title}. ${sentence ?? ""}${onBrush ? " Arrow keys choose a range, Shift widens it, Escape clears it." : ""}" tabindex=${onBrush ? 0 : null}
      aria-valuemin=${onBrush ? low : null} aria-valuemax=${onBrush ? high : null}
        aria-valuenow=${onBrush ? (brush?.[0] ?? low) : null}
        aria-valuetext=${onBrush ? (brush ? `${short(brush[0])} to ${short(brush[1])}` : "everything") : null}
      ...${useBrush(x, low, high, brush, onBrush)} style=${onBrush ? { cursor: "ew-resize", touchAction: "pan-y" } : null}>
      <rect width=${width} height=${height} fill="transparent" />
      <${Axes} x=${x} y=${y} width=${width} height=${height} left=${LEFT} bottom=${BOTTOM} xLabel=${xLabel}
        formatY=${share ? percent : undefined} />
      ${all.map((heights, index) => html`<path key=${index} d=${outline(heights)} fill=${hue(index).color}
        fill-opacity=${series.length > 1 ? 0.16 : 0.4} stroke=${hue(index).color} stroke-width="1.5"
        stroke-dasharray=${hue(index).dash} />`)}
      ${brush && html`<rect x=${x(brush[0])} y="8" width=${Math.max(1, x(brush[1]) - x(brush[0]))}
        height=${height - BOTTOM - 8} fill="var(--accent)" fill-opacity="0.16" stroke="var(--accent)" />`}
      <${Marks} marks=${marks} x=${x} low=${low} high=${high} width=${width} height=${height} />
    </svg></div>
  </${Figure}>`;
}

/** Upright lines with a word, such as quantiles. */
const Marks = ({ marks, x, low, high, width, height }) =>
  marks
    .filter((each) => each.x >= low && each.x <= high)
    .map((each, index) => {
      const late = x(each.x) > width - 72;
      return html`<g key=${each.label}>
        <path d="M${x(each.x)} 8V${height - BOTTOM}" stroke="var(--ink)" stroke-dasharray="2 2" />
        <text class="mark-text" x=${x(each.x) + (late ? -4 : 4)} y=${18 + (index % 3) * 14}
          text-anchor=${late ? "end" : "start"}>${each.label}</text></g>`;
    });

/**
 * The share of weight at or below each value, from the same buckets.
 * @param {Omit<Parameters<typeof Histogram>[0], "share"|"log">} props
 */
export function ECDF({
  title,
  sentence,
  series,
  scale = "linear",
  brush = null,
  onBrush,
  marks = [],
  xLabel,
  height = 200,
  actions,
}) {
  const [ref, width] = useWidth();
  const { low, high, knee } = extent(series);
  const x = scale === "log" ? logarithmic(low, high, LEFT, width - 8, knee) : linear(low, high, LEFT, width - 8);
  const y = linear(0, 1, height - BOTTOM, 8);
  const curves = series.map((each) => {
    const total = each.weight.reduce((sum, weight) => sum + weight, 0) || 1;
    let below = 0;
    return each.weight.map((weight, index) => [each.high[index], (below += weight) / total]);
  });
  const path = (curve) =>
    curve
      .filter(([value]) => Number.isFinite(value))
      .reduce((text, [value, part]) => `${text}L${x(value).toFixed(1)} ${y(part).toFixed(1)}`, `M${LEFT} ${y(0)}`);
  return html`<${Figure} title=${title} sentence=${sentence} actions=${actions} series=${series}
    table=${{ head: ["series", xLabel ?? "value", "share at or below"], rows: curves.flatMap((curve, index) => curve.map(([value, part]) => [series[index].name, value, percent(part, 4)])) }}>
    <div class="plot" ref=${ref}><svg width=${width} height=${height} role="img"
      aria-label="${title}. ${sentence ?? ""}" tabindex=${onBrush ? 0 : null}
      ...${useBrush(x, low, high, brush, onBrush)}>
      <rect width=${width} height=${height} fill="transparent" />
      <${Axes} x=${x} y=${y} width=${width} height=${height} left=${LEFT} bottom=${BOTTOM} xLabel=${xLabel} formatY=${percent} />
      ${curves.map((curve, index) => html`<path key=${index} d=${path(curve)} fill="none" stroke=${hue(index).color}
        stroke-width="2" stroke-dasharray=${hue(index).dash} />`)}
      ${brush && html`<rect x=${x(brush[0])} y="8" width=${Math.max(1, x(brush[1]) - x(brush[0]))}
        height=${height - BOTTOM - 8} fill="var(--accent)" fill-opacity="0.16" />`}
      <${Marks} marks=${marks} x=${x} low=${low} high=${high} width=${width} height=${height} />
    </svg></div>
  </${Figure}>`;
}

/** Up and down moves between the rows of a list, Enter chooses. */
const rowKeys = (onPick, key) => (event) => {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  if (step) event.currentTarget[step]?.focus();
  else if (onPick && (event.key === "Enter" || event.key === " ")) onPick(key);
  else return;
  event.preventDefault();
};

/**
 * Means with their intervals, one row each, over a common axis.
 * @param {{title: string, sentence?: string, rows: {key: any, name: string, mean: number, low: number, high: number, n?: number, note?: any, tone?: string, index?: number}[], reference?: number, referenceLabel?: string,
 *   onPick?: (key: any) => void, picked?: any, actions?: any, noteHead?: string, nameHead?: string}} props `tone`: "good", "bad" or ""; `reference`: an upright line, such as 0
 */
export function Forest({
  title,
  sentence,
  rows,
  reference,
  referenceLabel,
  onPick,
  picked,
  actions,
  noteHead = "",
  nameHead = "",
}) {
  const finite = rows
    .flatMap((each) => [each.mean, each.low, each.high])
    .concat(reference ?? [])
    .filter(Number.isFinite);
  const [low, high] = finite.length ? [Math.min(...finite), Math.max(...finite)] : [0, 1];
  const pad = (high - low || Math.abs(high) || 1) * 0.04;
  const x = linear(low - pad, high + pad, 0, 100);
  const at = (value, fallback) => `${x(Number.isFinite(value) ? value : fallback)}%`;
  const [first, last] = [low - pad, high + pad];
  // As many digits as tell the ends apart.
  const edge = (value) => (Math.abs(value) < 1e6 ? fixed(value, decimalsOf(last - first)) : short(value, 3));
  return html`<${Figure} title=${title} sentence=${sentence} actions=${actions}>
    <div class="plot table-wrap" role="region" aria-label=${title} tabindex=${onPick ? null : 0}>
      <table><thead><tr><th scope="col">${nameHead}</th><th scope="col"
      style=${{ width: "36%", minWidth: "120px" }}><span class="row apart nowrap" style=${{ flexWrap: "nowrap" }}>
      <span>${edge(first)}</span>${referenceLabel && html`<span class="roomy">${referenceLabel}</span>`}
      <span>${edge(last)}</span></span></th>
      <th class="num" scope="col">mean [95 %]</th><th class="num"
        scope="col">n</th>${noteHead !== null && html`<th scope="col">${noteHead}</th>`}</tr></thead>
    <tbody>${rows.map(
      (
        each,
      ) => html`<tr key=${each.key} class=${cx(onPick && "pick")}
        aria-selected=${onPick ? String(each.key === picked) : null} tabindex=${onPick ? 0 : null}
        onClick=${onPick && (() => onPick(each.key))} onKeyDown=${rowKeys(onPick, each.key)}>
      <td>${each.index !== undefined && html`<span aria-hidden="true"
        style=${{ color: hue(each.index).color }}>${hue(each.index).marker} </span>`}${each.name}</td>
      <td><svg width="100%" height="16" role="img" aria-label="${each.name}: ${withInterval(each.mean, each.low, each.high)}">
        ${reference !== undefined && html`<line x1=${at(reference)} x2=${at(reference)} y1="-8" y2="24"
          stroke="var(--mark)" stroke-dasharray="2 2" />`}
        <g stroke=${tint(each)} fill=${tint(each)} stroke-width="1.5">
          <line x1=${at(each.low, first)} x2=${at(each.high, last)} y1="8" y2="8" />
          ${Number.isFinite(each.low) && html`<line x1=${at(each.low)} x2=${at(each.low)} y1="4" y2="12" />`}${Number.isFinite(each.high) && html`<line x1=${at(each.high)} x2=${at(each.high)} y1="4" y2="12" />`}
          ${Number.isFinite(each.mean) && html`<circle cx=${at(each.mean)} cy="8" r="3.5" />`}</g></svg></td>
      <td class="num" title=${String(each.mean)}>${withInterval(each.mean, each.low, each.high)}</td><td class="num">${each.n === undefined ? "" : count(each.n)}</td>
      ${noteHead !== null && html`<td class=${cx("small", each.tone, each.note?.length < 24 && "nowrap")}>${each.note}</td>`}</tr>`,
    )}</tbody></table></div>
  </${Figure}>`;
}
const tint = (each) =>
  each.index !== undefined
    ? hue(each.index).color
    : ({ good: "var(--good)", bad: "var(--bad)" }[each.tone] ?? "var(--ink)");

/**
 * Small signed bars around a line, such as a row's gradient.
 * @param {{values: ArrayLike<number>, label: string, most?: number, width?: number, height?: number}} props `most`: the magnitude of a full bar
 */
export function Strip({ values, label, most, width = 160, height = 24 }) {
  const all = Array.from(values);
  const size = most ?? Math.max(1e-300, ...all.filter(Number.isFinite).map(Math.abs));
  const step = width / (all.length || 1);
  const half = height / 2;
  return html`<svg width=${width} height=${height} role="img" aria-label=${label}><title>${label}</title>
    <path d="M0 ${half}H${width}" stroke="var(--line)" />
    ${all.map((value, index) => {
      const finite = Number.isFinite(value);
      const tall = finite ? Math.min(1, Math.abs(value) / size) * half : half;
      return html`<rect key=${index} x=${index * step + step * 0.1} width=${Math.max(0.5, step * 0.8)}
        y=${value > 0 || !finite ? half - tall : half} height=${Number.isNaN(value) ? height : tall}
        fill=${Number.isNaN(value) ? "var(--mark)" : value > 0 ? "var(--plus)" : "var(--minus)"} />`;
    })}</svg>`;
}

/**
 * Parts of a whole in one bar with words, such as win, tie and loss.
 * @param {{parts: {name: string, value: number, color: string}[], label: string}} props
 */
export function StackedBar({ parts, label }) {
  const total = parts.reduce((sum, each) => sum + each.value, 0) || 1;
  let from = 0;
  const placed = parts.map((each) => ({ ...each, from: (from += each.value) - each.value }));
  const text = parts.map((each) => `${each.name} ${percent(each.value / total)}`).join(", ");
  return html`<div class="stack tight"><svg width="100%" height="16" role="img" aria-label="${label}: ${text}">
      ${placed.map((each) => html`<rect key=${each.name} x="${(each.from / total) * 100}%"
        width="${(each.value / total) * 100}%" height="16" fill=${each.color} stroke="var(--paper)">
        <title>${each.name}: ${count(each.value)}</title></rect>`)}</svg>
    <div class="key">${parts.map((each) => html`<span key=${each.name}><svg width="12" height="12" aria-hidden="true">
      <rect width="12" height="12"
      fill=${each.color} /></svg>${each.name} ${count(each.value)} (${percent(each.value / total)})</span>`)}</div></div>`;
}

/**
 * A line without axes; the last point is marked.
 * @param {{values: number[], low?: number[], high?: number[], label: string, width?: number, height?: number}} props `low`, `high`: an interval's band
 */
export function Sparkline({ values, low, high, label, width = 120, height = 24 }) {
  const finite = [...values, ...(low ?? []), ...(high ?? [])].filter(Number.isFinite);
  const x = linear(0, Math.max(1, values.length - 1), 2, width - 4);
  const y = linear(finite.length ? Math.min(...finite) : 0, finite.length ? Math.max(...finite) : 1, height - 3, 3);
  const line = (all) =>
    all
      .map((value, index) => [value, index])
      .filter(([value]) => Number.isFinite(value))
      .map(([value, index]) => `${x(index).toFixed(1)} ${y(value).toFixed(1)}`);
  const points = line(values);
  const band = [...line(low ?? []), ...line(high ?? []).reverse()];
  return html`<svg width=${width} height=${height} role="img" aria-label=${label}><title>${label}</title>
    ${band.length > 0 && html`<path d="M${band.join("L")}Z" fill="var(--accent)"
      fill-opacity="0.16" />`}
    ${points.length > 1 && html`<path d="M${points.join("L")}" fill="none" stroke="var(--accent)" stroke-width="1.5" />`}
    ${points.length > 0 && html`<circle cx=${points[points.length - 1].split(" ")[0]}
      cy=${points[points.length - 1].split(" ")[1]} r="2.5" fill="var(--accent)" />`}</svg>`;
}
