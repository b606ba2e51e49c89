/** The file of an evaluation, and what its columns are: guessed, and editable. */
import { html, Field, Select, useRef, useState } from "../lib/dom.js";
import { choose, start, stop } from "../lib/evaluation.js";
import { candidateNames, faults, fits, guess, rowInputs, takesRows } from "../lib/guess.js";
import { bytes } from "../lib/numbers.js";
import { plural } from "../lib/words.js";

const ACCEPTED = ".csv,.tsv,.txt,.ndjson,.jsonl,.json,.npy,.parquet";

const FileButton = ({ onFiles, text }) => {
  const input = useRef(null);
  return html`<button type="button" class="button" onClick=${() => input.current.click()}>${text}</button>
    <input ref=${input} type="file" hidden multiple accept=${ACCEPTED} aria-label=${text}
      onChange=${(event) => onFiles([...event.target.files])} />`;
};

/** The empty screen. @param {{onFiles: (files: File[]) => void, onExample: () => void}} props */
export const Start = ({ onFiles, onExample }) => html`<div class="drop">
  <p class="sentence">Drop a file with a model's predictions and the labels: the mean loss with its
    interval, the slices where it is high, and the rows that make it so.</p>
  <p class="small quiet">CSV, TSV, JSON lines, .npy or .parquet; several files of the same rows are joined.
    Two columns of predictions are compared. Rows go to this server only, in pieces.</p>
  <div class="row"><button type="button" class="button primary" onClick=${onExample}>Try with digits</button>
    <${FileButton} onFiles=${onFiles} text="Choose files" /></div></div>`;

/**
 * What the columns are; folded once the evaluation runs.
 * @param {{session: any, losses: any[], onFiles: (files: File[]) => void, set: (patch: any) => void, open:
 *   boolean}} props
 */
export function Setup({ session, losses, onFiles, set, open: unfolded }) {
  const [shown, show] = useState(unfolded);
  const { data, form, info, status } = session;
  const wrong = faults(form, info, data);
  const columns = data.columns;
  const change = (patch) => {
    if (status === "running") stop();
    choose({ ...form, ...patch }, losses);
  };
  const [varying, ...others] = rowInputs(info);
  const chosen = [
    form.loss,
    `${varying.name}: ${form.candidates.join(", ")}`,
    ...others.filter(({ name }) => form.inputs[name]).map(({ name }) => `${name}: ${form.inputs[name]}`),
    form.slices.length > 0 && `slices: ${form.slices.join(", ")}`,
  ].filter(Boolean);
  const pickable = (input) =>
    columns
      .filter((each) => fits(info, input, each))
      .map(({ name, shape }) => [name, shape.length > 1 ? `${name} (${shape.slice(1).join(" × ")})` : name]);
  const dirty = status !== "ready" && session.plan && !session.result;
  return html`<section class="card" data-no-export>
    <header><p><b>${data.name}</b> <span class="quiet">
      ${plural(data.rows, "row")}${data.size ? `, ${bytes(data.size)}` : ""}${data.note ? `: ${data.note}` : ""}
      </span></p>
      <div class="row">${!shown && html`<button type="button" class="button small"
        onClick=${() => show(true)}>Change columns</button>`}<${FileButton} onFiles=${onFiles} text="Other files" />
        </div></header>
    ${shown && columns.filter(({ name, stray }) => stray && name !== form.ids).map(({ name, stray }) => html`<p
      class="note warning" key=${name}>${name} is read as text, because row ${stray.row} has "${stray.text}".</p>`)}
    ${
      !shown
        ? html`<p class="small quiet">${chosen.join(" · ")}</p>`
        : html`<div class="grid">
      <div class="stack"><${Field} label="Loss" hint=${info.summary}>${(own) =>
        html`<${Select} ...${own} value=${form.loss} options=${losses.filter(takesRows).map(({ name }) => name)}
          onChange=${(
          loss,
        ) => {
          set({ loss });
          change(guess(columns, losses, loss));
        }} />`}</${Field}>
        <${Options} info=${info} form=${form} change=${change} /></div>
      <div class="stack"><${Candidates} input=${varying} form=${form} columns=${columns} change=${change}
        options=${pickable(varying.name)} wrong=${wrong[varying.name]} />
        ${others.map(
          ({ name, description, required }) =>
            html`<${Field} key=${name} label=${name} hint=${description} wrong=${wrong[name]}>${(own) => html`
          <${Select} ...${own} value=${form.inputs[name] ?? ""}
            options=${[["", required ? "choose a column" : "none"], ...pickable(name)]}
            onChange=${(column) => change({ inputs: { ...form.inputs, [name]: column } })} />`}</${Field}>`,
        )}</div>
      <div class="stack"><${SliceChoice} columns=${columns} form=${form} change=${change} />
        ${[
          ["ids", "Ids of rows", () => true],
          ["weights", "Weights of rows", (each) => each.type !== "text"],
          ["clusters", "Rows that belong together", (each) => each.type !== "float32"],
        ].map(
          ([key, label, test]) =>
            html`<${Field} key=${key} label=${label}
              hint=${key === "clusters" && form.clusters ? "Intervals allow for rows of one cluster being alike." : ""}>
              ${(
              own,
            ) => html`
          <${Select} ...${own} value=${form[key]}
            options=${[["", "none"], ...columns.filter((each) => each.shape.length === 1 && test(each) && (key === "weights" || each.type !== "float64")).map(({ name }) => name)]}
            onChange=${(column) => change({ [key]: column })} />`}</${Field}>`,
        )}</div></div>`
    }
    ${(dirty || (shown && status !== "ready")) && html`<div class="row">
      <button type="button" class="button" disabled=${Object.keys(wrong).length > 0}
      onClick=${() => start()}>Evaluate again</button></div>`}
  </section>`;
}

/** The columns of the first input: several are compared. */
function Candidates({ input, form, columns, change, options, wrong }) {
  const put = (at, column) =>
    change({
      candidates: form.candidates.map((each, place) => (place === at ? column : each)).filter(Boolean),
    });
  const names = candidateNames(form.candidates);
  const free = options.filter(([name]) => !form.candidates.includes(name));
  const all = form.candidates.length ? form.candidates : [""];
  // Predictions of another model have the same shape, and are not what something else is.
  const shape = (name) => String(columns.find((each) => each.name === name)?.shape);
  const next = free.find(
    ([name]) =>
      shape(name) === shape(all[0]) &&
      ![...Object.values(form.inputs), form.ids, form.weights, form.clusters].includes(name),
  );
  return html`<div class="stack tight">${all.map(
    (column, at) =>
      html`<${Field} key=${column + at} label=${all.length > 1 ? `${input.name} of ${names[at]}` : input.name}
        hint=${at === all.length - 1 ? input.description : ""} wrong=${at === 0 ? wrong : ""}>${(
        own,
      ) => html`
      <${Select} ...${own} value=${column}
        options=${[["", all.length > 1 ? "leave out" : "choose a column"], ...options.filter(([name]) => name === column || free.some(([other]) => other === name))]}
        onChange=${(name) => (column ? put(at, name) : change({ candidates: [name].filter(Boolean) }))} />`}
          </${Field}>`,
  )}
    ${next && form.candidates.length < 8 && html`<button type="button" class="button small"
      onClick=${() => change({ candidates: [...form.candidates, next[0]] })}>Compare with another column</button>`}
      </div>`;
}

const SliceChoice = ({ columns, form, change }) => {
  const able = columns.filter((each) => each.distinct > 1 && each.distinct <= 4096);
  const flip = (name) =>
    change({
      slices: form.slices.includes(name)
        ? form.slices.filter((each) => each !== name)
        : [...form.slices, name].slice(0, 12),
    });
  return html`<fieldset class="field"><legend>Slices by</legend>
    ${able.length === 0 && html`<p class="hint">No column has few enough different values.</p>`}
    <div>${able.map(({ name, distinct }) => html`<label class="check" key=${name}>
      <input type="checkbox" checked=${form.slices.includes(name)} onChange=${() => flip(name)} />
      ${name} <span class="quiet small">${plural(distinct, "value")}</span></label>`)}</div></fieldset>`;
};

function Options({ info, form, change }) {
  const put = (name, value) => {
    const options = { ...form.options };
    if (value === "" || value === undefined) delete options[name];
    else options[name] = value;
    change({ options });
  };
  if (!info.options.length) return null;
  return html`<details><summary>Options of the loss</summary><div class="stack tight">${info.options.map(
    ({ name, type, default_value: standard, range, choices, description }) => html`
    <${Field} key=${name} label=${name} hint=${`${description}${range ? ` In ${range}.` : ""}`}>${(own) =>
      type === "bool"
        ? html`<${Select} ...${own} value=${String(form.options[name] ?? standard ?? false)}
          options=${["true", "false"]} onChange=${(value) => put(name, value === "true")} />`
        : choices?.length
          ? html`<${Select} ...${own} value=${form.options[name] ?? standard} options=${choices}
            onChange=${(value) => put(name, value)} />`
          : html`<input class="input" inputmode="decimal" placeholder=${standard ?? ""}
            value=${form.options[name] ?? ""} ...${own}
            onChange=${(event) => put(name, event.target.value.trim() === "" ? "" : Number(event.target.value))} />`}
            </${Field}>`,
  )}</div></details>`;
}
