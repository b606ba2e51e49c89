// What a person takes along: a page, a picture, a table, the numbers.
import { download } from "./dom.js";
import { ask } from "./evaluation.js";

const frame = () =>
  new Promise((resolve) => {
    requestAnimationFrame(resolve);
  });

const escaped = (text) => text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);

/** Replace what only works with a script: controls become text or go, canvases become pictures. */
function still(original) {
  const copy = original.cloneNode(true);
  const canvases = original.querySelectorAll("canvas");
  copy.querySelectorAll("canvas").forEach((each, at) => {
    const image = document.createElement("img");
    image.src = canvases[at].toDataURL();
    image.alt = each.getAttribute("aria-label") ?? "";
    each.replaceWith(image);
  });
  copy
    .querySelectorAll("[data-no-export], input, select, button:not(th button), .segments")
    .forEach((each) => each.remove());
  copy.querySelectorAll("th button").forEach((each) => each.replaceWith(...each.childNodes));
  copy.querySelectorAll("[tabindex], [role=slider]").forEach((each) => {
    each.removeAttribute("tabindex");
    if (each.getAttribute("role") === "slider") each.setAttribute("role", "img");
  });
  copy.querySelectorAll("details").forEach((each) => each.removeAttribute("open"));
  copy.querySelectorAll("a").forEach((each) => each.replaceWith(...each.childNodes));
  return copy;
}

/**
 * Download what is shown as one HTML file, which needs no network and no script.
 * @param {HTMLElement} element
 * @param {string} title
 * @param {string} name of the file, without an ending
 */
export async function exportPage(element, title, name) {
  // Tables behind a summary are drawn when opened.
  const closed = [...element.querySelectorAll("details:not([open])")].filter(
    (each) => !each.closest("[data-no-export]"),
  );
  closed.forEach((each) => {
    each.open = true;
  });
  for (let turn = 0; turn < 60 && closed.some((each) => each.children.length < 2); turn += 1) await frame();
  const copy = still(element);
  closed.forEach((each) => {
    each.open = false;
  });
  const style = await (await fetch(new URL("../style.css", import.meta.url))).text();
  const theme = document.documentElement.dataset.theme ?? "light";
  const when = new Date().toISOString().slice(0, 16).replace("T", " ");
  const page = `<!doctype html>
<html lang="en" data-theme="${theme}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>${escaped(title)}</title><style>${style}</style></head>
<body><main><h1>${escaped(title)}</h1>${copy.outerHTML}<p class="small quiet">Made by Losswire, ${when} UTC.</p></main></body></html>`;
  download(`${name}.html`, page, "text/html;charset=utf-8");
}

const PAINT = [
  "fill",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "fill-opacity",
  "font-size",
  "font-family",
  "font-weight",
  "text-anchor",
];

const MARGIN = 16;

/** Return a copy of a drawing with the colours and fonts that the style sheet gives it. */
function painted(svg) {
  const copy = svg.cloneNode(true);
  const parts = copy.querySelectorAll("*");
  svg.querySelectorAll("*").forEach((each, at) => {
    const style = getComputedStyle(each);
    for (const name of PAINT) parts[at].setAttribute(name, style.getPropertyValue(name));
  });
  copy.querySelectorAll("title").forEach((each) => each.remove());
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const box = svg.getBoundingClientRect();
  // On the page, words may stand out of the drawing a little.
  const [width, height] = [box.width + 2 * MARGIN, box.height + 2 * MARGIN];
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.setAttribute("viewBox", `${-MARGIN} ${-MARGIN} ${width} ${height}`);
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

const loaded = (text) =>
  new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("The browser could not draw the picture."));
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  });

/**
 * Download the large drawings inside of an element as one picture, each under its title.
 * @param {HTMLElement} element
 * @param {string} title
 * @param {string} name
 */
export async function exportPicture(element, title, name) {
  const drawn = [...element.querySelectorAll(".figure .plot > svg")].map((svg) => ({
    ...painted(svg),
    title: svg.closest(".figure").querySelector("h3").textContent,
  }));
  const style = getComputedStyle(document.body);
  const width = Math.max(480, ...drawn.map((each) => each.width)) + 32;
  const height = drawn.reduce((sum, each) => sum + each.height + 40, 64);
  const canvas = Object.assign(document.createElement("canvas"), { width: width * 2, height: height * 2 });
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  context.fillStyle = getComputedStyle(document.documentElement).backgroundColor;
  context.fillRect(0, 0, width, height);
  context.fillStyle = style.color;
  context.font = `600 14px ${style.fontFamily}`;
  context.fillText(title, 16, 32, width - 32);
  let top = 64;
  for (const each of drawn) {
    context.fillText(each.title, 16, top);
    context.drawImage(await loaded(each.text), 16, top + 8, each.width, each.height);
    top += each.height + 40;
  }
  const blob = await new Promise((resolve) => {
    canvas.toBlob(resolve, "image/png");
  });
  download(`${name}.png`, blob);
}

/** Download a value as JSON. @param {any} value @param {string} name */
export const exportJson = (value, name) =>
  download(`${name}.json`, JSON.stringify(value, null, 2), "application/json");

/** Download rows as CSV. @param {string[]} head @param {any[][]} rows @param {string} name */
export const exportCsv = async (head, rows, name) =>
  download(`${name}.csv`, await ask("table", { head, rows }));
