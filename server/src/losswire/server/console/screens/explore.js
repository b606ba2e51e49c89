/** Explore: one loss, its inputs and options, and everything about the answer. */
import { Problem, send, useLosses } from "../lib/api.js";
import { cx, Failure, html, Skeleton, useAsync, useDebounced, useMemo, useRef } from "../lib/dom.js";
import { exampleOf, layoutOf, rowWeights, typeOf } from "../lib/generate.js";
import { useQuery } from "../lib/state.js";
import { cast, fromBase64, parse, tensor, toBase64, writeNpy } from "../lib/tensors.js";
import { Answer, Headline } from "./explore-answer.js";
import { ExampleBar, OptionField, shortText, TensorField, Wanted } from "./explore-form.js";

const DEFAULTS = {
  loss: "cross_entropy",
  seed: 1,
  rows: 4,
  classes: 3,
  layout: "",
  reduction: "",
  grad: "",
  engine: "auto",
  type: "",
};
const WEIGHT = {
  name: "sample_weight",
  description: "A weight for each row or value; 0 removes it.",
  data_types: ["float16", "bfloat16", "float32", "float64"],
  required: false,
  differentiable_in: [],
  value_rules: [],
  value_hints: [],
};
/** Tensors of files and large ones, which an address cannot hold. */
const held = new Map();
const residents = new WeakMap();
const LARGE = 32768;

/**
 * Leave tensors on the server once, so that moving an option does not send them again.
 * @param {any} one
 * @returns {Promise<{resident: string}>}
 */
function resident(one) {
  if (!residents.has(one)) {
    const put = send("/v1/tensors", { method: "PUT", body: writeNpy(one), type: "application/octet-stream" })
      .then((answer) => answer.json())
      .then(({ resident: id }) => ({ resident: id }));
    residents.set(one, put);
    put.catch(() => residents.delete(one));
  }
  return residents.get(one);
}

/** Return a tensor as the request carries it; a server that keeps no tensors gets its elements. */
async function placed(one, keep) {
  if (!keep && one.data.byteLength <= LARGE) return toBase64(one);
  return resident(one).catch((error) => {
    if (!(error instanceof Problem)) throw error;
    return toBase64(one);
  });
}

async function evaluateOnce(model, changes, signal, keep) {
  const names = Object.keys(model.inputs);
  const tensors = await Promise.all(names.map((name) => placed(model.inputs[name], keep)));
  const body = {
    loss: model.loss.name,
    inputs: Object.fromEntries(names.map((name, index) => [name, tensors[index]])),
    options: model.options,
    reduction: model.reduction || undefined,
    engine: model.engine,
    compute_data_type: model.type || undefined,
    gradients_for: model.gradients,
    encoding: "base64",
    sample_weight: model.weight && (await placed(model.weight, keep)),
    ...changes,
  };
  const answer = await (await send("/v1/evaluate", { body, signal })).json();
  const gradients = Object.fromEntries(
    Object.entries(answer.gradients).map(([name, each]) => [name, fromBase64(each)]),
  );
  return { ...answer, loss: fromBase64(answer.loss), gradients };
}

/**
 * Evaluate; tensors that the server has dropped are sent again.
 * @param {any} model
 * @param {any} changes
 * @param {AbortSignal} signal
 * @param {boolean} keep all tensors resident
 */
export async function evaluate(model, changes, signal, keep = false) {
  try {
    return await evaluateOnce(model, changes, signal, keep);
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== "FAILED_PRECONDITION") throw error;
    [...Object.values(model.inputs), model.weight].forEach((each) => each && residents.delete(each));
    return evaluateOnce(model, changes, signal, keep);
  }
}

/** Evaluate what the form says, and beside it the values and the same in float64. */
async function answerOf(model, signal) {
  const valuesOnly = { reduction: model.loss.kind === "loss" ? "none" : undefined, gradients_for: [] };
  const scalar = model.loss.kind === "loss" && (model.reduction || model.loss.default_reduction) !== "none";
  // The gradient of unreduced values needs the gradient of what follows: ones, as for their sum.
  const first = scalar ? null : await evaluate(model, valuesOnly, signal);
  const ones =
    first && model.gradients.length
      ? { grad_output: toBase64(tensor(new Array(first.loss.data.length).fill(1), first.loss.shape, "float32")) }
      : {};
  // What is wrong is told once: the others follow only when this succeeds.
  const result = await evaluate(model, ones, signal);
  const [plain, wide] = await Promise.all([
    first ?? evaluate(model, valuesOnly, signal),
    evaluate(model, { compute_data_type: "float64", gradients_for: [] }, signal).catch((error) => {
      if (error.name === "AbortError") throw error;
      return null;
    }),
  ]);
  return { model, result, values: plain.loss, wide: wide?.loss ?? null, ones: Boolean(ones.grad_output) };
}

/** Return one input as the form shows it: from the address, a file, or an example. */
function entryOf(loss, info, query, state, shapes) {
  const text = query.get(`i.${info.name}`);
  const type = query.get(`d.${info.name}`);
  if (text === null && !info.required) return { info, present: false, tensor: null, text: null, source: "none" };
  const kept = text === "@" ? held.get(`${loss.name}.${info.name}`) : null;
  if (text === null || text === "*" || text === "@") {
    const made =
      kept?.tensor ?? (info === WEIGHT ? rowWeights(loss, state, shapes) : exampleOf(loss, info, state, shapes));
    const one = type ? cast(made, type) : made;
    return {
      info,
      present: true,
      tensor: one,
      text: shortText(one),
      source: kept ? "file" : "example",
      file: kept?.file,
      lost: text === "@" && !kept,
    };
  }
  try {
    const read = parse(text);
    const dtype = type || typeOf(loss, info, read.integers, read.shape, shapes);
    return { info, present: true, tensor: tensor(read.numbers, read.shape, dtype), text, source: "typed", dtype };
  } catch (error) {
    return { info, present: true, tensor: null, text, error, source: "typed", dtype: type || info.data_types[0] };
  }
}

/** Return all inputs; each keeps its identity while it does not change, as resident tensors need. */
function useEntries(loss, query, state) {
  const cache = useRef(new Map());
  const shapes = {};
  const infos = loss.kind === "loss" ? [...loss.inputs, WEIGHT] : loss.inputs;
  return infos.map((info) => {
    const key = [
      loss.name,
      state.seed,
      state.rows,
      state.classes,
      state.layout,
      query.get(`i.${info.name}`),
      query.get(`d.${info.name}`),
      held.get(`${loss.name}.${info.name}`)?.number,
      JSON.stringify(shapes),
    ].join("\u0000");
    const old = cache.current.get(info.name);
    const entry = old?.key === key ? old.entry : entryOf(loss, info, query, state, shapes);
    cache.current.set(info.name, { key, entry });
    if (entry.tensor) shapes[info.name] = entry.tensor.shape;
    return entry;
  });
}

/** As JSON has no infinity and no NaN, the server takes these words. */
const INFINITE = {
  inf: "Infinity",
  infinity: "Infinity",
  "∞": "Infinity",
  "-inf": "-Infinity",
  "-infinity": "-Infinity",
  "-∞": "-Infinity",
  nan: "NaN",
};

function optionsOf(loss, query) {
  const read = { bool: (text) => text === "true", string: (text) => text };
  const number = (text) =>
    text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : (INFINITE[text.trim().toLowerCase()] ?? text);
  const options = {};
  for (const each of loss.options) {
    const text = query.get(`o.${each.name}`);
    if (text !== null) options[each.name] = (read[each.type] ?? number)(text);
    else if (each.required) options[each.name] = each.name === "dim" ? -1 : (each.default_value ?? 0);
  }
  return options;
}

/** Return the layout that the tensors have, as far as their ranks and types tell. */
function layoutNow(loss, entries, wished) {
  const fits = (layout) =>
    entries.every(({ info, tensor: one }) => {
      if (!one || layout.inputs[info.name] === undefined) return true;
      const parts = layout.inputs[info.name].split(" ").filter((each) => each && each !== "#1");
      const free = parts.some((each) => each.includes("*"));
      return (
        layout.data_types[info.name].includes(one.dtype) &&
        (free ? one.shape.length >= parts.length - 1 : one.shape.length === parts.length)
      );
    });
  const usual = layoutOf(loss, wished);
  return fits(usual) ? usual : (loss.layouts.find(fits) ?? usual);
}

function gradientsOf(loss, entries, state) {
  const layout = layoutNow(loss, entries, state.layout);
  const choices = entries
    .filter(
      (each) =>
        each.present &&
        each.info.differentiable_in.includes(layout.name) &&
        (each.tensor?.dtype ?? "float").includes("float"),
    )
    .map((each) => each.info.name);
  // What is normalized along an axis has a constant sum, whose gradient says nothing.
  const sumsToOne = loss.kind === "activation" && loss.options.some((each) => each.name === "dim");
  const chosen =
    state.grad === "none"
      ? []
      : state.grad
        ? state.grad.split("~").filter((each) => choices.includes(each))
        : choices.slice(0, sumsToOne ? 0 : 1);
  return { choices, gradients: chosen };
}

function LossPicker({ losses, loss, onChange }) {
  const group = (kind, label) =>
    html`<optgroup label=${label}>${losses.filter((each) => each.kind === kind).map((each) => html`<option key=${each.name} value=${each.name} selected=${each.name === loss.name}>${each.name}</option>`)}</optgroup>`;
  return html`<select class="input picker" aria-label="Loss" value=${loss.name}
    onChange=${(event) => onChange(event.target.value)}>${group("loss", "Losses")}${group("activation", "Activations")}</select>`;
}

function Form({ loss, state, set, query, entries, options, gradients, choices, problem }) {
  const wrongOf = (path) =>
    (problem?.violations ?? [])
      .filter((each) => each.field === path || each.field.startsWith(`${path}.`) || each.field.startsWith(`${path}[`))
      .map((each) => `${each.field.slice(path.length)} ${each.description}`.trim().replace(/^\./, ""));
  const pathOf = (name) => (name === "sample_weight" ? name : `inputs["${name}"]`);
  const onText = (name, text) => {
    if (text.length <= 2000) return set({ [`i.${name}`]: text.trim() === "" ? " " : text });
    try {
      const read = parse(text);
      const info = [...loss.inputs, WEIGHT].find((each) => each.name === name);
      return onTensor(name, tensor(read.numbers, read.shape, typeOf(loss, info, read.integers, read.shape)), "");
    } catch {
      return set({ [`i.${name}`]: text });
    }
  };
  const onTensor = (name, one, file) => {
    held.set(`${loss.name}.${name}`, {
      tensor: one,
      file,
      number: (held.get(`${loss.name}.${name}`)?.number ?? 0) + 1,
    });
    set({ [`i.${name}`]: "@", [`d.${name}`]: null }, true);
  };
  const layout = layoutOf(loss, state.layout).name;
  return html`<section class="stack" aria-label="Inputs and options">
    <${ExampleBar} loss=${loss} layout=${layout} state=${state}
      set=${(patch, push) => set({ ...cleared(query), ...patch }, push)} />
    ${entries.filter((each) => each.info !== WEIGHT).map((entry) => html`<${Tensor} key=${loss.name + entry.info.name}
      ...${{ entry, set, onText, onTensor, wrongOf, pathOf }} />`)}
    ${loss.options.length > 0 && html`<div class="card">
      <h2>Options</h2>${loss.options.map((option) => html`<${OptionField} key=${loss.name + option.name}
      option=${option} value=${options[option.name]} wrong=${wrongOf(`options["${option.name}"]`)}
      onChange=${(value) => set({ [`o.${option.name}`]: value })} />`)}</div>`}
    <div class="card"><h2>Result</h2>
      ${entries.filter((each) => each.info === WEIGHT).map((entry) => html`<${Tensor} key="w"
        ...${{ entry, set, onText, onTensor, wrongOf, pathOf }} />`)}
      <${Wanted} loss=${loss} state=${state} gradients=${gradients} choices=${choices} set=${set} wrongOf=${wrongOf} /></div>
  </section>`;
}

const Tensor = ({ entry, set, onText, onTensor, wrongOf, pathOf }) => {
  const { name } = entry.info;
  return html`<${TensorField} entry=${entry} wrong=${wrongOf(pathOf(name))} onText=${(text) => onText(name, text)}
    onTensor=${(one, file) => onTensor(name, one, file)} onType=${(type) => set({ [`d.${name}`]: type }, true)}
    onExample=${() => set({ [`i.${name}`]: entry.info.required ? null : "*", [`d.${name}`]: null }, true)}
      onRemove=${() => set({ [`i.${name}`]: null, [`d.${name}`]: null }, true)} />`;
};

/** Forget what was typed, so that an example takes its place; optional inputs stay, as examples. */
function cleared(query) {
  const patch = {};
  for (const key of query.keys()) if (key.startsWith("i.")) patch[key] = query.get(key) === "*" ? "*" : null;
  for (const key of query.keys()) if (key.startsWith("d.")) patch[key] = null;
  return patch;
}

function Explorer({ losses, loss, state, set, query }) {
  const entries = useEntries(loss, query, state);
  const options = optionsOf(loss, query);
  const { choices, gradients } = gradientsOf(loss, entries, state);
  const inputs = Object.fromEntries(
    entries.filter((each) => each.tensor && each.info !== WEIGHT).map((each) => [each.info.name, each.tensor]),
  );
  const weight = entries.find((each) => each.info === WEIGHT)?.tensor ?? null;
  const parts = [
    loss,
    ...Object.keys(inputs),
    ...Object.values(inputs),
    weight,
    JSON.stringify(options),
    gradients.join(),
    state.reduction,
    state.engine,
    state.type,
    entries.some((each) => each.error),
  ];
  const model = useStable(parts, () => ({
    loss,
    inputs,
    weight,
    options,
    gradients,
    reduction: state.reduction,
    engine: state.engine,
    type: state.type,
    typed: !entries.some((each) => each.error),
  }));
  const settled = useDebounced(model, 150);
  const { value, error, busy } = useAsync(
    async (signal) => (settled.typed ? answerOf(settled, signal) : null),
    [settled],
  );
  const last = useRef(null);
  if (value) last.current = value;
  const answer = last.current;
  const problem = settled.typed && error instanceof Problem ? error : null;
  const lost = entries.filter((each) => each.lost).map((each) => each.info.name);
  const pick = (name) => set({ ...Object.fromEntries([...query.keys()].map((key) => [key, null])), loss: name }, true);
  return html`<div class="screen explore">
    <header class="two"><div class="stack tight"><h1 class="visually-hidden">Explore</h1><div class="row">
      <${LossPicker} losses=${losses} loss=${loss} onChange=${pick} /></div>
        <p class="quiet">${loss.summary} <a href=${`#/curves?losses=${loss.name}`}>See its curve</a></p></div>
      ${answer ? html`<${Headline} answer=${answer}
        stale=${Boolean(error || !settled.typed)} />` : error || !settled.typed ? html`<p class="quiet">There is no answer yet.</p>` : html`<${Skeleton} height=${48} />`}</header>
    ${lost.length > 0 && html`<p class="note warning">This link came without the data of ${lost.join(" and ")}: an example stands in its place. Choose the file again.</p>`}
    <div class="two"><${Form} ...${{ loss, state, set, query, entries, options, gradients, choices, problem }} />
      <section class="stack answer" aria-label="Answer" aria-busy=${String(busy || settled !== model)}>
        ${!settled.typed ? html`<p class="note error"
          role="status">A number is missing or misspelt: see the marked field.</p>` : error && html`<${Failure} error=${error} />`}
        ${answer ? html`<div class=${cx("stack", (error || !settled.typed) && "stale")}>
          <${Answer} answer=${answer} now=${model.typed ? model : answer.model} entries=${entries} set=${set}
          evaluate=${evaluate} /></div>` : !error && html`<${Skeleton} height=${160} /><${Skeleton} height=${160} />`}
      </section></div>
  </div>`;
}

/** Return the same object until one of its parts changes. */
function useStable(parts, make) {
  const kept = useRef({ parts: [], made: null });
  if (parts.length !== kept.current.parts.length || parts.some((each, index) => each !== kept.current.parts[index]))
    kept.current = { parts, made: make() };
  return kept.current.made;
}

export default function Explore() {
  const { value: losses, error } = useLosses();
  const [state, set, query] = useQuery(DEFAULTS);
  const loss = useMemo(() => losses?.find((each) => each.name === state.loss), [losses, state.loss]);
  if (error) return html`<${Failure} error=${error} onRetry=${() => location.reload()} />`;
  if (!losses) return html`<div class="screen"><${Skeleton} height=${32} /><${Skeleton} height=${480} /></div>`;
  if (!loss)
    return html`<div class="empty"><p>This server has no loss named "${state.loss}".</p>
      <button type="button" class="button primary"
      onClick=${() => set({ loss: "cross_entropy" }, true)}>Explore cross_entropy</button></div>`;
  return html`<${Explorer} key=${loss.name} losses=${losses} loss=${loss} state=${state} set=${set} query=${query} />`;
}
