export { Channel } from './channel.js';
export { Client, connect } from './client.js';
export { TidewireError } from './errors.js';
export type * from './types.js';
