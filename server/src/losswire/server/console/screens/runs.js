/** Runs: the memory of a server, as a table with history and the gate's verdict. */

import { get, multipart, number, post, useServer } from "../lib/api.js";
import { linear, Sparkline } from "../lib/charts.js";
import {
  copy,
  cx,
  Empty,
  Failure,
  html,
  Select,
  Skeleton,
  useAsync,
  useDebounced,
  useMemo,
  useState,
} from "../lib/dom.js";
import { count, exact, percent, short, when, withInterval } from "../lib/numbers.js";
import { href, navigate, useQuery } from "../lib/state.js";
import { tensor, writeNpy } from "../lib/tensors.js";
import { list, plural } from "../lib/words.js";
import { Chips, Deletion, Detail, NoStore, titleOf } from "./run.js";

const DEFAULTS = {
  run: null,
  loss: "",
  name: "",
  labels: [],
  pages: [],
  baseline: null,
  increase: 0.01,
  relative: true,
  by: "name",
  ticked: [],
};
const PAGE = 25;
const HISTORY = 200;
/** More points than this are a blur in a strip. */
const STRIP = 30;
const COMMAND = "losswire summarize cross_entropy predictions.parquet --save nightly";

const figuresOf = ({ candidate, count: n, mean, low, high }) => ({
  candidate,
  n,
  mean: number(mean),
  low: number(low),
  high: number(high),
});

/** Return the filters of a list as its parameters. */
const filterOf = ({ loss, name, labels }) => ({
  loss,
  name,
  ...Object.fromEntries(labels.map((each) => each.split(/=(.*)/s)).map(([key, value]) => [`label.${key}`, value])),
});

/** Save what the small and the large network lose on the digits, one run each. */
async function saveExample() {
  const { digits } = await import("../lib/samples.js");
  const columns = Object.fromEntries((await digits()).map((each) => [each.name, each]));
  const npy = ({ data, shape, type }) => writeNpy(tensor(data, shape, type));
  for (const model of ["small", "large"]) {
    const request = {
      loss: "cross_entropy",
      columns: { input: "logits", target: "digit" },
      slices: ["ink", "digit"],
      ids: "id",
      worst: 20,
      partition: "digits",
    };
    const { ink } = columns;
    const body = multipart(request, {
      logits: npy(columns[`logits_${model}`]),
      digit: npy(columns.digit),
      id: npy(columns.id),
      ink: Array.from(ink.data, (code) => ink.labels[code]),
    });
    const started = new Date().toISOString();
    const { state } = await post("/v1/summarize", body);
    await post("/v1/runs", {
      name: "digits",
      labels: { model, data: "digits" },
      started,
      ended: new Date().toISOString(),
      state,
      request,
    });
  }
}

/** An interval on an axis that the runs of a loss share. */
function Interval({ figures, range }) {
  const x = linear(...range, 4, 116);
  if (Number.isNaN(figures.low)) return html`<svg width="120" height="16" aria-hidden="true"></svg>`;
  const at = (value, beyond) => (Number.isFinite(value) ? x(value) : beyond);
  return html`<svg width="120" height="16" aria-hidden="true"><g stroke="var(--ink)" stroke-width="1.5">
    <path d="M${at(figures.low, 0)} 8H${at(figures.high, 120)}M${at(figures.low, -9)} 4v8M${at(figures.high, -9)} 4v8" />
    </g>
    ${Number.isFinite(figures.mean) && html`<circle cx=${x(figures.mean)} cy="8" r="3.5" fill="var(--ink)" />`}</svg>`;
}

/** Return the range of the means and intervals of each loss. */
function rangesOf(runs) {
  const ranges = new Map();
  for (const run of runs) {
    const all = run.figures
      .map(figuresOf)
      .flatMap(({ mean, low, high }) => [mean, low, high])
      .filter(Number.isFinite);
    const [low, high] = ranges.get(run.loss) ?? [Infinity, -Infinity];
    ranges.set(run.loss, [Math.min(low, ...all), Math.max(high, ...all)]);
  }
  return ranges;
}

/** Return what a run's history is: the runs of its loss and name, and of its value of one label if asked for. */
const groupOf = (run, by) => JSON.stringify([run.loss, run.name, by === "name" ? "" : run.labels[by]]);

/** Means over time as a strip; the run's own point is marked. */
function History({ run, runs: all_ }) {
  const place = all_.findIndex((each) => each.run_id === run.run_id);
  const first = Math.max(0, Math.min(place - STRIP / 2, all_.length - STRIP));
  const [runs, at] = [all_.slice(first, first + STRIP), place - first];
  if (runs.length < 2 || at < 0) return html`<span class="small quiet">only one</span>`;
  const figures = runs.map((each) => figuresOf(each.figures[0]));
  const all = figures.flatMap(({ mean, low, high }) => [mean, low, high]).filter(Number.isFinite);
  // Sparkline's own scales, so that the mark lies on the line.
  const x = linear(0, runs.length - 1, 2, 116)(at);
  const y = linear(Math.min(...all), Math.max(...all), 21, 3)(figures[at].mean);
  const label = `Mean over ${runs.length} runs, oldest first: ${figures.map(({ mean }) => short(mean, 3)).join(", ")}; this is number ${at + 1}`;
  return html`<span style=${{ position: "relative", display: "inline-block" }}>
    <${Sparkline} values=${figures.map((each) => each.mean)} low=${figures.map((each) => each.low)}
    high=${figures.map((each) => each.high)} label=${label} />
    ${
      Number.isFinite(figures[at].mean) &&
      html`<svg width="120" height="24" aria-hidden="true"
      style=${{ position: "absolute", left: 0, top: 0, pointerEvents: "none" }}>
      <circle cx=${x} cy=${y} r="4" fill="var(--paper)" stroke="var(--ink)" stroke-width="2" /></svg>`
    }</span>`;
}

/** Ask the gate about each run of a page that may be compared with the baseline. */
function useVerdicts(runs, baseline, { increase, relative }) {
  const limit = useDebounced(increase, 300);
  const key = runs.map((each) => each.run_id).join();
  const { value } = useAsync(
    async (signal) => {
      const asked = baseline
        ? runs.filter((run) => run.run_id !== baseline.run_id && run.figures.length === 1 && run.loss === baseline.loss)
        : [];
      const query = (run) => ({
        baseline: baseline.run_id,
        candidate: run.run_id,
        max_increase: limit,
        relative: relative || null,
      });
      const answers = await Promise.all(
        asked.map((run) => get("/v1/gate", { query: query(run), signal }).catch((error) => ({ error }))),
      );
      return Object.fromEntries(asked.map((run, i) => [run.run_id, answers[i]]));
    },
    [key, baseline?.run_id, limit, relative],
  );
  return value ?? {};
}

/** Return the baseline, also one that is not on this page. */
function useBaseline(id, known) {
  const here = known.find((each) => each.run_id === id);
  const { value } = useAsync(
    async (signal) => (id && !here && known.length ? get(`/v1/runs/${encodeURIComponent(id)}`, { signal }) : null),
    [id, Boolean(here), known.length],
  );
  return here ?? (value?.run_id === id ? value : null);
}

const VERDICTS = {
  fail: ["fails", "bad"],
  pass: ["passes", "good"],
  "not enough evidence": ["not enough evidence", "warn"],
};

/** What the gate says of a run. */
function Verdict({ run, baseline, verdict }) {
  if (run.run_id === baseline?.run_id) return html`<span class="badge">baseline</span>`;
  if (run.figures.length > 1) return html`<span class="small quiet">a comparison</span>`;
  if (baseline && run.loss !== baseline.loss) return html`<span class="small quiet">another loss</span>`;
  if (!verdict) return html`<span class="small quiet">–</span>`;
  if (verdict.error) return html`<span class="small quiet" title=${verdict.error.message}>cannot be compared</span>`;
  const [text, tone] = VERDICTS[verdict.checks?.[0]?.verdict] ?? (verdict.passed ? VERDICTS.pass : VERDICTS.fail);
  const bounds = verdict.interval.map(number);
  const write = verdict.relative ? (n) => percent(n, 3) : short;
  const known = bounds.every(Number.isFinite);
  return html`<span class="badge ${tone}" title=${verdict.sentence}>${text}</span>
    ${
      known &&
      html`<div class="small quiet nowrap">${number(verdict.increase) > 0 ? "+" : ""}
    ${verdict.relative ? `${write(number(verdict.increase))} [${write(bounds[0])}, ${write(bounds[1])}]` : withInterval(number(verdict.increase), ...bounds)}
    </div>`
    }`;
}

/** Say how the runs of a page stand the gate. */
function gateSentence(verdicts) {
  const found = Object.values(verdicts)
    .map((each) => each?.checks?.[0]?.verdict)
    .filter(Boolean);
  if (!found.length)
    return "Choose a baseline, and the gate says of each run whether its mean has surely increased by more than that.";
  const told = Object.entries(VERDICTS)
    .map(([key, [text]]) => [found.filter((each) => each === key).length, text])
    .filter(([n]) => n);
  return `Of ${plural(found.length, "run")}: ${list(told.map(([n, text]) => `${n} ${text === "not enough evidence" ? "without enough evidence" : n === 1 ? text : text.replace(/e?s$/, "")}`))}.`;
}

/** One line of the table. */
function Line({ run, state, baseline, ranges, history, verdict, tick, toggle, setBaseline, onDelete }) {
  const figures = run.figures.map(figuresOf);
  const isTicked = state.ticked.includes(run.run_id);
  return html`<tr class=${cx(isTicked && "chosen")}>
    <td><input type="checkbox" checked=${isTicked} aria-label="Tick ${titleOf(run)}, saved ${when(run.saved)}"
      onChange=${() => tick(run.run_id)} /></td>
    <td style=${{ maxWidth: "240px" }}><div class="clip">
      <a href=${href("runs", { run: run.run_id })} title=${titleOf(run)}>${titleOf(run)}</a> <span class="small quiet">
      ${run.loss}</span></div><${Chips} labels=${run.labels} chosen=${state.labels} onToggle=${toggle} /></td>
    <td class="nowrap">${figures.map(
      (each) => html`<div key=${each.candidate}>
      <${Interval} figures=${each} range=${ranges.get(run.loss)} /><span title=${exact(each.mean)}>
      ${each.candidate && html`<span class="quiet">${each.candidate} </span>`}
      ${withInterval(each.mean, each.low, each.high)}</span></div>`,
    )}</td>
    <td class="num">${count(figures[0]?.n ?? 0)}</td>
    <td><${History} run=${run} runs=${history} /></td>
    <td class="nowrap"><${Verdict} run=${run} baseline=${baseline} verdict=${verdict} /></td>
    <td class="nowrap small">${when(run.saved)}<div class="quiet">${run.creator}</div></td>
    <td class="nowrap"><span class="row" style=${{ gap: "4px", flexWrap: "nowrap" }}>
      ${
        run.figures.length === 1 &&
        html`<button type="button" class="button small"
        aria-pressed=${String(run.run_id === state.baseline)}
        aria-label="Take ${titleOf(run)}, saved ${when(run.saved)}, as baseline"
        onClick=${() => setBaseline(run.run_id)}>baseline</button>`
      }
      <button type="button" class="button small danger" aria-label="Delete ${titleOf(run)}, saved ${when(run.saved)}"
        onClick=${() => onDelete(run)}>delete</button></span></td></tr>`;
}

/** Say what the list holds. */
function sentenceOf(runs, state, isMore) {
  const newest = runs[0];
  const figures = newest.figures
    .map(figuresOf)
    .map((each) => `${each.candidate ? `${each.candidate} ` : ""}${withInterval(each.mean, each.low, each.high)}`);
  const how = state.labels.length || state.name || state.loss ? " that fit" : "";
  return `${plural(runs.length, "run")}${how}${isMore ? " on this page" : ""}; the newest is ${titleOf(newest)}, ${newest.loss} ${list(figures)}.`;
}

/** The gate's question. */
function Gate({ state, set, runs, verdicts }) {
  const singles = runs.filter((each) => each.figures.length === 1);
  const names = singles.map((each) => [
    each.run_id,
    `${titleOf(each)} · ${Object.values(each.labels).join(" ") || each.loss} · ${when(each.saved)}`,
  ]);
  const options = [["", "no baseline"], ...names];
  return html`<div class="stack tight"><div class="row">
    <label class="row">Gate against <${Select} class="auto" style=${{ maxWidth: "320px" }} value=${state.baseline ?? ""}
    options=${options} onChange=${(id) => set({ baseline: id || null }, true)} /></label>
    <label class="row">may increase by <input class="input short num" type="number" step="any" value=${state.increase}
      onInput=${(event) => event.target.value !== "" && set({ increase: Number(event.target.value) })} /></label>
    <label class="check"><input type="checkbox" checked=${state.relative}
      onChange=${(event) => set({ relative: event.target.checked })} /> of the baseline's mean</label></div>
    <p class="hint">${gateSentence(verdicts)}</p></div>`;
}

/** The list while it has nothing. */
function Nothing({ isFiltered, clear, again }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  if (isFiltered) return html`<${Empty} action="Show all runs" onAction=${clear}>No run fits these filters.</${Empty}>`;
  const act = () => {
    setBusy(true);
    saveExample()
      .then(again, setError)
      .finally(() => setBusy(false));
  };
  return html`<div class="empty">
    <p>A run is an evaluation that the server remembers, so that today's model can be compared with last week's.</p>
    ${error && html`<${Failure} error=${error} />`}
    <button type="button" class="button primary" disabled=${busy} onClick=${act}>
      ${busy ? "Evaluating…" : "Save two runs of the digits"}</button>
    <p class="small">or keep your own: <code>${COMMAND}
      </code> <button type="button" class="button small" onClick=${() => copy(COMMAND, "The command")}>Copy</button></p>
      </div>`;
}

/** The filters, and what histories are made of. */
function Filters({ state, set, keys, known }) {
  const change = (patch) => set({ ...patch, pages: [], ticked: [] });
  return html`<div class="row">
    ${["name", "loss"].map(
      (field) => html`<${Select} key=${field} class="auto" style=${{ maxWidth: "200px" }}
      aria-label="Only runs of this ${field}" value=${state[field]}
      options=${[["", `any ${field}`], ...new Set([...known[field], state[field]].filter(Boolean))]}
      onChange=${(text) => change({ [field]: text })} />`,
    )}
    ${state.labels.map(
      (each) => html`<button type="button" class="button small primary" key=${each}
      aria-label="Remove the filter ${each}"
      onClick=${() => change({ labels: state.labels.filter((other) => other !== each) })}>
      ${each.replace("=", " ")} ×</button>`,
    )}
    ${
      keys.length > 0 &&
      html`<label class="row">history by <${Select} class="auto" value=${state.by}
      options=${[["name", "name"], ...keys.map((key) => [key, `name and ${key}`])]} onChange=${(by) => set({ by })} />
      </label>`
    }
  </div>`;
}

/** The runs as a table. */
function List({ state, set }) {
  const filter = JSON.stringify([state.loss, state.name, state.labels]);
  const { value, error, busy, again } = useAsync(
    (signal) =>
      get("/v1/runs", { signal, query: { ...filterOf(state), page_size: PAGE, page_token: state.pages.at(-1) } }),
    [filter, state.pages.join()],
  );
  const older = useAsync(
    (signal) => get("/v1/runs", { signal, query: { ...filterOf(state), page_size: HISTORY } }),
    [filter, value],
  );
  const [deleting, setDeleting] = useState(null);
  const runs = value?.runs ?? [];
  const baseline = useBaseline(state.baseline, [...runs, ...(older.value?.runs ?? [])]);
  const verdicts = useVerdicts(runs, baseline, state);
  const [ranges, histories] = useMemo(() => {
    const groups = new Map();
    for (const run of (older.value?.runs ?? []).toReversed())
      groups.set(groupOf(run, state.by), [...(groups.get(groupOf(run, state.by)) ?? []), run]);
    return [rangesOf(runs), groups];
  }, [value, older.value, state.by]);
  if (error?.status === 501) return html`<${NoStore} />`;
  if (error) return html`<${Failure} error=${error} onRetry=${state.pages.length ? () => set({ pages: [] }) : again} />`;
  if (!value)
    return html`<${Skeleton} height=${32} />
    ${[0, 1, 2, 3].map((i) => html`<${Skeleton} key=${i} height=${48} />`)}`;
  const known = {
    name: (older.value?.runs ?? runs).map((each) => each.name),
    loss: (older.value?.runs ?? runs).map((each) => each.loss),
  };
  const isFiltered = Boolean(state.loss || state.name || state.labels.length || state.pages.length);
  const keys = [...new Set(runs.flatMap((each) => Object.keys(each.labels)))];
  if (!runs.length)
    return html`${
      isFiltered &&
      html`<${Filters} state=${state} set=${set} keys=${[]}
    known=${known} />`
    }<${Nothing} isFiltered=${isFiltered} again=${again}
    clear=${() => set({ loss: "", name: "", labels: [], pages: [] }, true)} />`;
  const tick = (id) =>
    set({
      ticked: state.ticked.includes(id) ? state.ticked.filter((each) => each !== id) : [...state.ticked, id].slice(-2),
    });
  const toggle = (label) =>
    set(
      {
        labels: state.labels.includes(label) ? state.labels.filter((each) => each !== label) : [...state.labels, label],
        pages: [],
        ticked: [],
      },
      true,
    );
  return html`<p class="sentence">${sentenceOf(runs, state, Boolean(value.next_page_token || state.pages.length))}</p>
    <${Filters} state=${state} set=${set} keys=${keys} known=${known} />
    <${Gate} state=${state} set=${set} verdicts=${verdicts}
      runs=${baseline && !runs.some((each) => each.run_id === baseline.run_id) ? [baseline, ...runs] : runs} />
    <div class="table-wrap" aria-busy=${String(busy)} tabindex="0" role="region" aria-label="Runs"
      style=${{ position: "relative" }}><table><thead><tr><th scope="col"><span class="visually-hidden">tick</span></th>
      <th scope="col">run</th><th scope="col">mean [95 %]</th><th class="num" scope="col">n</th>
      <th scope="col">history</th><th scope="col">gate</th><th scope="col">saved</th><th scope="col">
      <span class="visually-hidden">actions</span></th></tr></thead>
      <tbody>${runs.map(
        (run) => html`<${Line} key=${run.run_id} run=${run} state=${state} baseline=${baseline}
        ranges=${ranges} history=${histories.get(groupOf(run, state.by)) ?? []} verdict=${verdicts[run.run_id]}
        tick=${tick} toggle=${toggle} setBaseline=${(id) => set({ baseline: id === state.baseline ? null : id }, true)}
          onDelete=${setDeleting} />`,
      )}</tbody></table></div>
    ${
      (state.pages.length > 0 || value.next_page_token) &&
      html`<div class="row">
      <button type="button" class="button" disabled=${!state.pages.length}
      onClick=${() => set({ pages: state.pages.slice(0, -1) }, true)}>Newer</button>
      <button type="button" class="button" disabled=${!value.next_page_token}
        onClick=${() => set({ pages: [...state.pages, value.next_page_token] }, true)}>Older</button></div>`
    }
    ${
      deleting &&
      html`<${Deletion} run=${deleting} onClose=${() => setDeleting(null)}
      onDeleted=${() => {
        set({ ticked: state.ticked.filter((id) => id !== deleting.run_id) });
        setDeleting(null);
        again();
      }} />`
    }`;
}

/** The screen. */
export default function Runs() {
  const [found, set] = useQuery(DEFAULTS);
  // An address that somebody typed may hold anything.
  const state = Number.isFinite(found.increase) ? found : { ...found, increase: DEFAULTS.increase };
  const { value: server, error } = useServer();
  const [a, b] = state.ticked;
  const action = state.run
    ? html`<a class="button" href="#/runs">All runs</a>`
    : a &&
      html`<div class="row"><span class="small quiet">${b ? "" : "Tick one more to compare"}</span>
      <button type="button" class="button primary" disabled=${!b}
      onClick=${() => navigate("compare", { a, b })}>Compare</button></div>`;
  // A server without a store is not asked for runs.
  const isKnown = server || error;
  return html`<div class="screen"><header><h1>${state.run ? "Run" : "Runs"}</h1>${action}</header>
    ${
      server?.runs === false
        ? html`<${NoStore} />`
        : !isKnown
          ? html`<${Skeleton} height=${32} />
      <${Skeleton} height=${240} />`
          : state.run
            ? html`<${Detail} id=${state.run} />`
            : html`<${List} state=${state}
      set=${set} />`
    }</div>`;
}
