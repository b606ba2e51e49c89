/** The typed client, made from the .proto files when the program starts. */

import { fileURLToPath } from 'node:url';

import * as grpc from '@grpc/grpc-js';
import * as loader from '@grpc/proto-loader';
import protobuf from 'protobufjs';

import type { ProtoGrpcType as LossTypes } from './generated/loss_service.js';
import type { LossServiceClient } from './generated/losswire/v1/LossService.js';
import type { TensorServiceClient } from './generated/losswire/v1/TensorService.js';
import type { ProtoGrpcType as TensorTypes } from './generated/tensor_service.js';

const CONTRACT = fileURLToPath(new URL('../../../proto/src', import.meta.url));
const GOOGLEAPIS = fileURLToPath(new URL('../../third_party/googleapis', import.meta.url));

// The same options as `generate` in package.json, which writes the types.
const definition = loader.loadSync(['losswire/v1/loss_service.proto', 'losswire/v1/tensor_service.proto'], {
  includeDirs: [CONTRACT],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const contract = grpc.loadPackageDefinition(definition) as unknown as LossTypes & TensorTypes;

/** The methods of the service, each with its serializers. */
export const methods = contract.losswire.v1.LossService.service;

export function connect(target: string): LossServiceClient {
  return new contract.losswire.v1.LossService(target, grpc.credentials.createInsecure());
}

/** Connects to the service that makes regions. */
export function connectTensors(target: string): TensorServiceClient {
  return new contract.losswire.v1.TensorService(target, grpc.credentials.createInsecure());
}

/** The parts of an error that a program needs. */
export interface ErrorFacts {
  code: number;
  domain: string;
  reason: string;
  fields: string[];
}

// grpc-js leaves the status details as bytes.
const errors = new protobuf.Root();
errors.resolvePath = (_origin, target) => (target.startsWith('google/rpc/') ? `${GOOGLEAPIS}/${target}` : target);
errors.loadSync(['google/rpc/status.proto', 'google/rpc/error_details.proto'], { keepCase: true });
const StatusMessage = errors.lookupType('google.rpc.Status');
const ErrorInfo = errors.lookupType('google.rpc.ErrorInfo');
const BadRequest = errors.lookupType('google.rpc.BadRequest');

interface Any {
  type_url: string;
  value: Uint8Array;
}

/** Reads a serialized google.rpc.Status. */
export function readStatus(data: Uint8Array): ErrorFacts {
  const status = StatusMessage.decode(data) as unknown as { code: number; details: Any[] };
  const facts: ErrorFacts = { code: status.code, domain: '', reason: '', fields: [] };
  for (const detail of status.details) {
    switch (detail.type_url.split('/').at(-1)) {
      case 'google.rpc.ErrorInfo': {
        const info = ErrorInfo.decode(detail.value) as unknown as { domain: string; reason: string };
        facts.domain = info.domain;
        facts.reason = info.reason;
        break;
      }
      case 'google.rpc.BadRequest': {
        const bad = BadRequest.decode(detail.value) as unknown as { field_violations: { field: string }[] };
        facts.fields = distinct(bad.field_violations);
        break;
      }
    }
  }
  return facts;
}

/** Reads the status that came with a failed call. */
export function statusOf(error: grpc.ServiceError): ErrorFacts {
  const [details] = error.metadata.get('grpc-status-details-bin');
  return details instanceof Buffer ? readStatus(details) : { code: error.code, domain: '', reason: '', fields: [] };
}

/** The paths of some violations, each once, in alphabetical order. */
export function distinct(violations: { field: string }[]): string[] {
  return [...new Set(violations.map((each) => each.field))].sort();
}
