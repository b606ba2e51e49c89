// One evaluation: from columns of a file to a summary of the server. Evaluate and Compare share it.
import { multipart, number, post, Problem, readMultipart, send } from "./api.js";
import { useEffect, useState } from "./dom.js";
import { guess, planOf } from "./guess.js";

/** @typedef {import("./guess.js").Form} Form */

let worker = null;
let asked = 0;
const waiting = new Map();

function receive({ data: { id, result, error, progress } }) {
  const { resolve, reject, onProgress } = waiting.get(id) ?? {};
  if (progress !== undefined) return onProgress?.(progress);
  waiting.delete(id);
  return error === undefined
    ? resolve?.(result)
    : reject?.(Object.assign(new Error(error), { title: "This data cannot be used" }));
}

/**
 * Ask the worker.
 * @param {string} operation one of OPERATIONS of worker.js
 * @param {any} input
 * @param {(share: number) => void} [onProgress]
 * @returns {Promise<any>}
 */
export function ask(operation, input, onProgress) {
  if (!worker) {
    worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.onmessage = receive;
    worker.onerror = () =>
      waiting.forEach(({ reject }) => reject(new Error("The worker of this page did not start.")));
  }
  asked += 1;
  const id = asked;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, onProgress });
    worker.postMessage({ id, operation, input });
  });
}

/** The evaluation of this page, which outlives a change of screens. */
const session = {
  status: "empty",
  data: null,
  form: null,
  info: null,
  names: [],
  done: 0,
  result: null,
  history: [],
  error: null,
  turn: 0,
};
const listeners = new Set();

function change(patch) {
  Object.assign(session, patch);
  listeners.forEach((listener) => listener());
}

/** Return the evaluation of this page, and again when it changes. @returns {typeof session} */
export function useSession() {
  const [, set] = useState(0);
  useEffect(() => {
    const listener = () => set((count) => count + 1);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return session;
}

/** Read files. @param {File[]} files @param {any[]} losses @param {{loss?: string, served?: string}} more */
export async function open(files, losses, more = {}) {
  stop();
  change({ status: "reading", share: 0, error: null, data: null, result: null });
  try {
    const found = await ask("open", { files: [...files] }, (share) => change({ share }));
    const name = [...files].map((each) => each.name).join(" and ");
    opened(
      { ...found, name, size: [...files].reduce((sum, each) => sum + each.size, 0), ...more },
      losses,
      more.loss,
    );
  } catch (error) {
    change({ status: "empty", error });
  }
}

/** Take the digits. @param {any[]} losses */
export async function openSample(losses) {
  stop();
  const { digits } = await import("./samples.js");
  const found = await ask("take", { columns: await digits() });
  opened(
    {
      ...found,
      name: "digits",
      sample: true,
      note: "every fifth of the UCI digits, predicted by two small networks that were not trained on it",
    },
    losses,
    "cross_entropy",
  );
}

function opened(data, losses, loss) {
  shown = null;
  change({ data, status: "ready", result: null, error: null, done: 0, history: [] });
  choose(guess(data.columns, losses, loss), losses);
}

/** Put other choices. @param {Form} form @param {any[]} losses */
export const choose = (form, losses) =>
  change({ form, info: losses.find((each) => each.name === form.loss) });

/**
 * Return the order of pieces: drawn, so that those that came so far are like the rest. The same for the same
 * file.
 */
function drawn(pieces) {
  const order = [...pieces];
  let seed = 1;
  for (let at = order.length - 1; at > 0; at -= 1) {
    seed = (seed * 48271) % 2147483647;
    const other = seed % (at + 1);
    [order[at], order[other]] = [order[other], order[at]];
  }
  return order;
}

const pause = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        reject(new DOMException("stopped", "AbortError"));
      },
      { once: true },
    );
  });

/** Send, and again when the server is busy. */
async function patiently(work, signal) {
  for (let turn = 0; ; turn += 1) {
    try {
      return await work();
    } catch (error) {
      const busy = error instanceof Problem && (error.status === 429 || error.status === 503);
      if (!busy || turn === 6) throw error;
      await pause(error.retryAfterMs ?? 200 * 2 ** turn, signal);
    }
  }
}

let control = null;
/** Whose answers the session shows: an evaluation that was replaced may still be under way. */
let shown = null;

/** Stop: what came so far stays. */
export function stop() {
  control?.abort();
  control = null;
}

/** Return the parts of the requests: a summary of a piece, and the losses of its rows. */
function requests(form, plan, parts, partition) {
  const part = ({ column, as }) =>
    parts[column] === undefined || parts[`${column} as ${as}`] !== undefined ? `${column} as ${as}` : column;
  const named = (inputs) => Object.fromEntries(inputs.map((each) => [each.input, part(each)]));
  const header = { loss: form.loss, options: form.options };
  const single = plan.candidates.length === 1;
  return {
    path: single ? "/v1/summarize" : "/v1/compare",
    summary: (first) => ({
      ...header,
      columns: named(single ? [...plan.inputs, ...plan.candidates[0].inputs] : plan.inputs),
      ...(!single && {
        candidates: Object.fromEntries(plan.candidates.map(({ name, inputs }) => [name, named(inputs)])),
      }),
      slices: plan.slices,
      ...(plan.weights && { sample_weight: part({ column: plan.weights, as: "float64" }) }),
      ...(plan.clusters && { clusters: plan.clusters }),
      ...(plan.ids && { ids: plan.ids }),
      worst: 20,
      partition,
      first_row: first,
    }),
    rows: plan.candidates.map(({ inputs }) => ({
      header: { ...header, reduction: "none" },
      inputs: named([...plan.inputs, ...inputs]),
    })),
  };
}

/**
 * Return the losses of rows, and their gradients if asked for.
 * @param {any} asked of `requests().rows`
 * @param {any} parts
 * @param {any} more
 * @param {AbortSignal} [signal]
 */
async function evaluateRows({ header, inputs }, parts, more, signal) {
  const body = multipart(
    { ...header, ...more },
    Object.fromEntries(Object.entries(inputs).map(([input, part]) => [`inputs.${input}`, parts[part]])),
  );
  return (await readMultipart(await send("/v1/evaluate", { body, accept: "multipart/form-data", signal })))
    .parts;
}

/**
 * Return the numbers of a .npy answer, which are of float32 or float64. lib/tensors.js reads all types, and
 * is not needed here.
 */
function floatsOf(buffer) {
  const from = 10 + new DataView(buffer).getUint16(8, true);
  const double = new TextDecoder().decode(buffer.slice(0, from)).includes("<f8");
  return new (double ? Float64Array : Float32Array)(buffer.slice(from));
}

/** Start, and change the session as answers come. */
export async function start() {
  const { form, info, data } = session;
  stop();
  control = new AbortController();
  const { signal } = control;
  shown = signal;
  const plan = planOf(form, info, data.columns);
  const began = performance.now();
  change({
    status: "running",
    plan,
    names: plan.candidates.map(({ name }) => name),
    done: 0,
    result: null,
    history: [],
    error: null,
    seconds: 0,
    decided: null,
    turn: session.turn + 1,
  });
  let pending = [];
  let merging = null;
  let kept = null;
  const merge = async () => {
    // Not before the caller has noted that a merge runs.
    await null;
    while (pending.length) {
      const states = pending;
      pending = [];
      // The first answer is a summary already; a merge takes all that came since the one before.
      const found =
        kept || states.length > 1
          ? await patiently(
              () =>
                post("/v1/summaries/merge", {
                  states: [...(kept ? [kept.state] : []), ...states.map(({ state }) => state)],
                }),
              signal,
            )
          : states[0];
      kept = { ...found, rows: (kept?.rows ?? 0) + states.reduce((sum, { rows }) => sum + rows, 0) };
      if (shown === signal) noted(kept, began);
    }
    merging = null;
  };
  try {
    const { pieces } = await ask("prepare", { plan });
    const left = drawn(pieces);
    const lane = async () => {
      for (let piece = left.pop(); piece; piece = left.pop()) {
        const [first, length] = piece;
        const parts = await ask("piece", { first, length });
        const wanted = requests(form, plan, parts, data.name);
        // The server counts the rows of a piece.
        const placed = (error) => {
          throw error instanceof Problem && first > 0
            ? Object.assign(error, {
                hint: `Rows are counted from row ${first} of the file. ${error.hint}`,
              })
            : error;
        };
        const answers = await Promise.all([
          patiently(() => post(wanted.path, multipart(wanted.summary(first), parts), { signal }), signal),
          ...wanted.rows.map((each) => patiently(() => evaluateRows(each, parts, {}, signal), signal)),
        ]).catch(placed);
        signal.throwIfAborted();
        await Promise.all(
          answers
            .slice(1)
            .map(({ loss }, candidate) =>
              ask("losses", { candidate, first, length, values: floatsOf(loss) }),
            ),
        );
        pending.push({ ...answers[0], rows: length });
        merging ??= merge();
      }
    };
    await Promise.all([lane(), lane()]);
    await merging;
    change({ status: "done" });
  } catch (error) {
    if (signal.aborted) {
      // Stopped by the person, or replaced by another evaluation, which says so itself.
      if (shown === signal && session.status === "running") change({ status: kept ? "stopped" : "ready" });
    } else {
      stop();
      change({ status: kept ? "stopped" : "ready", error });
    }
  }
}

/** Take a merged answer into the session. */
function noted(kept, began) {
  const seconds = (performance.now() - began) / 1000;
  const {
    mean,
    interval: [low, high],
  } = headline(kept.summary);
  const point = { rows: kept.rows, mean, low, high };
  change({
    result: kept,
    done: kept.rows,
    seconds,
    history: [...session.history, point],
    decided: decided(kept.summary, session.data.rows),
  });
}

/**
 * Return the figures that are watched, as numbers: of a comparison, the first difference.
 * @param {any} summary
 * @returns {any}
 */
export function headline(summary) {
  const found = summary.differences?.[0] ?? summary;
  return {
    ...found,
    mean: number(found.mean),
    standard_error: number(found.standard_error),
    interval: found.interval.map(number),
  };
}

/**
 * Return an interval that may be looked at after every piece: whoever stops when it looks good still
 * has a true one in 95 of 100 cases (an asymptotic confidence sequence, Waudby-Smith et al. 2021).
 * @param {{count: number, mean: number, standard_error: number}} figures @param {number} rows
 * @returns {[number, number]}
 */
export function anytimeInterval({ count, mean, standard_error: error }, rows) {
  const inner = -2 * Math.log(0.05);
  const tuned = (inner + Math.log(inner + 1)) / Math.max(2, rows / 4);
  const grown = count * tuned + 1;
  const half = error * Math.sqrt(((2 * grown) / (count * tuned)) * Math.log(Math.sqrt(grown) / 0.05));
  return [mean - half, mean + half];
}

/** Say whether more rows would change nothing: a difference is there, or a mean is known within 1 %. */
function decided(summary, rows) {
  const figures = headline(summary);
  const interval = anytimeInterval(figures, rows);
  if (!interval.every(Number.isFinite) || figures.small) return null;
  const [low, high] = interval;
  const known = summary.differences ? low > 0 || high < 0 : high - low < 0.02 * Math.abs(figures.mean);
  return known
    ? { interval, text: summary.differences ? "a difference is there" : "the mean is known within 1 %" }
    : null;
}

/**
 * Return the gradient of the first input in some rows, a list each.
 * @param {number[]} rows
 * @param {number} candidate
 * @returns {Promise<number[][]>}
 */
export async function gradients(rows, candidate) {
  const { form, plan, data } = session;
  const parts = await ask("parts", { rows });
  const [input] = plan.candidates[candidate].inputs;
  const found = await evaluateRows(requests(form, plan, parts, data.name).rows[candidate], parts, {
    reduction: "sum",
    gradients_for: [input.input],
  });
  const flat = floatsOf(found[`gradients.${input.input}`]);
  const width = flat.length / rows.length;
  return rows.map((_, at) => Array.from(flat.subarray(at * width, (at + 1) * width)));
}

/**
 * Keep the evaluation as a run.
 * @param {string} name
 * @param {Record<string, string>} labels
 * @returns {Promise<any>}
 */
export const saveRun = (name, labels) => post("/v1/runs", { name, labels, state: session.result.state });
