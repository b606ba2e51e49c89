/**
 * Lines over a shared axis, drawn by uPlot: what Curves and Live draw with. Colours come from the style sheet, so that a
 * change of theme is a redraw; the cursor moves with the mouse, a finger and the arrow keys.
 */

import { hue } from "../lib/charts.js";
import { color, html, useEffect, useLayoutEffect, useRef } from "../lib/dom.js";
import uPlot from "../vendor/uplot.js";

/**
 * @typedef {{label: string, color: number, fill?: boolean}} Line
 * @typedef {{from: number, to: number, color: number|null, word: string}} Shade one value at a kink, two at a stretch
 */

const FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

const lineColor = (i) => color(hue(i).token);
/** The second channel beside the colour, for whoever does not tell the colours apart. */
const dashOf = (i) => (hue(i).dash === "none" ? [] : hue(i).dash.split(" ").map(Number));

// Only the two screens with such charts need its style.
const sheet = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("../vendor/uplot.css", import.meta.url) });
document.head.append(sheet);

/** Draw stretches and places behind the lines, each with its word at the top. */
function drawShades(u, shades) {
  const { ctx, bbox } = u;
  const ratio = uPlot.pxRatio;
  const place = (x) => Math.round(u.valToPos(x, "x", true));
  let lastRight = -Infinity;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const { from, to, color: at, word } of shades) {
    const [left, right] = [place(from), place(to)];
    ctx.fillStyle = ctx.strokeStyle = at === null ? color("--quiet") : lineColor(at);
    ctx.globalAlpha = 0.1;
    if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.globalAlpha = 0.7;
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    ctx.lineWidth = ratio;
    ctx.beginPath();
    for (const x of new Set([left, right])) {
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
    }
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.font = FONT.replace("12px", `${12 * ratio}px`);
    const width = ctx.measureText(word).width;
    const middle = right > left ? (left + right - width) / 2 : left + 4 * ratio;
    const start = Math.min(Math.max(middle, bbox.left + 4 * ratio), bbox.left + bbox.width - width - 4 * ratio);
    // A word that would cover another one is left out: the list beside the chart has them all.
    if (word && start > lastRight + 4 * ratio) {
      ctx.textBaseline = "top";
      ctx.textAlign = "left";
      ctx.fillStyle = color("--quiet");
      ctx.fillText(word, start, bbox.top + 4 * ratio);
      lastRight = start + width;
    }
  }
  ctx.restore();
}

/** Return an axis in the look of the page. */
function axis(format, size, extra = {}) {
  return {
    stroke: () => color("--quiet"),
    grid: { stroke: () => color("--line"), width: 1 },
    ticks: { show: false },
    font: FONT,
    gap: 4,
    size,
    values: (_, splits) => splits.map(format),
    ...extra,
  };
}

/** Return the options of uPlot for the newest properties, which `now` returns. */
function optionsFor(now, width) {
  const { lines, height, sync, isTime } = now();
  return {
    width,
    height,
    padding: [8, 12, 0, 0],
    legend: { show: false },
    cursor: {
      y: false,
      drag: { x: false, y: false, setScale: false },
      points: { size: 7, width: 2, fill: () => color("--paper"), stroke: (_, i) => lineColor(now().lines[i - 1].color) },
      ...(sync ? { sync: { key: sync, setSeries: false } } : {}),
    },
    scales: { x: { time: false, range: () => now().xRange }, y: { range: (_, low, high) => now().yRange?.(low, high) ?? [low, high] } },
    axes: [
      axis((n) => now().formatX(n), 24, isTime ? { space: 64 } : { space: 48 }),
      axis((n) => (n === null ? "" : now().formatY(n)), 56, { space: 28 }),
    ],
    series: [
      {},
      ...lines.map(({ label, color: at, fill }) => ({
        label,
        width: 2,
        stroke: () => lineColor(at),
        fill: fill ? () => `color-mix(in srgb, ${lineColor(at)} 16%, transparent)` : undefined,
        dash: dashOf(at),
        points: { show: false },
        spanGaps: false,
      })),
    ],
    hooks: {
      drawClear: [(u) => drawShades(u, now().shades ?? [])],
      setCursor: [(u) => now().onCursor?.(u.cursor.left < 0 ? null : (u.cursor.idx ?? null))],
    },
  };
}

/** Move the cursor to a point of the data, as if a mouse had. */
function moveCursor(u, index) {
  const left = u.valToPos(u.data[0][index], "x");
  // Other charts of the same key follow only what comes from an event.
  u.setCursor({ left, top: 8 }, true, true);
}

const STEPS = { ArrowLeft: -1, ArrowRight: 1, PageUp: 20, PageDown: -20, Home: -Infinity, End: Infinity };

/** Return the key handler that moves the cursor along the data. */
function keys(ref) {
  return (event) => {
    const u = ref.current;
    const step = STEPS[event.key];
    if (!u || step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const last = u.data[0].length - 1;
    const from = u.cursor.left >= 0 ? (u.cursor.idx ?? 0) : step > 0 ? -1 : last + 1;
    moveCursor(u, Math.min(Math.max(from + step * (event.shiftKey ? 10 : 1), 0), last));
  };
}

/**
 * A chart of lines. `data` is `[xs, ...ys]` with null where a line has no value.
 * @param {{data: any[], lines: Line[], height: number, label: string, xRange: [number, number], yRange?: Function, shades?: Shade[],
 *   formatX: (n: number) => string, formatY: (n: number) => string, sync?: string, cursor?: number|null, isTime?: boolean,
 *   onCursor?: (index: number|null) => void}} props `cursor` is the place of the cursor when somebody else moves it
 */
export function LinePlot(props) {
  const box = useRef(null);
  const plot = useRef(null);
  const latest = useRef(props);
  latest.current = props;
  const structure = JSON.stringify([props.lines, props.height, props.sync]);

  useLayoutEffect(() => {
    const u = new uPlot(optionsFor(() => latest.current, box.current.clientWidth || 320), latest.current.data, box.current);
    plot.current = u;
    const resized = new ResizeObserver(() => {
      const width = box.current?.clientWidth;
      if (width && width !== u.width) u.setSize({ width, height: latest.current.height });
    });
    resized.observe(box.current);
    const redraw = () => u.redraw();
    addEventListener("themechange", redraw);
    return () => {
      removeEventListener("themechange", redraw);
      resized.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [structure]);

  useEffect(() => plot.current?.setData(props.data), [props.data, props.shades, props.xRange[0], props.xRange[1]]);
  useEffect(() => {
    const u = plot.current;
    if (u && props.cursor !== undefined && props.cursor !== null && props.cursor !== u.cursor.idx) moveCursor(u, props.cursor);
  }, [props.cursor]);

  return html`<div class="plot" ref=${box} role="img" tabindex="0" aria-label=${props.label} onKeyDown=${keys(plot)} style=${{ height: `${props.height}px` }}></div>`;
}

/** A short piece of a line, for keys and tables. @param {{color: number}} props */
export function LineKey({ color: at }) {
  return html`<svg width="24" height="12" aria-hidden="true"><path d="M0 6H24" stroke=${hue(at).color} stroke-width="2" stroke-dasharray=${hue(at).dash} /></svg>`;
}

/**
 * Return charts as one picture, one above the other on the page's ground, with the names of their lines on top.
 * @param {HTMLElement} root what holds the charts
 * @param {{label: string, color: number}[]} lines
 * @returns {Promise<Blob>}
 */
export function pictureOf(root, lines) {
  const charts = [...root.querySelectorAll("canvas")];
  const ratio = uPlot.pxRatio;
  const row = 20 * ratio;
  const page = document.createElement("canvas");
  page.width = Math.max(...charts.map((each) => each.width));
  page.height = charts.reduce((sum, each) => sum + each.height, row * (lines.length + 1));
  const ctx = page.getContext("2d");
  ctx.fillStyle = color("--paper");
  ctx.fillRect(0, 0, page.width, page.height);
  ctx.font = FONT.replace("12px", `${12 * ratio}px`);
  ctx.textBaseline = "middle";
  ctx.lineWidth = 2 * ratio;
  lines.forEach(({ label, color: at }, i) => {
    const y = row * (i + 0.75);
    ctx.strokeStyle = lineColor(at);
    ctx.setLineDash(dashOf(at).map((n) => n * ratio));
    ctx.beginPath();
    ctx.moveTo(row, y);
    ctx.lineTo(row * 2.5, y);
    ctx.stroke();
    ctx.fillStyle = color("--ink");
    ctx.fillText(label, row * 3, y);
  });
  let top = row * (lines.length + 1);
  for (const each of charts) {
    ctx.drawImage(each, 0, top);
    top += each.height;
  }
  return new Promise((resolve) => page.toBlob(resolve, "image/png"));
}
