/** Calls of Evaluate without gRPC, where the server shares memory with this machine. */

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

import type { CreateRegionResponse__Output } from './generated/losswire/v1/CreateRegionResponse.js';

const GRANTED = 1;
const HEADER_BYTES = 8;

export interface Answer {
  /** 0, or the code of a failure. */
  code: number;
  /** An EvaluateResponse, or the google.rpc.Status of a failure. */
  body: Buffer;
}

/**
 * The connection that leases a region. The region's memory stays unused: Node.js cannot receive its
 * descriptor, and small tensors are faster to send in the request.
 */
export class Lease {
  private received = Buffer.alloc(0);
  private wake = (): void => {};

  private constructor(private readonly socket: Socket) {
    for (const event of ['readable', 'end', 'close']) socket.on(event, () => this.wake());
    socket.on('error', () => this.wake());
  }

  /** Presents the token of a region that was just created; throws if the server cannot be reached. */
  static async open(created: CreateRegionResponse__Output): Promise<Lease> {
    const socket = connect(created.socket_path);
    await once(socket, 'connect');
    const lease = new Lease(socket);
    socket.write(created.token);
    if ((await lease.read(1))[0] !== GRANTED) throw new Error('the server refused the token');
    return lease;
  }

  /** Makes one call. The next one may begin when this one has been answered. */
  async call(request: Buffer): Promise<Answer> {
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32LE(request.length, 0); // and 0 milliseconds: no time limit
    this.socket.write(Buffer.concat([header, request]));
    const answer = await this.read(HEADER_BYTES);
    return { code: answer.readUInt32LE(4), body: await this.read(answer.readUInt32LE(0)) };
  }

  /** Ends the lease. */
  close(): void {
    this.socket.destroy();
  }

  private async read(size: number): Promise<Buffer> {
    while (this.received.length < size) {
      const part = this.socket.read() as Buffer | null;
      if (part) this.received = Buffer.concat([this.received, part]);
      else if (this.socket.readableEnded || this.socket.destroyed) throw new Error('the server ended the lease');
      else await new Promise<void>((resolve) => (this.wake = resolve));
    }
    const found = this.received.subarray(0, size);
    this.received = this.received.subarray(size);
    return found;
  }
}
