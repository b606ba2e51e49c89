/** A matrix as a picture on a canvas: signs as blue, paper and orange, or magnitudes from light to accent. */
import { Twin } from "./charts.js";
import { announce, color, html, useEffect, useMemo, useRef, useState, useWidth, useWindow } from "./dom.js";
import { count, short } from "./numbers.js";

const NORMS = 72;

/** Read "#rrggbb" as three numbers. */
const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const mix = (from, to, part) => from.map((each, index) => Math.round(each + (to[index] - each) * part));

/**
 * Return a function from a value to a colour; zero has the paper's colour, and both signs one scale.
 * @param {boolean} signed
 * @param {number} most the magnitude of the full colour
 * @param {number} least where magnitudes begin
 */
export function shades(signed, most, least = 0) {
  const [paper, accent, minus, plus] = ["--paper", "--accent", "--minus", "--plus"].map((token) =>
    channels(color(token)),
  );
  if (signed)
    return (value) => mix(paper, value < 0 ? minus : plus, Math.min(1, Math.abs(value) / (most || 1)) ** 0.75);
  return (value) => mix(paper, accent, 0.06 + 0.94 * Math.min(1, Math.max(0, (value - least) / (most - least || 1))));
}

function summary(values, rows, cols) {
  let [most, low, high, nan, infinite] = [0, Infinity, -Infinity, 0, 0];
  const norms = new Float64Array(rows);
  for (let index = 0; index < rows * cols; index += 1) {
    const value = values[index];
    norms[Math.floor(index / cols)] += value * value;
    if (Number.isNaN(value)) nan += 1;
    else if (!Number.isFinite(value)) infinite += 1;
    else {
      most = Math.max(most, Math.abs(value));
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return { most, low: low > high ? 0 : low, high: low > high ? 0 : high, nan, infinite, norms: norms.map(Math.sqrt) };
}

/** Hatch a cell that holds NaN; fill one that holds infinity and mark its sign. */
function drawSpecial(pen, value, x, y, wide, tall) {
  pen.save();
  pen.beginPath();
  pen.rect(x, y, wide, tall);
  pen.clip();
  const mark = color("--mark");
  if (Number.isNaN(value)) {
    pen.strokeStyle = mark;
    pen.beginPath();
    for (let at = -tall; at < wide; at += 5) {
      pen.moveTo(x + at, y + tall);
      pen.lineTo(x + at + tall, y);
    }
    pen.stroke();
  } else {
    pen.fillStyle = color(value > 0 ? "--plus" : "--minus");
    pen.fillRect(x, y, wide, tall);
    pen.strokeStyle = color("--paper");
    pen.lineWidth = 2;
    const size = Math.min(wide, tall, 14) / 2 - 2;
    const [cx, cy] = [x + wide / 2, y + tall / 2];
    pen.beginPath();
    pen.moveTo(cx - size, cy);
    pen.lineTo(cx + size, cy);
    if (value > 0) {
      pen.moveTo(cx, cy - size);
      pen.lineTo(cx, cy + size);
    }
    pen.stroke();
  }
  pen.restore();
}

/** Write a value into a cell that has room, in black or white, whichever is read better. */
function writeCell(pen, value, fill, x, y) {
  const [red, green, blue] = fill.map((each) => (each / 255) ** 2.2);
  pen.fillStyle = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#14181d" : "#ffffff";
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(short(value, 3), x, y);
}

/** Draw large matrices pixel by pixel: a pixel shows the cell of the largest magnitude under it. */
function drawPixels(pen, { values, rows, cols, shade, most, low, high, signed, wide, tall, ratio }) {
  const across = Math.max(1, Math.round(Math.min(cols, wide * ratio)));
  const down = Math.max(1, Math.round(Math.min(rows, tall * ratio)));
  const picture = new ImageData(across, down);
  const grey = channels(color("--mark"));
  // A colour for each step of the scale, because a shade a pixel is too slow.
  const [from, to] = signed ? [-most, most] : [low, high];
  const steps = Array.from({ length: 512 }, (_, step) => shade(from + ((to - from) * step) / 511));
  const stepOf = (value) => Math.min(511, Math.max(0, Math.round(((value - from) / (to - from || 1)) * 511)));
  for (let y = 0; y < down; y += 1) {
    const [top, bottom] = span(y, rows, down);
    for (let x = 0; x < across; x += 1) {
      const [left, right] = span(x, cols, across);
      let worst = values[top * cols + left];
      for (let row = top; row < bottom; row += 1) {
        for (let at = row * cols + left; at < row * cols + right; at += 1) {
          if (!(Math.abs(values[at]) <= Math.abs(worst))) worst = values[at];
        }
      }
      const fill = Number.isNaN(worst) ? grey : steps[stepOf(worst)];
      const place = (y * across + x) * 4;
      for (let channel = 0; channel < 3; channel += 1) picture.data[place + channel] = fill[channel];
      picture.data[place + 3] = 255;
    }
  }
  const small = Object.assign(document.createElement("canvas"), { width: across, height: down });
  small.getContext("2d").putImageData(picture, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, 0, 0, wide, tall);
}

/** Return the cells under a pixel: from the first to before the last. */
function span(pixel, cells, pixels) {
  const first = Math.floor((pixel * cells) / pixels);
  return [first, Math.max(first + 1, Math.floor(((pixel + 1) * cells) / pixels))];
}

function draw(canvas, { values, rows, cols, facts, signed, wide, tall, norms, at }) {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round((wide + norms) * ratio);
  canvas.height = Math.round(tall * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const shade = shades(signed, signed ? facts.most : facts.high, facts.low);
  const [w, h] = [wide / cols, tall / rows];
  if (w < 3 || h < 3) drawPixels(pen, { ...facts, values, rows, cols, shade, signed, wide, tall, ratio });
  else {
    const gap = Math.min(w, h) > 8 ? 1 : 0;
    for (let index = 0; index < rows * cols; index += 1) {
      const [x, y] = [(index % cols) * w, Math.floor(index / cols) * h];
      if (!Number.isFinite(values[index])) drawSpecial(pen, values[index], x, y, w - gap, h - gap);
      else {
        const fill = shade(values[index]);
        pen.fillStyle = `rgb(${fill.join(" ")})`;
        pen.fillRect(x, y, w - gap, h - gap);
        if (w >= 56 && h >= 20) writeCell(pen, values[index], fill, x + w / 2, y + h / 2);
      }
    }
    pen.strokeStyle = color("--line");
    pen.strokeRect(0.5, 0.5, wide - 1, tall - 1);
  }
  if (norms) drawNorms(pen, facts.norms, wide + 8, norms - 8, h);
  if (at) {
    pen.strokeStyle = color("--ink");
    pen.lineWidth = 2;
    pen.strokeRect(
      Math.min(at[1] * w, wide - 4) + 1,
      Math.min(at[0] * h, tall - 4) + 1,
      Math.max(2, w - 2),
      Math.max(2, h - 2),
    );
  }
}

function drawNorms(pen, norms, left, wide, h) {
  const most = norms.reduce((best, each) => (Number.isFinite(each) ? Math.max(best, each) : best), 1e-300);
  const gap = h < 4 ? 0 : Math.min(2, h * 0.15);
  const [mark, bad] = [color("--mark"), color("--bad")];
  norms.forEach((norm, row) => {
    pen.fillStyle = Number.isFinite(norm) ? mark : bad;
    pen.fillRect(left, row * h + gap, Number.isFinite(norm) ? (norm / most) * wide : wide, Math.max(1, h - 2 * gap));
  });
}

/**
 * A heat map. Zero has the paper's colour; NaN is hatched grey, infinity solid with its sign; the bars at the right are the rows' norms.
 * Pointer or arrow keys tell a cell; Enter picks its row.
 * @param {{values: ArrayLike<number>, rows: number, cols: number, label: string, signed?: boolean, rowNorms?: boolean, rowName?: (row: number) => string, colName?: (col: number) => string,
 *   onPick?: (row: number, col: number) => void, height?: number, twin?: boolean}} props `twin`: with its own table (default)
 */
export function Heatmap({
  values,
  rows,
  cols,
  label,
  signed = true,
  rowNorms = signed,
  rowName = (row) => `row ${row}`,
  colName = (col) => `column ${col}`,
  onPick,
  height,
  twin = true,
}) {
  const [box, width] = useWidth();
  const canvas = useRef(null);
  const [at, setAt] = useState(null);
  const [theme, redraw] = useState(0);
  useWindow("themechange", () => redraw((turn) => turn + 1));
  const facts = useMemo(() => summary(values, rows, cols), [values, rows, cols]);
  const norms = rowNorms && rows > 0 ? NORMS : 0;
  const wide = Math.max(16, width - norms);
  const tall =
    height ?? Math.max(rows > 1 ? 48 : 24, Math.min(400, rows * Math.max(2, Math.min(24, Math.floor(600 / rows)))));
  useEffect(() => {
    if (rows * cols) draw(canvas.current, { values, rows, cols, facts, signed, wide, tall, norms, at });
  }, [values, rows, cols, wide, tall, at, theme, signed]);
  const tell = (row, col) =>
    `${rowName(row)}, ${colName(col)}: ${short(values[row * cols + col], 6)}${norms ? ` · row norm ${short(facts.norms[row], 4)}` : ""}`;
  const move = (row, col) => {
    const next = [Math.min(rows - 1, Math.max(0, row)), Math.min(cols - 1, Math.max(0, col))];
    setAt(next);
    return next;
  };
  const onKeyDown = (event) => {
    const [row, col] = at ?? [0, 0];
    const to = {
      ArrowUp: [row - 1, col],
      ArrowDown: [row + 1, col],
      ArrowLeft: [row, col - 1],
      ArrowRight: [row, col + 1],
      Home: [row, 0],
      End: [row, cols - 1],
    }[event.key];
    if (to) announce(tell(...move(...to)));
    else if (event.key === "Escape") setAt(null);
    else if (event.key === "Enter" && at) onPick?.(...at);
    else return;
    event.preventDefault();
  };
  const cellOf = (event) => {
    const place = event.currentTarget.getBoundingClientRect();
    return [
      Math.floor(((event.clientY - place.top) / tall) * rows),
      Math.floor(((event.clientX - place.left) / wide) * cols),
    ];
  };
  if (!rows || !cols) return html`<p class="hint" ref=${box}>There are no elements.</p>`;
  return html`<div class="stack tight"><div class="plot" ref=${box}>
      <canvas class="heat" ref=${canvas} tabindex="0" role="img"
        aria-label="${label} ${rows} by ${cols}. Arrow keys tell the cells." style=${{ height: `${tall}px` }}
        onKeyDown=${onKeyDown} onPointerMove=${(event) => move(...cellOf(event))} onPointerLeave=${() => setAt(null)}
          onClick=${(event) => onPick?.(...move(...cellOf(event)))}></canvas></div>
    <div class="row apart small quiet"><span>${at ? tell(...at) : html`<${Scale} signed=${signed}
      facts=${facts} />`}</span><span>${norms && !at ? "row norms at the right" : ""}</span></div>
    ${
      twin &&
      html`<${Twin} head=${["row", ...Array.from({ length: Math.min(cols, 32) }, (_, col) => colName(col)), ...(norms ? ["norm"] : [])]}
      rows=${Array.from({ length: Math.min(rows, 500) }, (_, row) => [rowName(row), ...Array.from({ length: Math.min(cols, 32) }, (_, col) => values[row * cols + col]), ...(norms ? [facts.norms[row]] : [])])} />`
    }
  </div>`;
}

function Scale({ signed, facts }) {
  const range = signed
    ? `${short(-facts.most, 3)} (blue) to 0 to ${short(facts.most, 3)} (orange)`
    : `${short(facts.low, 3)} to ${short(facts.high, 3)}`;
  const odd = [
    facts.nan && `${count(facts.nan)} NaN (hatched)`,
    facts.infinite && `${count(facts.infinite)} infinite (marked)`,
  ].filter(Boolean);
  return html`${[range, ...odd].join(" · ")}`;
}
