/** Words around numbers. */
import { count } from "./numbers.js";

/**
 * Write a count with its noun: "1 row", "2 rows".
 * @param {number} number
 * @param {string} noun
 * @param {string} many
 * @returns {string}
 */
export const plural = (number, noun, many = `${noun}s`) => `${count(number)} ${Number(number) === 1 ? noun : many}`;

/** Join words: "a", "a and b", "a, b and c". @param {string[]} words @param {string} last @returns {string} */
export const list = (words, last = "and") =>
  words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} ${last} ${words[words.length - 1]}`;

/** Begin with a capital letter. @param {string} text @returns {string} */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/**
 * Say which side of a difference is lower, or that none is seen.
 * @param {number} low
 * @param {number} high of the interval
 * @param {string} below
 * @param {string} above
 * @returns {string}
 */
export const verdict = (low, high, below = "clearly better", above = "clearly worse") =>
  high < 0 ? below : low > 0 ? above : "no difference seen";

const LABELS = {
  native: "native",
  closed_form: "closed form",
  autograd: "torch autograd",
  auto: "auto",
  batchmean: "batch mean",
};

/** Write a name of the contract as words. @param {string} name @returns {string} */
export const words = (name) => LABELS[name] ?? String(name).replaceAll("_", " ");

/** Shorten a text in its middle. @param {string} text @param {number} most @returns {string} */
export const middle = (text, most = 32) =>
  text.length <= most ? text : `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(-Math.floor(most / 2))}`;
