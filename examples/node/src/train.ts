/**
 * Trains a two-layer network on points in three rings, with losses and gradients from the server.
 *
 * The model, its data and its weights are those of examples/languages.md, so that every language
 * reaches the same loss.
 */

import { once } from 'node:events';

import type { LossServiceClient } from './generated/losswire/v1/LossService.js';
import type { EvaluateStreamResponse__Output } from './generated/losswire/v1/EvaluateStreamResponse.js';
import { float32, int64, read } from './tensors.js';

const POINTS = 256;
const HIDDEN = 16;
const CLASSES = 3;
const STEPS = 300;
const RATE = 0.5;

/** A linear congruential generator of numbers in [0, 1), the same in every language. */
function generator(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function fill(length: number, make: () => number): Float64Array {
  return Float64Array.from({ length }, make);
}

export async function train(client: LossServiceClient): Promise<void> {
  const random = generator();
  const points = fill(POINTS * 2, () => 2 * random() - 1);
  const classes = Array.from({ length: POINTS }, (_, i) => {
    const square = points[2 * i]! ** 2 + points[2 * i + 1]! ** 2;
    return square < 0.25 ? 0 : square < 0.75 ? 1 : 2;
  });
  const w1 = fill(2 * HIDDEN, () => 2 * random() - 1);
  const b1 = fill(HIDDEN, () => random() - 0.5);
  const w2 = fill(HIDDEN * CLASSES, () => random() - 0.5);
  const b2 = new Float64Array(CLASSES);

  const hidden = new Float64Array(POINTS * HIDDEN);
  const logits = new Float64Array(POINTS * CLASSES);
  const target = int64(classes, [POINTS]);

  function forward(): void {
    for (let i = 0; i < POINTS; i++) {
      for (let j = 0; j < HIDDEN; j++) {
        const sum = b1[j]! + points[2 * i]! * w1[j]! + points[2 * i + 1]! * w1[HIDDEN + j]!;
        hidden[i * HIDDEN + j] = Math.max(sum, 0);
      }
      for (let k = 0; k < CLASSES; k++) {
        let sum = b2[k]!;
        for (let j = 0; j < HIDDEN; j++) sum += hidden[i * HIDDEN + j]! * w2[j * CLASSES + k]!;
        logits[i * CLASSES + k] = sum;
      }
    }
  }

  /** Propagates the gradient of the logits back to the weights, and takes one step. */
  function backward(gradient: number[]): void {
    const dw1 = new Float64Array(w1.length);
    const db1 = new Float64Array(b1.length);
    const dw2 = new Float64Array(w2.length);
    const db2 = new Float64Array(b2.length);
    for (let i = 0; i < POINTS; i++) {
      for (let k = 0; k < CLASSES; k++) db2[k]! += gradient[i * CLASSES + k]!;
      for (let j = 0; j < HIDDEN; j++) {
        const active = hidden[i * HIDDEN + j]!;
        if (active <= 0) continue;
        let inner = 0;
        for (let k = 0; k < CLASSES; k++) {
          const outer = gradient[i * CLASSES + k]!;
          dw2[j * CLASSES + k]! += active * outer;
          inner += outer * w2[j * CLASSES + k]!;
        }
        dw1[j]! += points[2 * i]! * inner;
        dw1[HIDDEN + j]! += points[2 * i + 1]! * inner;
        db1[j]! += inner;
      }
    }
    descend(w1, dw1);
    descend(b1, db1);
    descend(w2, dw2);
    descend(b2, db2);
  }

  // One call for the whole training: a request and a response for each step.
  const call = client.EvaluateStream();
  const answers = call[Symbol.asyncIterator]() as AsyncIterator<EvaluateStreamResponse__Output>;
  let loss = NaN;
  for (let step = 0; step < STEPS; step++) {
    forward();
    call.write({
      id: step,
      evaluation: {
        loss: 'cross_entropy',
        inputs: { input: float32(logits, [POINTS, CLASSES]), target },
        reduction: 'REDUCTION_MEAN',
        gradients_for: ['input'],
      },
    });
    const answer = await answers.next();
    const outcome = answer.done ? undefined : answer.value.outcome;
    if (!outcome?.result) throw new Error(`step ${step} failed: ${JSON.stringify(outcome?.error)}`);
    loss = read(outcome.result.loss)[0]!;
    if (step % 50 === 0) console.log(`step ${step} loss ${loss.toPrecision(9)}`);
    backward(read(outcome.result.gradients['input'] ?? null));
  }
  call.end();
  await once(call, 'status');

  forward();
  const right = classes.filter((wanted, i) => best(logits, i) === wanted).length;
  console.log(`final loss ${loss.toPrecision(9)}`);
  console.log(`accuracy ${right} of ${POINTS}`);
}

function descend(weights: Float64Array, gradient: Float64Array): void {
  for (let i = 0; i < weights.length; i++) weights[i]! -= RATE * gradient[i]!;
}

function best(logits: Float64Array, row: number): number {
  const scores = logits.subarray(row * CLASSES, (row + 1) * CLASSES);
  return scores.indexOf(Math.max(...scores));
}
