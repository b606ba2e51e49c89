// Single rows: what is known of them, their gradients, and how sure a classifier is of them.
import { Figure, Strip } from "./charts.js";
import { color, cx, html, useEffect, useRef, useState, useWindow } from "./dom.js";
import { ask, gradients } from "./evaluation.js";
import { count, exact, percent, short, signed } from "./numbers.js";
import { plural } from "./words.js";

/** A small picture of a row's pixels. */
function Picture({ values, size = 32 }) {
  const ref = useRef(null);
  const side = Math.sqrt(values.length);
  const draw = () => {
    const context = ref.current.getContext("2d");
    const most = Math.max(...values) || 1;
    context.clearRect(0, 0, side, side);
    context.fillStyle = color("--ink");
    values.forEach((value, at) => {
      context.globalAlpha = Math.max(0, value / most);
      context.fillRect(at % side, Math.floor(at / side), 1, 1);
    });
  };
  useEffect(draw, [values]);
  useWindow("themechange", draw);
  return html`<canvas ref=${ref} width=${side} height=${side} role="img" aria-label="The row's picture"
    style=${{ width: `${size}px`, height: `${size}px`, imageRendering: "pixelated", display: "block", border: "1px solid var(--line)" }}>
    </canvas>`;
}

/** Return the column that holds small pictures, if one does. */
const pictureOf = (data) =>
  data?.columns.find(
    (each) =>
      /picture|image|pixel/i.test(each.name) && each.width > 4 && Number.isInteger(Math.sqrt(each.width)),
  )?.name;

/** Return pictures and gradients of some rows, by row. */
function useDetails(rows, session, candidates, quiet) {
  const [found, set] = useState({ pictures: {}, gradients: {} });
  const picture = pictureOf(session.data);
  const key = JSON.stringify([rows, candidates, session.turn, quiet]);
  useEffect(() => {
    if (quiet || !rows.length || !session.plan) return undefined;
    let here = true;
    const load = async () => {
      const pictures = picture ? await ask("rowValues", { rows, names: [picture] }) : [];
      const slopes = await Promise.all(candidates.map((each) => gradients(rows, each).catch(() => null)));
      if (!here) return;
      set({
        pictures: Object.fromEntries(pictures.map((each, at) => [rows[at], each[picture]])),
        gradients: Object.fromEntries(rows.map((row, at) => [row, slopes.map((each) => each?.[at])])),
      });
    };
    // A brush that is still moving changes the rows many times a second.
    const timer = setTimeout(load, 150);
    return () => {
      here = false;
      clearTimeout(timer);
    };
  }, [key]);
  return found;
}

/**
 * Return what is known of some rows; `key` changes with them, and is empty for none.
 * @param {number[]} rows
 * @param {string} key
 * @returns {any[]}
 */
export function useFacts(rows, key) {
  const [found, set] = useState([]);
  useEffect(() => {
    let here = true;
    if (key)
      ask("facts", { rows }).then(
        (facts) => here && set(facts),
        () => {},
      );
    return () => {
      here = false;
    };
  }, [key]);
  return found;
}

const FIRST = 8;

/**
 * Rows with what is known of them, and the gradient of each.
 * @param {{title: string, sentence: string, facts: any[], session: any, candidates: number[], state: any,
 *   set: any, actions?: any, difference?: boolean}} props `candidates`: their positions
 */
export function Rows({ title, sentence, facts, session, candidates, state, set, actions, difference }) {
  const [open, setOpen] = useState(null);
  const [more, setMore] = useState(false);
  const shown = more ? facts : facts.slice(0, FIRST);
  const { pictures, gradients: slopes } = useDetails(
    shown.map((each) => each.row),
    session,
    candidates,
    session.status === "running",
  );
  const many = candidates.length > 1;
  const labelled = facts.some((each) => each.label !== null);
  const drawn = facts.some((each) => pictures[each.row]);
  const columns = Object.keys(facts[0]?.slices ?? {}).filter((each) => each !== session.plan?.label);
  const named = (what) =>
    candidates.map(
      (each) =>
        html`<th key=${what + each} scope="col" class="num">${many ? `${what} ${session.names[each]}` : what}</th>`,
    );
  const pick = (row) =>
    set(
      {
        pick: state.pick.includes(String(row))
          ? state.pick.filter((each) => each !== String(row))
          : [...state.pick, String(row)],
      },
      true,
    );
  const most = Math.max(
    1e-300,
    ...facts.flatMap(({ row }) =>
      (slopes[row] ?? []).flatMap((each) => (each ?? []).map(Math.abs).filter(Number.isFinite)),
    ),
  );
  return html`<section class="figure"><header><h3>${title}</h3><div class="row">${actions}</div></header>
    <p class="small quiet sentence">${sentence}</p>
    ${
      facts.length > 0 &&
      html`<div class="table-wrap"><table><thead><tr>
      <td data-no-export></td>${drawn && html`<td></td>`}<th scope="col">id</th>
      ${difference && html`<th scope="col" class="num">difference</th>`}${named("loss")}
      ${labelled && [html`<th key="label" scope="col" class="num">label</th>`, named("predicted")]}
      ${columns.map((each) => html`<th key=${each} scope="col">${each}</th>`)}
      ${candidates.map((each) => html`<th key=${each} scope="col">gradient${many && ` ${session.names[each]}`}
        </th>`)}<td data-no-export></td></tr></thead>
    <tbody>${shown.map(
      (each) => html`<tr key=${each.row} class=${cx(state.pick.includes(String(each.row)) && "chosen")}>
      <td data-no-export><input type="checkbox" checked=${state.pick.includes(String(each.row))}
        onChange=${() => pick(each.row)} aria-label="Pick row ${each.id}" /></td>
      ${drawn && html`<td>${pictures[each.row] && html`<${Picture} values=${pictures[each.row]} />`}</td>`}
      <td class="nowrap">${each.id}</td>
      ${difference && html`<td class="num" title=${exact(each.losses[candidates[0]] - each.losses[candidates[1]])}>
        ${short(each.losses[candidates[0]] - each.losses[candidates[1]], 4)}</td>`}
      ${candidates.map((at) => html`<td key=${at} class="num" title=${exact(each.losses[at])}>
        ${short(each.losses[at], 4)}</td>`)}
      ${labelled && [html`<td key="label" class="num">${each.label}
        </td>`, ...candidates.map((at) => html`<td key="predicted${at}" class="num nowrap">
        ${each.predicted[at]} <span class="quiet small">${percent(each.confidence[at])}</span></td>`)]}
      ${columns.map((name) => html`<td key=${name}>${each.slices[name]}</td>`)}
      ${candidates.map(
        (at, turn) =>
          html`<td key="gradient${at}">${
            slopes[each.row]?.[turn] &&
            (slopes[each.row][turn].length === 1
              ? html`<span title=${exact(slopes[each.row][turn][0])}>
                ${signed(slopes[each.row][turn][0], (value) => short(value, 3))}</span>`
              : html`<${Strip} values=${slopes[each.row][turn]} most=${most} width=${many ? 112 : 160}
                label="Gradient of the input in row ${each.id}: ${slopes[
                  each.row
                ][turn]
                  .map((value) => short(value, 2))
                  .slice(0, 16)
                  .join(", ")}" />`)
          }</td>`,
      )}
      <td data-no-export><button type="button" class="button small" aria-expanded=${String(open === each.row)}
        aria-label="Open row ${each.id}" onClick=${() => setOpen(open === each.row ? null : each.row)}>
        ${open === each.row ? "Close" : "Open"}</button></td></tr>
      ${open === each.row && html`<tr key="open${each.row}"><td colspan="40">
        <${RowDetail} fact=${each} session=${session} candidates=${candidates} picture=${pictures[each.row]}
        slopes=${slopes[each.row]} /></td></tr>`}`,
    )}
    </tbody></table></div>
    ${facts.length > FIRST && html`<div><button type="button" class="button small"
      onClick=${() => setMore(!more)} data-no-export>${more ? "Fewer rows" : `All ${count(facts.length)} rows`}
      </button></div>`}`
    }
  </section>`;
}

/** Everything that is known of one row: inputs, and the gradient of each. */
function RowDetail({ fact, session, candidates, picture, slopes }) {
  const [values, set] = useState(null);
  const { plan, names } = session;
  const shared = plan.inputs.map((each) => each.column);
  useEffect(() => {
    ask("rowValues", {
      rows: [fact.row],
      names: [...shared, ...plan.candidates.map(({ inputs }) => inputs[0].column)],
    }).then(
      ([found]) => set(found),
      () => {},
    );
  }, [fact.row]);
  if (!values) return null;
  return html`<div class="row" style=${{ gap: "24px", alignItems: "start" }}>
    ${picture && html`<${Picture} values=${picture} size=${128} />`}
    <dl class="facts"><div><dt>row</dt><dd>${fact.row}</dd></div>${shared.map((name) => html`<div key=${name}><dt>
      ${name}</dt><dd>${[values[name]].flat().slice(0, 8).join(", ")}</dd></div>`)}
      ${fact.weight !== 1 && html`<div><dt>weight</dt><dd>${fact.weight}</dd></div>`}</dl>
    ${candidates.map((at, turn) => {
      const own = [values[plan.candidates[at].inputs[0].column]].flat();
      return html`<div class="table-wrap" key=${at}><table class="twin"><caption class="small quiet">
        ${names.length > 1 ? names[at] : plan.candidates[at].inputs[0].column}</caption>
        <thead><tr><th scope="col">place</th><th scope="col" class="num">input</th>
          <th scope="col" class="num">gradient</th></tr></thead>
        <tbody>${own.slice(0, 32).map((value, place) => html`<tr key=${place}
          class=${cx(place === fact.label && own.length > 1 && "chosen")}><td>${place}</td><td class="num">
          ${short(value, 5)}</td><td class="num">${slopes?.[turn] ? short(slopes[turn][place], 4) : ""}</td></tr>`)}
          </tbody></table>
        ${own.length > 32 && html`<p class="hint">${plural(own.length - 32, "more value")}</p>`}</div>`;
    })}</div>`;
}

/** Return a Wilson interval of a share. */
function wilson(hits, n) {
  const z = 1.96;
  const middle = (hits + (z * z) / 2) / (n + z * z);
  const half = (z / (n + z * z)) * Math.sqrt((hits * (n - hits)) / n + (z * z) / 4);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

/**
 * How often a classifier is right when it is so sure.
 * @param {{bins: {count: number, confidence: number, right: number}[], name: string}} props
 */
export function Calibration({ bins, name }) {
  const full = bins
    .filter((each) => each.count)
    .map(({ count: n, confidence, right }) => ({
      n,
      confidence: confidence / n,
      right: right / n,
      interval: wilson(right, n),
    }));
  const total = full.reduce((sum, each) => sum + each.n, 0);
  if (!total) return html`<${Figure} title="Calibration" sentence="No row to judge by." />`;
  const error = full.reduce(
    (sum, each) => sum + (each.n / total) * Math.abs(each.right - each.confidence),
    0,
  );
  const sure = full.reduce((sum, each) => sum + each.n * each.confidence, 0) / total;
  const right = full.reduce((sum, each) => sum + each.n * each.right, 0) / total;
  const [low, high] = wilson(right * total, total);
  const stance =
    total < 30
      ? "Too few rows to judge by."
      : sure > high
        ? "It is surer than it should be."
        : sure < low
          ? "It is less sure than it could be."
          : "On the whole it is as sure as it should be.";
  const interval = `[${percent(low, 3)}, ${percent(high, 3)}]`;
  const sentence = [
    `${name || "The model"} is right in ${percent(right, 3)} ${interval} of ${plural(total, "row")}`,
    `and sure of ${percent(sure, 3)} on average. ${stance}`,
    `Expected calibration error ${short(error, 2)} (ten bins). From the rows kept in this page.`,
  ].join(" ");
  const shares = (each) => [each.confidence, each.right, ...each.interval].map((share) => percent(share, 3));
  const table = {
    head: ["mean confidence", "right", "from", "to", "rows"],
    rows: full.map((each) => [...shares(each), count(each.n)]),
  };
  const [size, left, bottom] = [240, 40, 32];
  const x = (value) => left + value * (size - 8);
  const y = (value) => 8 + (1 - value) * (size - bottom - 8);
  return html`<${Figure} title="Calibration" sentence=${sentence}
    table=${table}>
    <div class="plot"><svg width=${size + left} height=${size + 8} role="img" aria-label="Reliability: ${sentence}">
      <g class="axis" aria-hidden="true">${[0, 0.5, 1].map((each) => html`<g key=${each}>
        <path d="M${left} ${y(each)}H${x(1)}" /><text x=${left - 6} y=${y(each) + 4} text-anchor="end">
        ${percent(each)}</text><text x=${x(each)} y=${y(0) + 16} text-anchor="middle">${percent(each)}</text></g>`)}
        <text x=${x(1)} y=${size + 2} text-anchor="end">how sure it is</text><text x=${x(0) + 6} y=${y(1) + 16}>how often right</text></g>
      <path d="M${x(0)} ${y(0)}L${x(1)} ${y(1)}" stroke="var(--mark)" stroke-dasharray="4 4" />
      ${full.map(
        (
          each,
        ) => html`<g key=${each.confidence} stroke="var(--c0)" fill="var(--c0)"><title>
          ${`${plural(each.n, "row")}: sure of ${percent(each.confidence, 3)}, right in ${percent(each.right, 3)}`}
          </title>
        <path d="M${x(each.confidence)} ${y(each.interval[0])}V${y(each.interval[1])}" stroke-width="1.5" />
          <circle cx=${x(each.confidence)} cy=${y(each.right)} r=${3 + 5 * Math.sqrt(each.n / total)}
          fill-opacity="0.6" /></g>`,
      )}
    </svg></div></${Figure}>`;
}
