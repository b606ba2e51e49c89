/** Replays the conformance vectors and compares every answer; the rules are in tests/conformance/README.md. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import type { ServiceError } from '@grpc/grpc-js';

import { connect, distinct, methods, readStatus, statusOf } from './client.js';
import type { EvaluateManyResponse__Output } from './generated/losswire/v1/EvaluateManyResponse.js';
import type { EvaluateResponse__Output } from './generated/losswire/v1/EvaluateResponse.js';
import type { EvaluationOutcome__Output } from './generated/losswire/v1/EvaluationOutcome.js';
import type { EvaluationResult__Output } from './generated/losswire/v1/EvaluationResult.js';
import type { Tensor__Output } from './generated/losswire/v1/Tensor.js';
import { read } from './tensors.js';

type Tolerance = { ulps: 0 } | { ulps: number; of: keyof typeof EPSILONS; scale: number };

interface ResultTolerance {
  loss: Tolerance;
  sum: Tolerance;
  mean_numerator: Tolerance;
  mean_denominator: Tolerance;
  gradients: Record<string, Tolerance>;
}

interface Vector {
  name: string;
  method: 'Evaluate' | 'EvaluateMany';
  code: number;
  tolerances: (ResultTolerance | null)[];
}

const EPSILONS = { FLOAT16: 2 ** -10, BFLOAT16: 2 ** -7, FLOAT32: 2 ** -23, FLOAT64: 2 ** -52 };

/** Replays all vectors of a folder; returns the number of wrong answers. */
export async function replay(client: ReturnType<typeof connect>, folder: string): Promise<number> {
  const index = JSON.parse(readFileSync(join(folder, 'index.json'), 'utf8')) as { vectors: Vector[] };
  let wrong = 0;
  for (const vector of index.vectors) {
    const problems = await check(client, vector, join(folder, 'vectors', vector.name));
    for (const problem of problems) console.error(`${vector.name}: ${problem}`);
    if (problems.length) wrong++;
  }
  const count = index.vectors.length;
  console.log(`${count - wrong} of ${count} vectors agree`);
  return wrong;
}

async function check(client: ReturnType<typeof connect>, vector: Vector, stem: string): Promise<string[]> {
  const request = readFileSync(`${stem}.request.binpb`);
  const expected = readFileSync(`${stem}.response.binpb`);
  let answer: unknown;
  try {
    answer = await new Promise((resolve, reject) => {
      const done = (error: ServiceError | null, value?: unknown) => (error ? reject(error) : resolve(value));
      if (vector.method === 'Evaluate') client.Evaluate(methods.Evaluate.requestDeserialize(request), done);
      else client.EvaluateMany(methods.EvaluateMany.requestDeserialize(request), done);
    });
  } catch (error) {
    if (!vector.code) return [`failed: ${String(error)}`];
    return differ('status', statusOf(error as ServiceError), readStatus(expected));
  }
  if (vector.code) return [`succeeded; expected code ${vector.code}`];
  const wanted: unknown = methods[vector.method].responseDeserialize(expected);
  if (vector.method === 'Evaluate') {
    const [got, want] = [answer as EvaluateResponse__Output, wanted as EvaluateResponse__Output];
    return compareResults(got.result, want.result, vector.tolerances[0]);
  }
  const [got, want] = [answer as EvaluateManyResponse__Output, wanted as EvaluateManyResponse__Output];
  if (got.outcomes.length !== want.outcomes.length) return [`${got.outcomes.length} outcomes`];
  return want.outcomes.flatMap((each, i) => compareOutcomes(got.outcomes[i]!, each, vector.tolerances[i]));
}

function compareOutcomes(
  got: EvaluationOutcome__Output,
  want: EvaluationOutcome__Output,
  tolerance: ResultTolerance | null | undefined,
): string[] {
  if (tolerance) return compareResults(got.result ?? null, want.result ?? null, tolerance);
  const [told, asked] = [got, want].map(({ error }) => ({
    code: error?.code,
    reason: error?.reason,
    fields: distinct(error?.violations ?? []),
  }));
  return differ('error', told, asked);
}

function compareResults(
  got: EvaluationResult__Output | null,
  want: EvaluationResult__Output | null,
  tolerance: ResultTolerance | null | undefined,
): string[] {
  if (!got || !want || !tolerance) return ['has no result'];
  const problems = compareTensors('loss', got.loss, want.loss, tolerance.loss);
  for (const field of ['sum', 'mean_numerator', 'mean_denominator'] as const) {
    if (!near(got[field], want[field], tolerance[field])) problems.push(`${field} is ${got[field]}; expected ${want[field]}`);
  }
  problems.push(...differ('count', got.count, want.count));
  problems.push(...differ('gradients', Object.keys(got.gradients).sort(), Object.keys(want.gradients).sort()));
  for (const [name, gradient] of Object.entries(want.gradients)) {
    const allowed = tolerance.gradients[name];
    if (!allowed) problems.push(`gradients.${name} has no tolerance`);
    else problems.push(...compareTensors(`gradients.${name}`, got.gradients[name] ?? null, gradient, allowed));
  }
  if (want.receipt?.engine) problems.push(...differ('engine', got.receipt?.engine, want.receipt.engine));
  problems.push(...differ('compute_data_type', got.receipt?.compute_data_type, want.receipt?.compute_data_type));
  return problems;
}

function compareTensors(
  path: string,
  got: Tensor__Output | null,
  want: Tensor__Output | null,
  tolerance: Tolerance,
): string[] {
  const forms = [got, want].map((each) => [each?.data_type, each?.shape]);
  const problems = differ(path, forms[0], forms[1]);
  if (problems.length) return problems;
  const values = read(got);
  return read(want).flatMap((wanted, i) =>
    near(values[i]!, wanted, tolerance) ? [] : [`${path}[${i}] is ${values[i]}; expected ${wanted}`],
  );
}

function near(got: number, want: number, tolerance: Tolerance): boolean {
  if (Number.isNaN(want)) return Number.isNaN(got);
  if (!Number.isFinite(want) || !('of' in tolerance)) return got === want;
  const unit = EPSILONS[tolerance.of] * Math.max(Math.abs(want), tolerance.scale);
  return Math.abs(got - want) <= tolerance.ulps * unit;
}

function differ(what: string, got: unknown, want: unknown): string[] {
  const [told, asked] = [JSON.stringify(got), JSON.stringify(want)];
  return told === asked ? [] : [`${what} is ${told}; expected ${asked}`];
}
