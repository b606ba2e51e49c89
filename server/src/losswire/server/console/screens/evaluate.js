/** Evaluate: a file of predictions, its loss with an interval, where it is high, and which rows make it so. */
import { number, ROOT, useLosses, useServer } from "../lib/api.js";
import { Sparkline } from "../lib/charts.js";
import { announce, cx, Dialog, download, Failure, Field, html, Skeleton, toast } from "../lib/dom.js";
import { useEffect, useRef, useState, useWindow } from "../lib/dom.js";
import { ask, open, openSample, saveRun, start, stop, useSession } from "../lib/evaluation.js";
import { faults } from "../lib/guess.js";
import { count, duration, exact, percent, short, withInterval } from "../lib/numbers.js";
import { Distribution, Exports, Filters, filters, liftRows, LOOK, lookOf } from "../lib/results.js";
import { rate, Slices, standing, Stopped, useLive, useView, WIDE } from "../lib/results.js";
import { Calibration, Rows, useFacts } from "../lib/rows.js";
import { href, useQuery } from "../lib/state.js";
import { list, plural } from "../lib/words.js";
import { Setup, Start } from "./evaluate-setup.js";

const DEFAULTS = { ...LOOK, candidate: "", data: "", loss: "", file: null };
/** How sure of another class a candidate must be for a label to be suspicious. */
const SURE = 0.9;

export default function Evaluate() {
  const [state, set] = useLive(...useQuery(DEFAULTS));
  const session = useSession();
  const { value: losses, error } = useLosses();
  const fresh = { brush: "", slices: [], pick: [], candidate: "", by: "" };
  const take = (files) => {
    if (!files.length || !losses) return;
    set({ ...fresh, data: "", file: null, loss: "" });
    open(files, losses);
  };
  const example = async () => {
    set({ ...fresh, data: "digits", file: null, loss: "" });
    await openSample(losses);
    start();
    // The button that had the focus is gone.
    document.getElementById("main").focus();
  };
  useAddressed(state, losses, session);
  useDrops(take);
  if (error)
    return html`<div class="screen"><header><h1>Evaluate</h1></header><${Failure} error=${error} /></div>`;
  if (!losses)
    return html`<div class="screen"><header><h1>Evaluate</h1></header><${Skeleton} height=${240} /></div>`;
  const running = session.status === "running";
  return html`<div class="screen">
    <header><h1>Evaluate</h1><${Action} session=${session} losses=${losses} /></header>
    ${session.error && html`<${Failure} error=${session.error} />`}
    ${session.status === "empty" && html`<${Start} onFiles=${take} onExample=${example} />`}
    ${session.status === "reading" && html`<div class="stack tight">
      <p role="status">Reading: ${percent(session.share ?? 0)}</p>
      <${Skeleton} height=${160} label="Reading the file" /></div>`}
    ${session.data && html`<${Setup} session=${session} losses=${losses} onFiles=${take} set=${set}
      open=${session.status === "ready"}
      key=${`${session.data.name} ${session.turn} ${session.status === "ready"}`} />`}
    ${session.result ? html`<${Results} session=${session} state=${state}
      set=${set} />` : running && html`<${Skeleton} height=${320} label="Waiting for the first piece" />`}
  </div>`;
}

/** Take what the address names: the digits, or a file that this server was started with. */
function useAddressed(state, losses, session) {
  const tried = useRef("");
  useEffect(() => {
    const wanted = state.file ?? state.data;
    if (!losses || !wanted || tried.current === wanted || session.data) return;
    tried.current = wanted;
    if (state.data === "digits") openSample(losses).then(() => start());
    else if (state.file) served(state.file, losses, state.loss);
  }, [losses, state.file, state.data]);
}

/** Open a file that `losswire ui` serves beside this page. */
async function served(path, losses, loss) {
  if (!/^\/files\/[A-Za-z0-9_-]+\/[^/]+$/.test(path))
    return toast("The address names no file of this server.");
  const answer = await fetch(new URL(path.slice(1), ROOT)).catch(() => null);
  if (!answer?.ok) return toast("This file is no longer served here: start `losswire ui FILE` again.", 8);
  const name = decodeURIComponent(path.split("/").pop());
  await open([new File([await answer.blob()], name)], losses, { loss });
  requestAnimationFrame(() => document.querySelector(".button.primary")?.focus());
  return undefined;
}

/** A file may be dropped anywhere. */
function useDrops(take) {
  useWindow("dragover", (event) => {
    event.preventDefault();
    document.getElementById("main").classList.add("dropping");
  });
  const leave = () => document.getElementById("main").classList.remove("dropping");
  useWindow("dragleave", (event) => event.relatedTarget === null && leave());
  useWindow("drop", (event) => {
    event.preventDefault();
    leave();
    take([...event.dataTransfer.files].slice(0, 8));
  });
  useEffect(() => leave, []);
}

/** The one thing to do next. */
function Action({ session, losses }) {
  const { status, decided } = session;
  const [saving, setSaving] = useState(false);
  const { value: server } = useServer();
  if (status === "ready") {
    const wrong = Object.keys(faults(session.form, session.info, session.data)).length > 0;
    return html`<button type="button" class="button primary" disabled=${wrong}
      onClick=${() => start()}>Start</button>`;
  }
  if (status === "running")
    return html`<button type="button" class=${cx("button", decided && "primary")} onClick=${stop}
      title=${decided ? `More rows would not change it: ${decided.text}.` : null}>
      ${decided ? "Stop: decided" : "Stop"}</button>`;
  if (!session.result) return null;
  return html`<div class="row">
    ${session.names.length > 1 && html`<a class="button"
      href=${href("compare", { from: "page" })}>Compare ${list(session.names)}</a>`}
    ${server?.runs && html`<button type="button" class="button primary"
      onClick=${() => setSaving(true)}>Save as run</button>`}
    ${saving && html`<${Save} session=${session} losses=${losses} onClose=${() => setSaving(false)} />`}</div>`;
}

function Save({ session, onClose }) {
  const [name, setName] = useState(session.data.name.replace(/\.[^.]*$/, ""));
  const [labels, setLabels] = useState(`data=${session.data.name}`);
  const [error, setError] = useState(null);
  const save = async (event) => {
    event.preventDefault();
    const pairs = labels
      .split(/[,\n]/)
      .map((each) => each.trim())
      .filter(Boolean)
      .map((each) => each.split("=").map((part) => part.trim()));
    const bad = pairs.find((each) => each.length !== 2 || !each[0]);
    if (bad)
      return setError(
        Object.assign(new Error(`"${bad.join("=")}" is no label: write key=value.`), { title: "Not saved" }),
      );
    try {
      const run = await saveRun(name, Object.fromEntries(pairs));
      event.target.closest("dialog").close();
      toast(`Saved as run ${run.name || run.run_id}. It is under Runs.`);
    } catch (problem) {
      setError(problem);
    }
    return undefined;
  };
  return html`<${Dialog} title="Save as run" onClose=${onClose}><form class="stack" onSubmit=${save}>
    <${Field} label="Name">${(own) => html`<input class="input" required autofocus value=${name}
      onInput=${(event) => setName(event.target.value)} ...${own} />`}</${Field}>
    <${Field} label="Labels" hint="key=value, with commas between them, such as model=large, commit=4f2a">
      ${(own) => html`<input class="input" value=${labels} onInput=${(event) => setLabels(event.target.value)}
      ...${own} />`}</${Field}>
    ${session.status === "stopped" && html`<p
      class="note warning">It was stopped early: the run has ${plural(session.done, "row")} of ${count(session.data.rows)}.</p>`}
    ${error && html`<${Failure} error=${error} />`}
    <div class="row"><button class="button primary">Save</button></div></form></${Dialog}>`;
}

const figuresOf = (summary, name) => (summary.differences ? summary.candidates[name] : summary);

function Results({ session, state, set }) {
  const { result, names, data, status } = session;
  const at = Math.max(0, names.indexOf(state.candidate));
  const figures = figuresOf(result.summary, names[at]);
  const look = lookOf(state, at);
  // While rows come, a view costs the worker what the next piece needs: a few are enough.
  const running = status === "running";
  const view = useView(
    running && !filters(look) ? { ...look, top: 0 } : look,
    `${session.turn} ${running ? Math.floor((session.done / data.rows) * 5) : "end"}`,
  );
  const element = useRef(null);
  const tables = Object.fromEntries(
    Object.entries(figures.slices ?? {}).map(([name, rows]) => [
      name,
      liftRows(rows, number(figures.finite_mean)),
    ]),
  );
  const title = `${session.form.loss} of ${names.length > 1 ? `${names[at]}, ` : ""}${data.name}`;
  useEffect(() => {
    if (status !== "running")
      announce(
        `${title}: ${withInterval(number(figures.mean), ...figures.interval.map(number))} over ${plural(figures.count, "row")}`,
      );
  }, [status, session.turn]);
  const table = () => ({
    head: ["column", "slice", "rows", "mean", "low", "high", "lift", "p_adjusted"],
    rows: [
      ["", "all rows", figures.count, number(figures.mean), ...figures.interval.map(number), 0, ""],
      ...Object.entries(figures.slices ?? {}).flatMap(([name, rows]) =>
        rows.map((each) => [
          name,
          each.label,
          each.count,
          number(each.mean),
          ...each.interval.map(number),
          number(each.lift),
          number(each.p_adjusted),
        ]),
      ),
    ],
  });
  return html`<div class="stack" style=${{ gap: "24px" }} ref=${element}>
    <h2 class="visually-hidden">Results</h2>
    ${
      names.length > 1 &&
      html`<div class="row" data-no-export><span class="label" style=${{ width: "auto" }}>Losses of</span>
      <div class="segments" role="group" aria-label="Candidate">
        ${names.map((name, place) => html`<button type="button" key=${name} aria-pressed=${String(place === at)}
        onClick=${() => set({ candidate: place ? name : "" }, true)}>${name}</button>`)}</div></div>`
    }
    <${Headline} session=${session} figures=${figures} title=${title} />
    <${Filters} look=${look} view=${view} state=${state} set=${set} />
    <div class="grid" style=${WIDE}>
      <${Distribution} title="Distribution of losses" sentence=${spread(figures)}
        series=${[{ name: "all rows", ...figures.histogram }]} view=${view} look=${look} state=${state} set=${set}
        xLabel="loss of a row"
        marks=${[
          ["p50", "0.5"],
          ["p99", "0.99"],
        ]
          .map(([label, share]) => ({ x: number(figures.quantiles?.[share]), label }))
          .filter((each) => Number.isFinite(each.x))} />
      <${Slices} title="Slices by lift" sentence=${liftSentence(tables)} tables=${tables} view=${view} look=${look}
        state=${state} set=${set} reference=${number(figures.finite_mean)} referenceLabel="all rows"
        noteHead="lift (Holm)"
        telling=${Object.keys(tables).find((name) => tables[name].some(({ tone }) => tone === "bad"))} />
    </div>
    <${Worst} session=${session} figures=${figures} look=${look} view=${view} at=${at} state=${state} set=${set} />
    ${
      view?.calibration &&
      html`<div class="grid" style=${WIDE}>
      <${Calibration} bins=${view.calibration} name=${names.length > 1 ? names[at] : ""} />
        <${Suspicious} session=${session} look=${look} at=${at} state=${state} set=${set} /></div>`
    }
    ${
      status !== "running" &&
      html`<${Exports} element=${() => element.current} title=${title}
        name=${`${session.form.loss}-${data.name.replace(/\W+/g, "-")}`} value=${result.summary} table=${table}
      rows=${async () => download(`${data.name.replace(/\W+/g, "-")}-rows.csv`, await ask("csv", { look, names: names.length > 1 ? names : [""] }))} />`
    }
  </div>`;
}

/** What grows with the mean, and is read more easily. */
const DERIVED = [
  ["perplexity", "perplexity", Math.exp],
  ["rmse", "RMSE", (mean) => Math.sqrt(Math.max(0, mean))],
];

/** The figures that matter, and how the evaluation goes. */
function Headline({ session, figures, title }) {
  const { done, data, seconds, status, history, result, decided, names } = session;
  const mean = number(figures.mean);
  const [low, high] = figures.interval.map(number);
  const whole = status === "running" || status === "stopped";
  const left = ((data.rows - done) / Math.max(1, done)) * seconds;
  const quantile = (share) => short(number(figures.quantiles?.[share]), 3);
  const facts = [
    ["rows", whole ? `${count(figures.count)} of ${count(data.rows)}` : count(figures.count)],
    ["p50", quantile("0.5")],
    ["p99", quantile("0.99")],
    ["NaN", count(figures.nan_count)],
    ["infinite", count(figures.infinite_count), figures.infinite_count === 0],
    ["ignored", count(figures.ignored_count), figures.ignored_count === 0],
    ...DERIVED.filter(([key]) => figures[key] !== undefined).map(([key, name, of]) => [
      name,
      withInterval(of(mean), of(low), of(high)),
    ]),
  ].filter(([, , hidden]) => !hidden);
  return html`<section class="stack tight">
    <div class="row apart" style=${{ alignItems: "end", gap: "16px 32px" }}>
      <div><p class="quiet small">mean ${title}${figures.clustered ? ", interval by clusters" : ""}</p>
        <p class="big" title=${exact(mean)}>${withInterval(mean, low, high)}</p></div>
      <dl class="facts" style=${{ flex: "1 1 280px" }}>${facts.map(([name, value]) => html`<div key=${name}><dt>
        ${name}</dt><dd>${value}</dd></div>`)}</dl>
      ${history.length > 1 && names.length === 1 && html`<div><p class="quiet small">interval as rows came</p>
        <${Sparkline} values=${history.map((each) => each.mean)} low=${history.map((each) => each.low)}
        high=${history.map((each) => each.high)}
        label="The interval shrank from ${withInterval(history[0].mean, history[0].low, history[0].high)} to ${withInterval(mean, low, high)}"
        width=${160} height=${32} /></div>`}
    </div>
    ${figures.sentence && html`<p class="sentence">
      ${figures.sentence}${figures.small ? " Few rows: the interval is narrower than it should be." : ""}</p>`}
    ${
      status === "running" &&
      html`<div class="stack tight" data-no-export><progress max=${data.rows} value=${done}
        style=${{ width: "100%" }} aria-label="Rows evaluated"></progress>
      <p class="small quiet">
        ${rate(done, seconds)} · ${duration(Math.max(0, Math.round(left)))} left${decided ? ` · decided: ${decided.text}` : ""}
        </p></div>`
    }
    ${status === "done" && html`<p class="small quiet">
      ${plural(done, "row")} in ${duration(Number(seconds.toPrecision(2)))}, ${rate(done, seconds)}</p>`}
    ${status === "stopped" && html`<${Stopped} session=${session} summary=${result.summary} />`}
  </section>`;
}

function spread(figures) {
  const half = number(figures.quantiles?.["0.5"]);
  if (!Number.isFinite(half)) return "No row has a finite loss.";
  const [most, last] = [half, number(figures.quantiles["0.99"])].map((each) => short(each, 3));
  return `Half of the rows lose at most ${most}, one in a hundred more than ${last}. Drag to choose rows.`;
}

function liftSentence(tables) {
  const found = Object.entries(tables)
    .map(([name, rows]) => standing(rows, name, "bad", "worse"))
    .filter(Boolean);
  return `${found.join(" ") || "No slice is clearly worse than all rows."} Choose a slice to see its rows.`;
}

/** The rows with the largest losses: the server's of all rows, the page's of those that pass. */
function Worst({ session, figures, look, view, at, state, set }) {
  const filtered = filters(look);
  const rows = (figures.worst ?? []).map((each) => Number(each.row));
  const kept = useFacts(
    rows,
    filtered || !rows.length ? "" : `${session.turn} ${session.done} ${at} ${rows.join(" ")}`,
  );
  const facts = filtered ? (view?.rows ?? []) : kept;
  const share =
    facts.reduce(
      (sum, each) => sum + (Number.isFinite(each.losses[at]) ? each.losses[at] * each.weight : 0),
      0,
    ) / number(figures.sum);
  const sentence = !facts.length
    ? "None."
    : filtered
      ? facts.length > 1
        ? `The ${facts.length} worst of the rows that pass.`
        : "The row that passes."
      : `${plural(facts.length, "row")} of ${count(figures.count)} ${facts.length === 1 ? "carries" : "carry"} ${Number.isFinite(share) ? percent(share) : "a part"} of the loss. The strip is the gradient by the input: orange should be lower, blue higher.`;
  return html`<${Rows} title="Worst rows" sentence=${sentence} facts=${facts} session=${session} candidates=${[at]}
    state=${state} set=${set} />`;
}

/** Rows whose label may be wrong: the candidate is sure of another class. */
function Suspicious({ session, look, at, state, set }) {
  const [found, setFound] = useState([]);
  const running = session.status === "running";
  useEffect(() => {
    if (!running) ask("suspicious", { look, confidence: SURE, most: 10000 }).then(setFound, () => {});
  }, [session.turn, running, JSON.stringify(look)]);
  const many = session.names.length > 1;
  const save = async () =>
    (await import("../lib/export.js")).exportCsv(
      ["row", "id", "label", "predicted", "confidence", "loss", ...(session.plan?.slices ?? [])],
      found.map((each) => [
        each.row,
        each.id,
        each.label,
        each.predicted[at],
        each.confidence[at],
        each.losses[at],
        ...Object.values(each.slices),
      ]),
      "suspicious-labels",
    );
  const others = many
    ? found.filter((each) => each.predicted.every((guessed) => guessed === each.predicted[at])).length
    : 0;
  const sentence = running
    ? "Once all rows are there."
    : !found.length
      ? `No row has a label of which ${many ? session.names[at] : "the model"} is at least ${percent(SURE)} sure that it is another.`
      : `${plural(found.length, "row")}: the model is at least ${percent(SURE)} sure of another class. Look whether the label is right.${many ? ` In ${others === found.length ? "all" : count(others)} of them all candidates agree with each other.` : ""}`;
  return html`<div class="stack tight"><${Rows} title="Suspicious labels" sentence=${sentence}
    facts=${found.slice(0, 8)} session=${session} candidates=${[at]} state=${state} set=${set}
    actions=${found.length > 0 && html`<button type="button" class="button small"
      onClick=${save} data-no-export>CSV of ${count(found.length)}</button>`} />
    ${found.length > 8 && html`<p class="hint">${plural(found.length - 8, "more row")} in the CSV.</p>`}</div>`;
}
