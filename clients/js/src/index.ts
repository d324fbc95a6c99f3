export type { Channel } from './channel.js';
export { type Client, connect } from './client.js';
export { TidewireError } from './errors.js';
export type * from './types.js';
