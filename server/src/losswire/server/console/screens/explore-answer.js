/** The answer of Explore: words first, then pictures, then every number. */
import { distanceOf, indexOf, intervalOf, nameOf, sentenceOf } from "../lib/analysis.js";
import { number } from "../lib/api.js";
import { Axes, Figure, Histogram, linear, Twin } from "../lib/charts.js";
import { codeOf, LANGUAGES, largeOf, requestOf } from "../lib/code.js";
import {
  announce,
  copy,
  cx,
  download,
  html,
  Segments,
  useAsync,
  useEffect,
  useMemo,
  useState,
  useWidth,
} from "../lib/dom.js";
import { Heatmap } from "../lib/heatmap.js";
import { byInterval, count, duration, exact, fixed, decimalsOf, percent, short } from "../lib/numbers.js";
import { address, useStored } from "../lib/state.js";
import { describe, sizeOf, toNested, values, writeNpy } from "../lib/tensors.js";
import { list, plural, words } from "../lib/words.js";
import { sliderOf } from "./explore-form.js";

const isScalar = (one) => one.shape.length === 0;
const matrix = (shape) =>
  shape.length === 0 ? [1, 1] : shape.length === 1 ? [1, shape[0]] : [shape[0], sizeOf(shape.slice(1))];
const reductionOf = ({ loss, reduction }) => reduction || loss.default_reduction;

/** Say what the result is made of: "mean of 2 rows · none ignored". */
function madeOf({ model, result, values: one }) {
  const size = sizeOf(one.shape);
  if (model.loss.kind === "activation") return describe(one);
  const noun = one.shape.length === 1 ? "row" : "value";
  const ignored = size - Number(result.count);
  const reduced = reductionOf(model) === "none" ? "" : `${words(reductionOf(model))} of `;
  return `${reduced}${plural(size, noun)} · ${ignored ? `${count(ignored)} ignored` : "none ignored"}`;
}

/** The number, its interval and the sentence. @param {{answer: any, stale: boolean}} props */
export function Headline({ answer, stale }) {
  const { model, result } = answer;
  const interval = useMemo(() => intervalOf(answer), [answer]);
  const sentence = useMemo(() => sentenceOf(answer), [answer]);
  const scalar = isScalar(result.loss) && model.loss.kind === "loss";
  const value = scalar ? values(result.loss)[0] : NaN;
  useEffect(() => announce(`${scalar ? `Loss ${short(value)}. ` : ""}${sentence}`), [answer]);
  const write = (each) =>
    interval && interval.high > interval.low
      ? fixed(each, Math.max(2, decimalsOf((interval.high - interval.low) / 2)))
      : short(each, 5);
  return html`<div class=${cx("stack tight grow", stale && "stale")}>
    <p class="row headline">
      <span class="big">${scalar ? html`${reductionOf(model) === "mean" ? "loss" : words(reductionOf(model))} <span title=${exact(value)}>${short(value, 5)}</span>` : model.loss.kind === "activation" ? "output" : "values"}</span>
      ${interval && html`<span title="95 % interval of the mean over rows">[${write(interval.low)}, ${write(interval.high)}]</span>`}
      <span class="quiet">${madeOf(answer)}${interval ? (interval.rows < 30 ? " · few rows, so the interval is rough" : "") : scalar && reductionOf(model) === "mean" ? " · no interval" : ""}</span></p>
    <p class="sentence">${sentence}</p>
  </div>`;
}

const MOST_BARS = 24;

/** The largest values as bars, in the order of the rows. */
function Bars({ numbers, shape, parts }) {
  const [ref, width] = useWidth();
  const order = numbers
    .map((_, index) => index)
    .sort((one, two) =>
      Number.isNaN(numbers[one])
        ? -1
        : Number.isNaN(numbers[two])
          ? 1
          : Math.abs(numbers[two]) - Math.abs(numbers[one]),
    )
    .slice(0, MOST_BARS);
  // Few stay in their order; of many the largest come first.
  if (numbers.length <= MOST_BARS) order.sort((one, two) => one - two);
  const finite = order.map((index) => numbers[index]).filter(Number.isFinite);
  const [low, high] = [Math.min(0, ...finite), Math.max(0, ...finite)];
  const x = linear(low, high || (low < 0 ? 0 : 1), 72, Math.max(100, width - 144));
  const total = numbers.reduce((sum, each) => sum + each, 0);
  return html`<div class="plot" ref=${ref}><svg width=${width} height=${order.length * 24} role="img" aria-label=${parts}>
    ${order.map((index, at) => {
      const value = numbers[index];
      const end = Number.isFinite(value) ? x(value) : x(high);
      return html`<g key=${index} transform="translate(0 ${at * 24})">
        <text x="64" y="16" text-anchor="end">${nameOf(index, shape)}</text>
        <rect x=${Math.min(x(0), end)} y="4" width=${Math.max(1, Math.abs(end - x(0)))} height="16" rx="2"
          fill=${Number.isNaN(value) ? "var(--mark)" : value < 0 ? "var(--minus)" : "var(--accent)"}
          fill-opacity=${Number.isFinite(value) ? 1 : 0.4} />
        <text class="mark-text" x=${Math.max(x(0), end) + 8}
          y="16">${short(value)}${low >= 0 && total > 0 && Number.isFinite(total) ? ` · ${percent(value / total)}` : ""}
          <title>${exact(value)}</title></text></g>`;
    })}</svg></div>`;
}

/** Buckets of equal width over a list of numbers. */
function bucketsOf(numbers) {
  const finite = numbers.filter(Number.isFinite);
  const [low, high] = [
    finite.reduce((a, b) => Math.min(a, b), Infinity),
    finite.reduce((a, b) => Math.max(a, b), -Infinity),
  ];
  const step = (high - low || 1) / 40;
  const weight = new Array(40).fill(0);
  finite.forEach((each) => {
    weight[Math.min(39, Math.floor((each - low) / step))] += 1;
  });
  return {
    low: weight.map((_, index) => low + index * step),
    high: weight.map((_, index) => low + (index + 1) * step),
    weight,
  };
}

function Values({ answer }) {
  const { values: one, model } = answer;
  const numbers = useMemo(() => values(one), [one]);
  const all = useMemo(() => Array.from(numbers), [numbers]);
  const activation = model.loss.kind === "activation";
  const title = activation ? "Output" : "Values";
  if (one.shape.length > 1) {
    const [rows, cols] = matrix(one.shape);
    const signed = all.some((each) => each < 0);
    return html`<${Figure} title=${title}
      sentence=${`${describe(one)}, ${signed ? "blue below 0, orange above" : "from light to accent"}.`}>
      <${Heatmap} values=${numbers} rows=${rows} cols=${cols} signed=${signed} rowNorms=${false}
        label="${title} of ${model.loss.name}." /></${Figure}>`;
  }
  if (all.length < 2 && !activation) return null;
  const rows = all.map((each, index) => [nameOf(index, one.shape), each]);
  const more = all.length > MOST_BARS;
  return html`<div class="stack">${more && html`<${Histogram} title="Distribution of values"
    sentence="How the ${count(all.length)} values are spread." series=${[{ name: "values", ...bucketsOf(all) }]}
    xLabel="value" height=${160} />`}
    <${Figure} title=${more ? `The ${MOST_BARS} largest values` : title}
      table=${{ head: [one.shape.length ? "row" : "", "value"], rows }}>
      <${Bars} numbers=${all} shape=${one.shape} parts="${title}: ${rows
        .slice(0, 8)
        .map(([name, value]) => `${name} ${short(value)}`)
        .join(", ")}" /></${Figure}></div>`;
}

function gradientSentence(numbers, shape) {
  const [rows, cols] = matrix(shape);
  let [best, largest, total] = [0, -1, 0];
  for (let row = 0; row < rows; row += 1) {
    let norm = 0;
    for (let col = 0; col < cols; col += 1) norm += numbers[row * cols + col] ** 2;
    total += norm;
    if (norm > largest) [best, largest] = [row, norm];
  }
  if (!Number.isFinite(total)) return "The gradient holds numbers that are not finite.";
  if (total === 0) return "The gradient is 0 everywhere.";
  return `Norm ${short(Math.sqrt(total))}${rows > 1 ? `; row ${best} pulls hardest, with ${percent(Math.sqrt(largest / total))} of it` : ""}.`;
}

function Gradient({ name, one, ones }) {
  const numbers = useMemo(() => values(one), [one]);
  const [rows, cols] = matrix(one.shape);
  const colName = (col) =>
    one.shape.length > 2 ? `[${indexOf(col, one.shape.slice(1)).join(", ")}]` : `column ${col}`;
  return html`<${Figure} title="Gradient of ${name}"
    sentence=${`${gradientSentence(numbers, one.shape)}${ones ? " It is that of the sum." : ""} ${describe(one)}.`}>
    <${Heatmap} values=${numbers} rows=${rows} cols=${cols} label="Gradient of ${name}." rowNorms=${rows > 1}
      colName=${colName} /></${Figure}>`;
}

/** Everything that made this number. */
function Explain({ answer }) {
  const { result, model, wide, values: one } = answer;
  const { receipt } = result;
  const distance = useMemo(() => distanceOf(answer), [answer]);
  const mean = ["mean", "batchmean"].includes(reductionOf(model));
  const near = distance === null ? "" : `${short(distance, 2)} ulp from float64`;
  const line = [
    mean && `sum ${short(number(result.mean_numerator), 5)} / denominator ${short(result.mean_denominator, 5)}`,
    !mean && model.loss.kind === "loss" && `sum ${short(number(result.sum), 5)}`,
    receipt.compute_data_type,
    words(receipt.engine),
    near,
  ].filter(Boolean);
  const facts = [
    ["Numerator", short(number(result.mean_numerator), 7), "the sum of the mean's numerators, in float64"],
    ["Denominator", short(number(result.mean_denominator), 7), model.loss.mean_denominator],
    ["Sum of the values", short(number(result.sum), 7), "each times its sample weight, in float64"],
    ["Took part", `${count(result.count)} of ${count(sizeOf(one.shape))}`, "neither ignored nor of sample weight 0"],
  ];
  const types = Object.entries(model.inputs)
    .map(([name, each]) => `${name} ${describe(each)}`)
    .concat(model.weight ? [`sample_weight ${describe(model.weight)}`] : []);
  const more = [
    ["Inputs", list(types)],
    ["Computed in", `${receipt.compute_data_type}, returned in ${result.data_type}`],
    ["Path", `${words(receipt.engine)} on ${receipt.device}`],
    [
      "In float64",
      wide && isScalar(wide) ? `${exact(values(wide)[0])}${near && ` (${near})`}` : near || "it is float64",
    ],
    ["Waited, computed", `${duration(result.queue_nanoseconds / 1e9)}, ${duration(result.compute_nanoseconds / 1e9)}`],
    ["Versions", `Losswire ${receipt.server_version}, torch ${receipt.torch_version}`],
    ["Source", model.loss.source],
  ];
  return html`<section class="card"><header><h2>Explain this number</h2></header>
    <p>${line.join(" · ")}</p>
    ${
      model.loss.kind === "loss" &&
      html`<dl class="facts">${facts.map(([name, value, why]) => html`<div key=${name} class="fact">
        <dt>${name}</dt><dd title=${why}>${value}</dd></div>`)}</dl>
      <p class="hint">${model.loss.mean_denominator && `Denominator: ${model.loss.mean_denominator}.`}</p>`
    }
    <details><summary>The whole receipt</summary><table>
      <tbody>${more.map(([name, value]) => html`<tr key=${name}><th scope="row"
      class="nowrap">${name}</th><td>${value}</td></tr>`)}</tbody></table>
      ${
        model.loss.engine_differences.length > 0 &&
        html`<p class="hint">The engines differ here:</p><table><thead>
          <tr><th scope="col">where</th><th scope="col">result</th><th scope="col">auto</th><th scope="col">autograd</th></tr></thead>
        <tbody>${model.loss.engine_differences.map((each) => html`<tr key=${each.where + each.result}><td>${each.where.replaceAll("`", "")}</td><td>${each.result}</td><td>${each.auto}</td><td>${each.autograd}</td></tr>`)}</tbody></table>`
      }</details>
  </section>`;
}

const STEPS = 21;

/** The loss over the range of one option, on tensors that stay on the server. */
function WhatIf({ answer, set, evaluate }) {
  const { model, result } = answer;
  const choices = model.loss.options.filter(sliderOf);
  const [stored, choose] = useState("");
  const name = choices.some((each) => each.name === stored) ? stored : "";
  if (!choices.length || !isScalar(result.loss)) return null;
  return html`<section class="card"><header><h2>What if</h2>
    <${Segments} small label="Option to move" value=${name}
      options=${[["", "off"], ...choices.map((each) => each.name)]} onChange=${choose} /></header>
    ${name ? html`<${Sweep} key=${name} model=${model} option=${choices.find((each) => each.name === name)} set=${set}
      evaluate=${evaluate} />` : html`<p class="hint">Choose an option to see the loss over its whole range; the tensors are sent once.</p>`}
  </section>`;
}

function pointsOf({ min, max, step }) {
  const most = Math.min(STEPS, Math.round((max - min) / step) + 1);
  return Array.from({ length: most }, (_, index) => Number((min + ((max - min) * index) / (most - 1)).toPrecision(6)));
}

function Sweep({ model, option, set, evaluate }) {
  const range = sliderOf(option);
  const { min, max, step } = range;
  const points = useMemo(() => pointsOf(range), [option]);
  const others = JSON.stringify({ ...model.options, [option.name]: null });
  const { value: losses } = useAsync(
    async (signal) => {
      const one = async (point) =>
        values(
          (
            await evaluate(
              model,
              { options: { ...model.options, [option.name]: point }, gradients_for: [] },
              signal,
              true,
            )
          ).loss,
        )[0];
      // The first call leaves the tensors on the server for all others.
      const first = await one(points[0]);
      return [first, ...(await Promise.all(points.slice(1).map(one)))];
    },
    [others, ...Object.values(model.inputs), model.weight, model.reduction, model.engine, model.type],
  );
  const [ref, width] = useWidth();
  const now = Number(model.options[option.name] ?? option.default_value);
  const height = 160;
  const finite = (losses ?? []).filter(Number.isFinite);
  const [low, high] = finite.length ? [Math.min(...finite), Math.max(...finite)] : [0, 1];
  const x = linear(min, max, 48, width - 8);
  const y = linear(low, high > low ? high : low + 1, height - 36, 8);
  const path = (losses ?? [])
    .map((each, index) =>
      Number.isFinite(each) ? `${index ? "L" : "M"}${x(points[index]).toFixed(1)} ${y(each).toFixed(1)}` : "",
    )
    .join("");
  const sentence = finite.length
    ? `From ${short(points[0])} to ${short(points[points.length - 1])} the loss goes from ${short(losses[0])} to ${short(losses[losses.length - 1])}; it is lowest at ${short(points[losses.indexOf(low)])}.`
    : "Computing.";
  return html`<${Figure} title=${option.name} sentence=${sentence}
    table=${{ head: [option.name, "loss"], rows: (losses ?? []).map((each, index) => [short(points[index]), each]) }}>
    <div class="plot" ref=${ref}><svg width=${width} height=${height} role="img"
      aria-label="Loss over ${option.name}. ${sentence}">
      <${Axes} x=${x} y=${y} width=${width} height=${height} left=${48} bottom=${36} xLabel=${option.name} />
        <path d=${path} fill="none" stroke="var(--accent)" stroke-width="2" />
      ${now >= min && now <= max && html`<path d="M${x(now)} 8V${height - 36}" stroke="var(--ink)"
        stroke-dasharray="2 2" />`}</svg></div>
    <input type="range" aria-label=${option.name} min=${min} max=${max} step=${step} value=${now}
      onInput=${(event) => set({ [`o.${option.name}`]: Number(event.target.value) })} /></${Figure}>`;
}

function Share({ answer, now, entries, chart }) {
  const { result } = answer;
  // Unreduced, the gradient that is given has the shape of the values.
  const model = useMemo(() => ({ ...now, shape: answer.values.shape }), [now, answer]);
  const [language, choose] = useStored("language", "Python");
  const shown = LANGUAGES.includes(language) ? language : "Python";
  const code = useMemo(() => codeOf(shown, model), [shown, model]);
  const missing = entries
    .filter((each) => each.present && each.tensor && each.text === null)
    .map((each) => each.info.name);
  const link = () =>
    copy(address(), missing.length ? `The link without ${list(missing)}, too large for one,` : "The link");
  const asJson = () =>
    download(
      `${model.loss.name}.json`,
      JSON.stringify(
        {
          request: requestOf({ ...answer.model, shape: answer.values.shape }),
          result: {
            ...result,
            loss: toNested(result.loss),
            gradients: Object.fromEntries(
              Object.entries(result.gradients).map(([name, each]) => [name, toNested(each)]),
            ),
          },
        },
        null,
        2,
      ),
      "application/json",
    );
  const asCsv = () => {
    const numbers = values(answer.values);
    download(
      `${model.loss.name}.csv`,
      `index,value\n${Array.from(numbers, (each, index) => `"${indexOf(index, answer.values.shape).join(" ")}",${each}`).join("\n")}\n`,
      "text/csv",
    );
  };
  const asPicture = () =>
    chart.current?.querySelector("canvas")?.toBlob((blob) => download(`${model.loss.name}.png`, blob));
  return html`<section class="card"><header><h2>Take it along</h2>
      <div class="row"><button type="button" class="button small" onClick=${link}>Copy link</button>
        <button type="button" class="button small" onClick=${asJson}>JSON</button>
        <button type="button" class="button small" onClick=${asCsv}>CSV</button>
        ${Object.keys(result.gradients).length > 0 && html`<button type="button" class="button small"
          onClick=${asPicture}>PNG</button>`}</div></header>
    ${missing.length > 0 && html`<p class="hint">A link has no room for ${list(missing)}: whoever opens it sees an example instead.</p>`}
    <div class="row apart"><${Segments} small label="Language" value=${shown} options=${LANGUAGES} onChange=${choose} />
      <div class="row">${largeOf(model).map(([path, one]) => html`<button type="button" key=${path} class="button small"
      onClick=${() => download(`${path.replace("inputs.", "")}.npy`, new Blob([writeNpy(one)]))}>${path.replace("inputs.", "")}.npy</button>`)}<button type="button" class="button small" onClick=${() => copy(code, "The code")}>Copy code</button></div></div>
    <pre class="code" tabindex="0" aria-label="${shown} code">${code}</pre>
  </section>`;
}

/**
 * Show an answer.
 * @param {{answer: any, now: any, entries: any[], set: (patch: any, push?: boolean) => void, evaluate: Function}} props
 *   `now`: the model of what the form says already; `evaluate` is that of explore.js
 */
export function Answer({ answer, now, entries, set, evaluate }) {
  const chart = useMemo(() => ({ current: null }), []);
  return html`<${Values} answer=${answer} />
    <div class="stack" ref=${chart}>${Object.entries(answer.result.gradients).map(([name, one]) => html`<${Gradient} key=${name} name=${name} one=${one} ones=${answer.ones} />`)}</div>
    <${Explain} answer=${answer} />
    <${WhatIf} answer=${answer} set=${set} evaluate=${evaluate} />
    <${Share} answer=${answer} now=${now} entries=${entries} chart=${chart} />`;
}
