/** One curve of Curves: its options, what else is held, and what was found on it. */

import { cx, Failure, Field, html, Select } from "../lib/dom.js";
import { short } from "../lib/numbers.js";
import { list } from "../lib/words.js";
import { LineKey } from "./plot.js";
import { defaultTemplates, MEANINGS, NOTES, WORDS } from "./sweep.js";

/** Return what a curve is called: its loss, and what differs from the record's defaults. @param {import("./sweep.js").Curve} curve @param {any} info @returns {string} */
export function labelOf({ loss, options, fixed: held }, info) {
  const templates = defaultTemplates(info);
  const changed = [
    ...Object.entries(options).filter(
      ([name, value]) => value !== info.options.find((each) => each.name === name)?.default_value,
    ),
    ...Object.entries(held).filter(([name, value]) => value.trim() !== templates[name]),
  ];
  return changed.length ? `${loss} (${changed.map(([name, value]) => `${name} ${value}`).join(", ")})` : loss;
}

/** Return the slider of a number: the record's range, or the usual part of an open one. */
function sliderOf(option) {
  const standard = Number(option.default_value ?? 0);
  const range = /^([[(])(-?[\d.]+), (inf|[\d.]+)([\])])$/.exec(option.range ?? "");
  if (!range && (option.range || option.type === "int64")) return null;
  if (!range && standard > 0 && standard < 0.01) return { min: -10, max: 0, step: 0.1, isLog: true };
  const low = range ? Number(range[2]) : 0;
  const high = range && range[3] !== "inf" ? Number(range[3]) : Math.max(low + 4, 4 * standard);
  const step = option.type === "int64" ? 1 : (high - low) / 100;
  return {
    min: range?.[1] === "(" ? low + step : low,
    max: range?.[4] === ")" && range[3] !== "inf" ? high - step : high,
    step,
  };
}

function NumberOption({ option, value, wrong, onChange }) {
  const slider = sliderOf(option);
  const number = value ?? option.default_value ?? "";
  const at = slider?.isLog ? Math.log10(Math.max(Number(number), 1e-12)) : Number(number);
  const move = (position) =>
    onChange(slider.isLog ? Number((10 ** position).toPrecision(2)) : Number(position.toPrecision(6)));
  return html`<${Field} label=${option.name} wrong=${wrong}>
    ${(attributes) => html`<div class="row" style=${{ flexWrap: "nowrap" }}>
    ${
      slider &&
      html`<input type="range" class="grow" aria-label="${option.name}, slider" min=${slider.min}
      max=${slider.max} step=${slider.step} value=${at} title=${option.description}
      aria-valuetext=${short(Number(number))} onInput=${(event) => move(Number(event.target.value))} />`
    }
    <input ...${attributes} class="input short num" type="number" step="any"
      value=${number > 0 && number < 1e-3 ? number.toExponential() : number} title=${option.description}
      onInput=${(event) => event.target.value !== "" && onChange(Number(event.target.value))} /></div>`}</${Field}>`;
}

function Option(props) {
  const { option, value, onChange } = props;
  const now = value ?? option.default_value;
  if (option.type === "bool") {
    return html`<label class="check" title=${option.description}>
      <input type="checkbox" checked=${now} onChange=${(event) => onChange(event.target.checked)} /> ${option.name}
      </label>`;
  }
  if (option.type === "string")
    return html`<${Field} label=${option.name}>
    ${(attributes) => html`<${Select} ...${attributes} value=${now} options=${option.choices} onChange=${onChange} />`}
    </${Field}>`;
  return html`<${NumberOption} ...${props} />`;
}

const HIDDEN_OPTIONS = new Set(["dim", "ignore_index"]);

/** Return the sentence that belongs beside a field: of the page's own check, or of the server's. */
function wrongOf(traced, name) {
  if (traced?.problem?.input === name) return traced.problem.text;
  return traced?.error?.violations?.find((each) => each.field.includes(`"${name}"`) || each.field.endsWith(`.${name}`))
    ?.description;
}

/** Write findings with their places, one phrase for each kind: "curvature jumps at −1 and 1". @param {import("./sweep.js").Finding[]} found @returns {string[]} */
export function writeFindings(found) {
  const place = (x) => short(x, 3);
  const written = ({ from, to }) => (from === to ? ["at ", place(from)] : ["from ", `${place(from)} to ${place(to)}`]);
  return [...new Set(found.map(({ kind }) => kind))].map((kind) => {
    const places = found.filter((each) => each.kind === kind).map(written);
    return `${WORDS[kind]} ${places[0][0]}${list([...places.slice(0, 4).map(([, text]) => text), ...(places.length > 4 ? ["more"] : [])])}`;
  });
}

/** One curve: its options and what else is held. @param {{curve: any, info: any, index: number, traced: any, isQuiet: boolean, isPicked: boolean, onPick: () => void, onChange: (curve: any) => void, onRemove: () => void}} props */
export function Card({ curve, info, index, traced, isQuiet, isPicked, onPick, onChange, onRemove }) {
  const templates = { ...defaultTemplates(info), ...curve.fixed };
  const options = info.options.filter((each) => !HIDDEN_OPTIONS.has(each.name));
  const wrongInput = info.inputs.find((each) => wrongOf(traced, each.name));
  const rest =
    traced?.error &&
    !isQuiet &&
    !info.inputs.some((each) => wrongOf(traced, each.name)) &&
    !options.some((each) => wrongOf(traced, each.name));
  return html`<section class="card" aria-label=${labelOf(curve, info)}>
    <header><h2 class="row clip"><${LineKey} index=${index} /><span class="clip" title=${info.summary}>${curve.loss}
      </span></h2>
      <span class="row"><button type="button" class=${cx("button small", isPicked && "primary")}
        aria-pressed=${String(isPicked)} onClick=${onPick}
        title="Shade only what is found on this curve">only this</button>
        <button type="button" class="button small" aria-label="Remove ${labelOf(curve, info)}"
          onClick=${onRemove}>×</button></span></header>
    ${
      traced?.findings &&
      html`<p class="small quiet"
      title=${[...new Set(traced.findings.map(({ kind }) => `${WORDS[kind]}: ${MEANINGS[kind]}`))].join("; ")}>
      ${writeFindings(traced.findings).join(" · ") || "smooth"}
        ${traced.derivativeOf ? "" : " · no gradient with respect to x"}</p>`
    }
    ${NOTES[curve.loss] && html`<p class="hint">${NOTES[curve.loss]}</p>`}
    ${options.map(
      (option) => html`<${Option} key=${option.name} option=${option} value=${curve.options[option.name]}
      wrong=${wrongOf(traced, option.name)}
      onChange=${(value) => onChange({ ...curve, options: { ...curve.options, [option.name]: value } })} />`,
    )}
    <details open=${Boolean(wrongInput)}>
      <summary>held: ${info.inputs
        .filter((each) => templates[each.name])
        .map((each) => `${each.name} ${templates[each.name]}`)
        .join(" · ")}
      </summary>
      <div class="stack tight">${info.inputs.map(
        (input) => html`<${Field} key=${input.name} label=${input.name}
        hint=${input.description} wrong=${wrongOf(traced, input.name)}>${(attributes) => html`
        <input ...${attributes} class="input mono" value=${templates[input.name]}
          placeholder=${input.required ? "" : "none"} spellcheck="false"
          onInput=${(event) => onChange({ ...curve, fixed: { ...curve.fixed, [input.name]: event.target.value } })} />`}
            </${Field}>`,
      )}
        <p class="hint">x is the coordinate; commas part a row, semicolons rows.</p></div></details>
    ${rest && html`<${Failure} error=${traced.error} />`}
  </section>`;
}
