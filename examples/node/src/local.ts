/** Compares calls over a lease with the same calls by gRPC. */

import { performance } from 'node:perf_hooks';
import { isDeepStrictEqual, promisify } from 'node:util';

import type { ServiceError } from '@grpc/grpc-js';

import { connectTensors, methods, readStatus, statusOf } from './client.js';
import type { CreateRegionResponse__Output } from './generated/losswire/v1/CreateRegionResponse.js';
import type { EvaluateRequest } from './generated/losswire/v1/EvaluateRequest.js';
import type { EvaluateResponse__Output } from './generated/losswire/v1/EvaluateResponse.js';
import type { GetServerInfoResponse__Output } from './generated/losswire/v1/GetServerInfoResponse.js';
import type { LossServiceClient } from './generated/losswire/v1/LossService.js';
import { Lease } from './lease.js';
import { float32, int64 } from './tensors.js';

const CALLS = 2000;
const ROWS = 256;
const CLASSES = 3;

type Evaluate = (request: EvaluateRequest) => Promise<EvaluateResponse__Output>;

/** Returns the number of answers that differ. */
export async function local(client: LossServiceClient, target: string): Promise<number> {
  const info = promisify(client.GetServerInfo.bind(client) as (
    request: object,
    done: (error: ServiceError | null, answer?: GetServerInfoResponse__Output) => void,
  ) => void);
  if (!(await info({}))?.transports?.region_socket) {
    console.log('no local calls: the server shares no memory');
    return 0;
  }
  const created = await createRegion(target);
  let lease: Lease;
  try {
    lease = await Lease.open(created);
  } catch (error) {
    // The server is in a container, on another machine, or another user's.
    console.log(`no local calls: ${(error as Error).message}`);
    return 0;
  }
  try {
    return await compare(lease, promisify(client.Evaluate.bind(client)) as Evaluate);
  } finally {
    lease.close();
  }
}

async function createRegion(target: string): Promise<CreateRegionResponse__Output> {
  const tensors = connectTensors(target);
  try {
    const create = promisify(tensors.CreateRegion.bind(tensors)) as (request: {
      size_bytes: number;
    }) => Promise<CreateRegionResponse__Output>;
    return await create({ size_bytes: 1 });
  } finally {
    tensors.close();
  }
}

async function compare(lease: Lease, evaluate: Evaluate): Promise<number> {
  const expected = await evaluate(question(CLASSES));
  const request = methods.Evaluate.requestSerialize(question(CLASSES));
  await compareRefusals(lease, evaluate);
  let right = 0;
  const byGrpc = await microseconds(() => evaluate(question(CLASSES)));
  const locally = await microseconds(async () => {
    const { code, body } = await lease.call(request);
    if (code) throw new Error(`a local call failed: ${JSON.stringify(readStatus(body))}`);
    const { result } = methods.Evaluate.responseDeserialize(body) as EvaluateResponse__Output;
    const wanted = expected.result;
    right += Number(isDeepStrictEqual([result?.loss, result?.gradients], [wanted?.loss, wanted?.gradients]));
  });
  console.log(`${right} of ${CALLS} local calls agree`);
  console.log(`microseconds a call: ${byGrpc.toFixed(0)} by gRPC, ${locally.toFixed(0)} local`);
  return CALLS - right;
}

/** Returns a request for a cross entropy whose classes are below a number. */
function question(classes: number): EvaluateRequest {
  const logits = Array.from({ length: ROWS * CLASSES }, (_, i) => Math.sin(i));
  const target = Array.from({ length: ROWS }, (_, i) => i % classes);
  return {
    evaluation: {
      loss: 'cross_entropy',
      inputs: { input: float32(logits, [ROWS, CLASSES]), target: int64(target, [ROWS]) },
      reduction: 'REDUCTION_MEAN',
      gradients_for: ['input'],
    },
  };
}

/** Makes an invalid call both ways, and checks that both fail with the same status. */
async function compareRefusals(lease: Lease, evaluate: Evaluate): Promise<void> {
  const wrong = question(CLASSES + 1);
  const expected = await evaluate(wrong).then(() => null, (error: ServiceError) => statusOf(error));
  const { code, body } = await lease.call(methods.Evaluate.requestSerialize(wrong));
  const found = code ? readStatus(body) : null;
  if (!expected || !isDeepStrictEqual(found, expected)) {
    throw new Error(`a wrong call gave ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);
  }
}

/** Does something many times; returns the microseconds of one time. */
async function microseconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < CALLS; i++) await work();
  return ((performance.now() - start) * 1000) / CALLS;
}
