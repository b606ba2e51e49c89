/** Preact and htm in one place, and the few components that every screen needs. */
import { html, h, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact-htm.js";

export {
  Component,
  createContext,
  h,
  html,
  render,
  useCallback,
  useContext,
  useEffect,
  useErrorBoundary,
  useLayoutEffect,
  useMemo,
  useReducer,
  useRef,
  useState,
} from "../vendor/preact-htm.js";

/** Join the class names that are set. @param {...(string|false|null|undefined)} names @returns {string} */
export const cx = (...names) => names.filter(Boolean).join(" ");

/** Return an id that is unique in the page and stable in a component. @returns {string} */
export const useId = () => useMemo(() => `i${++lastId}`, []);
let lastId = 0;

/** NaN differs from itself: as an input of an effect it would run it again without end. */
const same = (value) => (Number.isNaN(value) ? "NaN" : value);

/** Return a value once it has not changed for some time. @template T @param {T} value @param {number} ms @returns {T} */
export function useDebounced(value, ms = 150) {
  const [settled, settle] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => settle(value), ms);
    return () => clearTimeout(timer);
  }, [same(value), ms]);
  return settled;
}

/**
 * Run an asynchronous function whenever its inputs change and abort the run before.
 * `value` is the last result, also while `busy`, so that a page does not jump.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} work
 * @param {any[]} inputs
 * @returns {{value: T|undefined, error: Error|null, busy: boolean, again: () => void}}
 */
export function useAsync(work, inputs) {
  const [state, set] = useState({ value: undefined, error: null, busy: true });
  const [turn, again] = useState(0);
  useEffect(() => {
    const control = new AbortController();
    set((old) => ({ ...old, busy: true }));
    work(control.signal).then(
      (value) => control.signal.aborted || set({ value, error: null, busy: false }),
      (error) => control.signal.aborted || set((old) => ({ ...old, error, busy: false })),
    );
    return () => control.abort();
  }, [...inputs.map(same), turn]);
  return { ...state, again: () => again((count) => count + 1) };
}

/** Measure an element's width in CSS pixels. @returns {[{current: Element}, number]} the ref, and the width */
export function useWidth(initial = 640) {
  const ref = useRef(null);
  const [width, set] = useState(initial);
  useLayoutEffect(() => {
    const measure = () => ref.current && set(Math.max(160, Math.floor(ref.current.clientWidth)));
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return [ref, width];
}

/** Call a function with the window's events of a name. @param {string} name @param {(event: any) => void} react */
export function useWindow(name, react) {
  const latest = useRef(react);
  latest.current = react;
  useEffect(() => {
    const listen = (event) => latest.current(event);
    addEventListener(name, listen);
    return () => removeEventListener(name, listen);
  }, [name]);
}

/**
 * Read a colour of the theme, for canvases. Redraw on the window's event "themechange".
 * @param {string} token such as "--ink"
 * @returns {string}
 */
export const color = (token) => getComputedStyle(document.documentElement).getPropertyValue(token).trim();

/** Tell screen readers something. @param {string} text */
export function announce(text) {
  const place = document.getElementById("live");
  if (place && place.textContent !== text) place.textContent = text;
}

/** Show a message for some seconds. @param {string} text @param {number} seconds */
export function toast(text, seconds = 4) {
  const box = Object.assign(document.createElement("div"), { className: "toast", textContent: text });
  document.getElementById("toasts").append(box);
  announce(text);
  setTimeout(() => box.remove(), seconds * 1000);
}

/** Offer a file for download. @param {string} name @param {Blob|string} content @param {string} type */
export function download(name, content, type = "text/plain;charset=utf-8") {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Copy a text and say so. @param {string} text @param {string} what such as "The link" */
export async function copy(text, what = "It") {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} is copied.`);
  } catch {
    toast("The browser does not allow copying. Select the text and press Ctrl+C.");
  }
}

/**
 * A choice of few, side by side.
 * @param {{label: string, value: any, options: (string|[any, string])[], onChange: (value: any) => void, small?: boolean}} props
 */
export function Segments({ label, value, options, onChange, small }) {
  return html`<div class=${cx("segments", small && "small")} role="group" aria-label=${label}>
    ${options
      .map((each) => (Array.isArray(each) ? each : [each, each]))
      .map(
        ([key, text]) => html`
      <button type="button" key=${key} aria-pressed=${String(key === value)} onClick=${() => onChange(key)}>${text}</button>`,
      )}
  </div>`;
}

/**
 * A label with a control: pass the control as a function of its id.
 * @param {{label: any, hint?: any, wrong?: string, aside?: any, children: (attributes: {id: string, "aria-invalid": string, "aria-describedby": string}) => any}} props
 */
export function Field({ label, hint, wrong, aside, children }) {
  const id = useId();
  const attributes = { id, "aria-invalid": String(Boolean(wrong)), "aria-describedby": `${id}-hint` };
  return html`<div class="field">
    <label for=${id}><span>${label}</span>${aside}</label>
    ${children(attributes)}
    <div id="${id}-hint">${wrong ? html`<p class="wrong">${wrong}</p>` : hint && html`<p class="hint">${hint}</p>`}</div>
  </div>`;
}

/**
 * A select box.
 * @param {{value: any, options: (string|[string, string])[], onChange: (value: string) => void}} props other props go to the select
 */
export function Select({ value, options, onChange, class: name, ...rest }) {
  return html`<select class=${cx("input", name)} value=${value} onChange=${(event) => onChange(event.target.value)} ...${rest}>
    ${options
      .map((each) => (Array.isArray(each) ? each : [each, each]))
      .map(
        ([key, text]) => html`
      <option key=${key} value=${key} selected=${key === value}>${text}</option>`,
      )}
  </select>`;
}

/** Grey places that keep the layout while something loads. @param {{height?: number, label?: string}} props */
export const Skeleton = ({ height = 16, label = "Loading" }) => html`
  <div class="skeleton" style=${{ height: `${height}px` }} role="img" aria-label=${label}></div>`;

/** A screen without data: one sentence and one button. @param {{children: any, action?: string, onAction?: () => void}} props */
export const Empty = ({ children, action, onAction }) => html`<div class="empty"><p>${children}</p>
  ${action && html`<button type="button" class="button primary" onClick=${onAction}>${action}</button>`}</div>`;

/**
 * An error with what to do next.
 * @param {{error: any, onRetry?: () => void}} props a Problem, or any other error
 */
export function Failure({ error, onRetry }) {
  const violations = error.violations ?? [];
  return html`<div class="note error stack tight" role="alert">
    <p><b>${violations.length ? "The server does not accept this" : (error.title ?? "That did not work")}.</b> ${violations.length ? "" : error.message}</p>
    ${
      violations.length > 0 &&
      html`<ul class="plain">${violations.map(
        (each) => html`
      <li key=${each.field + each.description}><code>${each.field}</code> ${each.description}</li>`,
      )}</ul>`
    }
    <p class="row">${error.hint && html`<span>${error.hint}</span>`}
      ${onRetry && html`<button type="button" class="button small" onClick=${onRetry}>Try again</button>`}
      ${error.requestId && html`<small class="quiet">request ${error.requestId}</small>`}</p>
  </div>`;
}

/**
 * A modal dialog; Escape and a click outside close it.
 * @param {{title: string, onClose: () => void, children: any, class?: string, bare?: boolean}} props
 */
export function Dialog({ title, onClose, children, class: name, bare }) {
  const ref = useRef(null);
  // Before the next key, which may be Escape already.
  useLayoutEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    return () => before?.focus?.();
  }, []);
  return h(
    "dialog",
    {
      ref,
      class: name,
      "aria-label": title,
      onClose,
      onClick: (event) => event.target === ref.current && ref.current.close(),
    },
    bare
      ? children
      : html`<header><h2>${title}</h2>
    <button type="button" class="button small" onClick=${() => ref.current.close()}>Close</button></header>
    <div class="body">${children}</div>`,
  );
}
