/** Lines over a shared axis: what Curves and Live draw with. */

import { Axes, hue, linear, Twin } from "../lib/charts.js";
import { announce, html, useMemo, useState, useWidth } from "../lib/dom.js";

/**
 * @typedef {{label: string, values: (number|null)[]}} Line null where it has no value
 * @typedef {{from: number, to: number, color: string, word: string}} Shade a place where both are equal, otherwise a stretch
 */

const LEFT = 56;
const RIGHT = 28;
const BOTTOM = 24;
const TOP = 4;
const CHARACTER = 6.5;

/** Return multiples of the first of some steps that leaves few enough. */
function ticksOf(low, high, steps, most) {
  const step = steps.find((each) => (high - low) / each <= most) ?? steps.at(-1);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.max(0, Math.floor(high / step) - first + 1) }, (_, i) => (first + i) * step);
}

/** Return the path of a line, parted where there is no value. */
function pathOf(xs, values, x, y) {
  let isDown = false;
  return values
    .map((value, i) => {
      if (value === null || !Number.isFinite(value)) {
        isDown = false;
        return "";
      }
      const point = `${isDown ? "L" : "M"}${x(xs[i]).toFixed(1)} ${y(value).toFixed(1)}`;
      isDown = true;
      return point;
    })
    .join("");
}

/** Stretches and places behind the lines, each with its word at the top unless that would cover another. */
function Shades({ shades, x, width, base }) {
  let free = LEFT;
  return shades.map(({ from, to, color, word }, i) => {
    const [left, right] = [x(from), x(to)];
    const size = word.length * CHARACTER;
    const start = Math.max(
      LEFT + 4,
      Math.min(right > left ? (left + right - size) / 2 : left + 4, width - RIGHT - size),
    );
    const isFree = word && start >= free;
    if (isFree) free = start + size + 8;
    return html`<g key=${i}><rect x=${left} y=${TOP} width=${right - left} height=${base - TOP} fill=${color}
      fill-opacity="0.1" />
      <path d="M${left} ${TOP}V${base}M${right} ${TOP}V${base}" stroke=${color} stroke-dasharray="2 3" />
        ${isFree && html`<text x=${start} y=${TOP + 12}>${word}</text>`}</g>`;
  });
}

const STEPS = { ArrowLeft: -1, ArrowRight: 1, PageUp: 20, PageDown: -20, Home: -Infinity, End: Infinity };

/**
 * A chart of lines. The cursor belongs to the caller, so that charts share it.
 * @param {{xs: number[], lines: Line[], height: number, label: string, xRange: [number, number], yRange: [number, number], shades?: Shade[], xLabel?: string,
 *   formatX: (n: number) => string, formatY: (n: number) => string, xSteps?: number[], ySteps?: number[], cursor: number|null, onCursor: (index: number|null) => void, say: (index: number) => string}} props `say`: what is under the cursor, in words
 */
export function LinePlot({
  xs,
  lines,
  height,
  label,
  xRange,
  yRange,
  shades = [],
  xLabel,
  formatX,
  formatY,
  xSteps,
  ySteps,
  cursor,
  onCursor,
  say,
}) {
  const [ref, width] = useWidth();
  const base = height - BOTTOM;
  const scale = (low, high, from, to, steps) =>
    Object.assign(linear(low, high, from, to), steps && { ticks: (most) => ticksOf(low, high, steps, most) });
  const [x, y, paths] = useMemo(() => {
    const across = scale(...xRange, LEFT, width - RIGHT, xSteps);
    const up = scale(...yRange, base, TOP, ySteps);
    const { ticks } = up;
    up.ticks = () => ticks(Math.max(2, Math.round(height / 36)));
    return [across, up, lines.map((each) => pathOf(xs, each.values, across, up))];
  }, [lines, width, ...xRange, ...yRange]);
  const nearest = (event) => {
    const at = x.back(event.clientX - event.currentTarget.getBoundingClientRect().left);
    return xs.reduce((best, each, i) => (Math.abs(each - at) < Math.abs(xs[best] - at) ? i : best), 0);
  };
  const onKeyDown = (event) => {
    const step = STEPS[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const from = cursor ?? (step > 0 ? -1 : xs.length);
    const index = Math.min(Math.max(from + step * (event.shiftKey ? 10 : 1), 0), xs.length - 1);
    onCursor(index);
    announce(say(index));
  };
  // What lies outside of the range is cut at the frame.
  return html`<div class="plot" ref=${ref}><svg width=${width} height=${height} role="img" tabindex="0"
    aria-label="${label} Arrow keys move the cursor." style=${{ touchAction: "pan-y" }}
      onPointerMove=${(event) => onCursor(nearest(event))} onPointerLeave=${() => onCursor(null)}
        onKeyDown=${onKeyDown}>
    <rect width=${width} height=${height} fill="transparent" />
    <${Shades} shades=${shades} x=${x} width=${width} base=${base} />
    <${Axes} x=${x} y=${y} width=${width - RIGHT} height=${height} left=${LEFT} bottom=${BOTTOM} xLabel=${xLabel}
      formatX=${formatX} formatY=${formatY} />
    <svg width=${width - RIGHT} height=${base + 2} style=${{ overflow: "hidden" }}>${paths.map(
      (path, i) => html`
      <path key=${i} d=${path} fill="none" stroke=${hue(i).color} stroke-width=${xs.length > 500 ? 1.5 : 2}
        stroke-dasharray=${hue(i).dash} stroke-linejoin="round" />`,
    )}</svg>
    ${
      cursor !== null &&
      html`<path d="M${x(xs[cursor])} ${TOP}V${base}" stroke="var(--mark)" stroke-dasharray="3 3" />
      ${lines.map(
        ({ values }, i) =>
          values[cursor] !== null &&
          values[cursor] >= yRange[0] &&
          values[cursor] <= yRange[1] &&
          html`<circle
        key=${i} cx=${x(xs[cursor])} cy=${y(values[cursor])} r="3.5" fill="var(--paper)" stroke=${hue(i).color}
        stroke-width="2" />`,
      )}`
    }
  </svg></div>`;
}

/** A short piece of a line, for keys and tables. @param {{index: number}} props */
export const LineKey = ({ index }) => html`<svg width="24" height="12" aria-hidden="true">
  <path d="M0 6H24" stroke=${hue(index).color} stroke-width="2" stroke-dasharray=${hue(index).dash} /></svg>`;

/** The numbers of a chart as a table, whose rows are only written while it is open. @param {{head: string[], rows: () => any[][], name?: string}} props */
export function LazyTwin({ rows, ...rest }) {
  const [isOpen, setOpen] = useState(false);
  return html`<div onToggleCapture=${(event) => setOpen(event.target.open)}>
    <${Twin} ...${rest} rows=${isOpen ? rows() : []} /></div>`;
}
