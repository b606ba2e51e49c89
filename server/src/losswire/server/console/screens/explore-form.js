/** The form of Explore, made from a loss's record: inputs, options and what is wanted back. */
import { cx, Field, html, Segments, Select, useEffect, useId, useRef, useState } from "../lib/dom.js";
import { count, short } from "../lib/numbers.js";
import { describe, EMPTY, isFloat, parse, readNpy, sizeOf, toText, values } from "../lib/tensors.js";
import { middle } from "../lib/words.js";

const MOST_CELLS = 384;
const MOST_TEXT = 6000;

/**
 * Return the cells of a typed matrix as texts, or null where it has another form or too many.
 * @param {string} text
 * @returns {{cells: string[][], vector: boolean}|null}
 */
export function gridOf(text) {
  const trimmed = text.trim();
  let rows;
  if (trimmed.startsWith("[")) {
    try {
      const { numbers, shape } = parse(trimmed);
      if (shape.length > 2 || numbers.length === 0) return null;
      const wide = shape.length === 2 ? shape[1] : shape[0];
      rows = Array.from({ length: numbers.length / wide }, (_, row) =>
        numbers.slice(row * wide, (row + 1) * wide).map(String),
      );
    } catch {
      return null;
    }
  } else
    rows = trimmed
      .split(/[\n;]/)
      .map((line) => line.trim())
      .filter(Boolean)
      .map((line) => line.split(/\s*[,\t]\s*|\s+/).filter(Boolean));
  const cells = rows.reduce((sum, row) => sum + row.length, 0);
  if (cells === 0 || cells > MOST_CELLS || rows[0].length > 16 || rows.some((row) => row.length !== rows[0].length))
    return null;
  // Several rows of one value are one axis: they read better as a line.
  if (rows.length > 1 && rows[0].length === 1 && rows.length <= 16)
    return { cells: [rows.map((row) => row[0])], vector: true };
  return { cells: rows, vector: rows.length === 1 };
}

const word = (value) => (value.trim() === "" ? EMPTY : value.trim().replace(/[\s,;]+/g, ""));

/** Write cells as the text that they were read from; a matrix of one row or column keeps its brackets. */
function textOf(cells, shape) {
  if (shape.length === 2 && (shape[0] === 1 || shape[1] === 1))
    return `[${cells.map((row) => `[${row.map(word).join(",")}]`).join(",")}]`;
  if (shape.length === 1 && shape[0] === 1) return `[${word(cells[0][0])}]`;
  return cells.map((row) => row.map(word).join(" ")).join("\n");
}

/** Return the element that a sentence of the server is about: "7 at [1, 0]". */
function placeOf(wrong, shape) {
  for (const text of wrong) {
    const found = /at \[([\d, ]*)\]/.exec(text);
    if (!found) continue;
    const index = found[1]
      .split(",")
      .filter((each) => each.trim() !== "")
      .map(Number);
    return index.reduce((sum, each, axis) => sum * shape[axis] + each, 0);
  }
  return -1;
}

function Cells({ name, grid, shape, marked, onText }) {
  const box = useRef(null);
  const columns = grid.cells[0].length;
  const change = (row, col, value) =>
    onText(
      textOf(
        grid.cells.map((line, y) => (y === row ? line.map((each, x) => (x === col ? value : each)) : line)),
        shape,
      ),
    );
  const onKeyDown = (event, at) => {
    const step =
      { ArrowUp: -columns, ArrowDown: columns, Enter: columns }[event.key] ??
      (event.key === "ArrowLeft" && event.target.selectionStart === 0
        ? -1
        : event.key === "ArrowRight" && event.target.selectionEnd === event.target.value.length
          ? 1
          : 0);
    const next = step && box.current.querySelectorAll("input")[at + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.select();
  };
  const onPaste = (event) => {
    const text = event.clipboardData.getData("text");
    if (!/[\s,;[]/.test(text.trim())) return;
    event.preventDefault();
    onText(text);
  };
  return html`<div class="cells" ref=${box} role="group" aria-label=${name} onPaste=${onPaste}
    style=${{ gridTemplateColumns: `repeat(${columns}, minmax(${columns > 8 ? 40 : 48}px, 1fr))` }}>
    ${grid.cells.flatMap((line, row) =>
      line.map(
        (value, col) => html`
      <input key=${row * columns + col} class="input cell" value=${value === EMPTY ? "" : value} inputmode="text"
        spellcheck="false" autocomplete="off"
        aria-label="${name} ${grid.vector ? `[${col}]` : `[${row}, ${col}]`}"
          aria-invalid=${String(marked === row * columns + col)}
        onInput=${(event) => change(row, col, event.target.value)}
          onKeyDown=${(event) => onKeyDown(event, row * columns + col)} onFocus=${(event) => event.target.select()} />`,
      ),
    )}
  </div>`;
}

function Overview({ entry }) {
  const flat = values(entry.tensor);
  let [low, high, sum] = [Infinity, -Infinity, 0];
  for (const value of flat) {
    low = Math.min(low, value);
    high = Math.max(high, value);
    sum += value;
  }
  return html`<p class="note small">${entry.file ? `${middle(entry.file)}: ` : ""}${count(flat.length)} values from ${short(low)} to ${short(high)}, on average ${short(sum / flat.length)}. They stay in this page and are not part of a link.</p>`;
}

/** Read a dropped or chosen file as one tensor. */
async function tensorOf(file) {
  if (/\.npy$/i.test(file.name)) return { tensor: readNpy(await file.arrayBuffer()) };
  if (!/\.parquet$/i.test(file.name)) return { text: await file.text() };
  const { readFile } = await import("../lib/files.js");
  const { columns } = await readFile(file);
  const found = Object.values(columns).find((each) => !Array.isArray(each));
  if (!found) throw new Error(`${file.name} has no column of numbers.`);
  return { tensor: found };
}

/**
 * One tensor: cells, text or a file, with its type.
 * @param {{entry: any, wrong: string[], onText: (text: string) => void, onTensor: (tensor: any, file: string) => void, onType: (type: string) => void, onExample: () => void, onRemove: () => void}} props
 */
export function TensorField({ entry, wrong, onText, onTensor, onType, onExample, onRemove }) {
  const [asText, setAsText] = useState(false);
  const [dropping, setDropping] = useState(false);
  const [failure, setFailure] = useState("");
  const id = useId();
  const { info, tensor, text } = entry;
  const take = async (file) => {
    try {
      const read = await tensorOf(file);
      setFailure("");
      if (read.tensor) onTensor(read.tensor, file.name);
      else onText(read.text);
    } catch (error) {
      setFailure(error.message);
    }
  };
  const onDrop = (event) => {
    event.preventDefault();
    setDropping(false);
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  };
  const possible = entry.present && text !== null ? gridOf(text) : null;
  const grid = asText ? null : possible;
  const rules = tensor && !isFloat(tensor.dtype) ? info.value_rules : info.value_hints.length ? [] : info.value_rules;
  const hints = tensor && !isFloat(tensor.dtype) && rules.length ? [] : info.value_hints;
  const sentences = [entry.error?.message, failure, ...wrong].filter(Boolean);
  const marked = entry.error ? entry.error.index : tensor ? placeOf(wrong, tensor.shape) : -1;
  const canType = text !== null && text.length <= MOST_TEXT;
  return html`<fieldset class=${cx("field", dropping && "dropping")} aria-describedby="${id}-wrong" onDragOver=${(
    event,
  ) => {
    event.preventDefault();
    setDropping(true);
  }} onDragLeave=${() => setDropping(false)} onDrop=${onDrop}>
    <legend><span title=${info.description}>${info.name}${info.required ? "" : html` <span class="quiet">optional</span>`}</span>
      ${
        entry.present &&
        html`<span class="row tight small"><span class="quiet">${tensor ? describe(tensor).replace(/^\S+ /, "") : ""}</span>
        <${Select} class="auto small type" aria-label="Data type of ${info.name}" value=${tensor?.dtype ?? entry.dtype}
          options=${info.data_types} onChange=${onType} /></span>`
      }</legend>
    ${
      entry.present &&
      (grid
        ? html`<${Cells} name=${info.name} grid=${grid} shape=${tensor?.shape ?? []} marked=${marked} onText=${onText} />`
        : canType
          ? html`<textarea class=${cx("input", text.includes("\n") && "matrix")} rows=${text.includes("\n") ? 6 : 3}
            spellcheck="false" aria-label=${info.name} aria-invalid=${String(sentences.length > 0)} value=${text}
            onInput=${(event) => onText(event.target.value)}></textarea>`
          : tensor && html`<${Overview} entry=${entry} />`)
    }
    <div id="${id}-wrong" role="status">${sentences.map((each) => html`<p class="wrong" key=${each}>${each}</p>`)}</div>
    <p class="hint">${[info.description, ...rules.map((each) => `Must be: ${each}.`), ...hints.map((each) => `Meant to be: ${each}.`)].join(" ")}</p>
    <div class="row tight">
      ${!entry.present && html`<button type="button" class="button small" onClick=${onExample}>Add an example</button>`}
      ${
        possible &&
        html`<${Segments} small label="How to edit ${info.name}" value=${grid ? "cells" : "text"} options=${[
          ["cells", "Cells"],
          ["text", "Text"],
        ]} onChange=${(way) => setAsText(way === "text")} />`
      }
      <label class="button small">File<input type="file" class="visually-hidden" accept=".npy,.csv,.txt,.json,.parquet"
        onChange=${(
        event,
      ) => {
        if (event.target.files[0]) take(event.target.files[0]);
        event.target.value = "";
      }} /></label>
      ${entry.present && entry.source !== "example" && html`<button type="button" class="button plain small"
        onClick=${onExample}>Example</button>`}
      ${entry.present && !info.required && html`<button type="button" class="button plain small"
        onClick=${onRemove}>Remove</button>`}
    </div>
  </fieldset>`;
}

/**
 * Return where a slider of an option should begin and end, or null for options that a slider does not suit.
 * @param {any} option
 * @returns {{min: number, max: number, step: number}|null}
 */
export function sliderOf(option) {
  const usual = Number(option.default_value ?? 0);
  if (option.type === "int64") {
    const bounds = /^\[(-?\d+), (-?\d+)\]/.exec(option.range);
    return bounds ? { min: Number(bounds[1]), max: Number(bounds[2]), step: 1 } : null;
  }
  if (option.type !== "double" || (usual !== 0 && Math.abs(usual) < 1e-3)) return null;
  const bounds = /^([[(])([^,]+), ([^\])]+)([\])])/.exec(option.range);
  const read = (text, otherwise) => (Number.isFinite(Number(text)) ? Number(text) : otherwise);
  const max = bounds ? read(bounds[3], Math.max(4, usual * 4)) : Math.max(4, usual * 4);
  let min = bounds ? read(bounds[2], 0) : -1;
  const step = (max - min) / 100 > 0.02 ? 0.05 : 0.01;
  if (bounds?.[1] === "(") min += step;
  return { min, max, step };
}

/**
 * One option, by its type and range.
 * @param {{option: any, value: any, wrong: string[], onChange: (value: any) => void}} props `value`: undefined stands for the default
 */
export function OptionField({ option, value, wrong, onChange }) {
  const shown = value ?? option.default_value;
  const hint = `${option.description}${option.range ? ` Accepted: ${option.range}.` : ""}`;
  const reset =
    value !== undefined &&
    !option.required &&
    html`<button type="button" class="button plain small" onClick=${() => onChange(null)}>Default</button>`;
  if (option.type === "bool") {
    return html`<div class="field"><label class="check"><input type="checkbox" checked=${Boolean(shown)}
      onChange=${(event) => onChange(event.target.checked)} /><span>${option.name}</span></label>
      ${wrong.map((each) => html`<p class="wrong">${each}</p>`)}<p class="hint">${hint}</p></div>`;
  }
  if (option.type === "string") {
    return html`<${Field} label=${option.name} hint=${hint} wrong=${wrong[0]}
      aside=${reset}>${(attributes) => html`<${Select} ...${attributes} value=${shown} options=${option.choices}
      onChange=${onChange} />`}</${Field}>`;
  }
  const slider = sliderOf(option);
  return html`<${Field} label=${option.name} hint=${hint} wrong=${wrong[0]} aside=${reset}>${(
    attributes,
  ) => html`<div class="row">
    ${slider && html`<input type="range" class="grow" ...${slider} aria-label="${option.name}, slider" value=${shown}
      onInput=${(event) => onChange(Number(event.target.value))} />`}
    <${NumberBox} ...${attributes} value=${shown} wide=${!slider} onChange=${onChange} /></div>`}</${Field}>`;
}

/** A box for one number, which may be inf or NaN; an empty one is the default. */
function NumberBox({ value, wide, onChange, ...rest }) {
  const [text, setText] = useState(String(value ?? ""));
  useEffect(() => {
    if (Number(text) !== value) setText(String(value ?? ""));
  }, [value]);
  const onInput = (event) => {
    setText(event.target.value);
    const word = event.target.value.trim();
    if (word === "") onChange(null);
    else onChange(/^-?\d*\.?\d+(e[-+]?\d+)?$/i.test(word) ? Number(word) : word);
  };
  return html`<input class=${cx("input", !wide && "short")} ...${rest} inputmode="decimal" autocomplete="off"
    placeholder="none" value=${text} onInput=${onInput} />`;
}

const TYPES = [["", "as the inputs"], "float16", "bfloat16", "float32", "float64"];

/**
 * What is computed and wanted back.
 * @param {{loss: any, state: any, gradients: string[], choices: string[], set: (patch: any, push?: boolean) => void, wrongOf: (path: string) => string[]}} props
 */
export function Wanted({ loss, state, gradients, choices, set, wrongOf }) {
  const toggle = (name) => {
    const next = gradients.includes(name) ? gradients.filter((each) => each !== name) : [...gradients, name];
    set({ grad: next.join("~") || "none" }, true);
  };
  return html`<div class="stack">
    ${loss.reductions.length > 1 && html`<div class="field"><span class="label">reduction</span>
      <${Segments} label="Reduction" value=${state.reduction || loss.default_reduction} options=${loss.reductions}
      onChange=${(value) => set({ reduction: value === loss.default_reduction ? "" : value }, true)} /></div>`}
    ${
      choices.length > 0 &&
      html`<fieldset class="field"><legend>gradients</legend><div class="row">${choices.map(
        (name) => html`
      <label class="check" key=${name}><input type="checkbox" checked=${gradients.includes(name)}
        onChange=${() => toggle(name)} />${name}</label>`,
      )}</div>
      ${wrongOf("gradients_for").map((each) => html`<p class="wrong">${each}</p>`)}</fieldset>`
    }
    <div class="field"><span class="label">engine</span><${Segments} label="Engine" value=${state.engine} options=${[
      ["auto", "Auto"],
      ["autograd", "Torch autograd"],
    ]} onChange=${(engine) => set({ engine }, true)} />
      <p class="hint">${state.engine === "auto" ? "What the formula says, limits taken, by the fastest exact path." : "Torch's own function, bit for bit."}</p></div>
    <${Field} label="compute type" wrong=${wrongOf("compute_data_type")[0]}
      hint="Half precision is computed in float32 unless asked otherwise.">${(attributes) => html`<${Select} ...${attributes} value=${state.type} options=${TYPES} onChange=${(type) => set({ type }, true)} />`}</${Field}>
  </div>`;
}

/** How the example is made. @param {{loss: any, layout: string, state: any, set: (patch: any, push?: boolean) => void}} props */
export function ExampleBar({ loss, layout, state, set }) {
  const used = Object.values(loss.layouts.find((each) => each.name === layout).inputs).join(" ");
  const number = (key, text, most) =>
    html`<label class="small row tight nowrap">${text}<input class="input count" type="number" min="1" max=${most}
      value=${state[key]} onInput=${(
      event,
    ) => {
      const value = Number(event.target.value);
      if (value >= 1 && value <= most) set({ [key]: Math.floor(value) });
    }} /></label>`;
  return html`<div class="row example"><button type="button" class="button primary"
    onClick=${() => set({ seed: state.seed + 1 }, true)}>New example</button>
    ${loss.layouts.length > 1 && html`<${Select} class="auto small" aria-label="Shapes of the example" value=${layout}
      options=${loss.layouts.map((each) => [each.name, each.name.replaceAll("_", " ")])}
      onChange=${(value) => set({ layout: value }, true)} />`}
    ${/\bN\b|\*S/.test(used) && number("rows", "rows", 512)}
    ${(/\bC\b/.test(used) || (/\*S/.test(used) && !/\*S [A-Z]/.test(used))) && number("classes", /\bC\b/.test(used) ? "classes" : "columns", 512)}</div>`;
}

/** Return a tensor's text for the address, or null where it is too long for one. @param {any} tensor @returns {string|null} */
export function shortText(tensor) {
  if (sizeOf(tensor.shape) > 1500) return null;
  const text = toText(tensor);
  return text.length <= MOST_TEXT ? text : null;
}
