/** Explore: one loss, its inputs and options, and everything about the answer. */
import { html } from "../lib/dom.js";

export default function Explore() {
  return html`<div class="screen"><header><h1>Explore</h1></header></div>`;
}
