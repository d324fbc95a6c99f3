// The module `tidewire/msgpack`: a WebSocket that speaks MessagePack, for those who load it. Frames hold what JSON can, and
// bytes in what is received. No extension types: the gateway sends none.

type Socket = new (url: string | URL, protocol?: string) => WebSocket;

/**
 * A WebSocket class for the option `WebSocket` of `connect`: frames are smaller, and bytes come without base64. `base` is
 * what it is made of where there is no global one (Node.js 20: that of the package `ws`).
 */
export function packed(base: Socket = globalThis.WebSocket): new (url: string | URL) => WebSocket {
  return class extends base {
    constructor(url: string | URL) {
      super(url, 'tidewire.msgpack');
      this.binaryType = 'arraybuffer';
    }

    override send(text: any): void {
      super.send(encode(JSON.parse(text)));
    }

    override set onmessage(handler: (event: any) => void) {
      super.onmessage = ({ data }) => handler({ data: decode(new Uint8Array(data)) });
    }
  };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Writes what JSON can hold. */
function encode(value: unknown): Uint8Array<ArrayBuffer> {
  let bytes = new Uint8Array(256);
  let view = new DataView(bytes.buffer);
  let at = 0;

  /** Makes room for so many bytes, and gives the place of the first. */
  const take = (count: number): number => {
    if (at + count > bytes.length) {
      const larger = new Uint8Array(Math.max(bytes.length * 2, at + count));
      larger.set(bytes);
      bytes = larger;
      view = new DataView(bytes.buffer);
    }
    at += count;
    return at - count;
  };
  // The view is only known once there is room.
  const put = (size: number, write: (place: number) => void): void => write(take(size));
  const byte = (number: number): void => put(1, (place) => view.setUint8(place, number));

  /** A length, behind the first byte that has room for it: `small` holds some itself, then come 8 (if there are), 16 and 32 bits. */
  const head = (count: number, small: number, most: number, wide: number, hasByte: boolean): void => {
    if (count <= most) {
      byte(small | count);
    } else if (hasByte && count < 2 ** 8) {
      byte(wide - 1);
      byte(count);
    } else if (count < 2 ** 16) {
      byte(wide);
      put(2, (place) => view.setUint16(place, count));
    } else {
      byte(wide + 1);
      put(4, (place) => view.setUint32(place, count));
    }
  };

  const number = (value: number): void => {
    if (!Number.isSafeInteger(value)) {
      byte(0xcb);
      put(8, (place) => view.setFloat64(place, value));
    } else if (value >= -32 && value < 2 ** 7) {
      byte(value & 0xff);
    } else if (value >= 0 && value < 2 ** 32) {
      byte(0xce);
      put(4, (place) => view.setUint32(place, value));
    } else {
      byte(0xd3);
      put(8, (place) => view.setBigInt64(place, BigInt(value)));
    }
  };

  const write = (value: unknown): void => {
    if (typeof value === 'string') {
      const text = encoder.encode(value);
      head(text.length, 0xa0, 31, 0xda, true);
      put(text.length, (place) => bytes.set(text, place));
    } else if (typeof value === 'number') {
      number(value);
    } else if (Array.isArray(value)) {
      head(value.length, 0x90, 15, 0xdc, false);
      value.forEach(write);
    } else if (value && typeof value === 'object') {
      const members = Object.entries(value);
      head(members.length, 0x80, 15, 0xde, false);
      for (const member of members) member.forEach(write);
    } else {
      byte(value === true ? 0xc3 : value === false ? 0xc2 : 0xc0);
    }
  };

  write(value);
  return bytes.slice(0, at);
}

/** Reads a frame. Integers beyond 2^53 lose their last digits, as in JSON. */
function decode(bytes: Uint8Array): any {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;

  /** Passes over so many bytes, and gives the place of the first. */
  const pass = (count: number): number => {
    at += count;
    if (at > bytes.length) throw new RangeError('a MessagePack frame that is cut off');
    return at - count;
  };
  /** A length in 1, 2 or 4 bytes. */
  const length = (size: number): number => {
    const place = pass(size);
    return size === 1 ? view.getUint8(place) : size === 2 ? view.getUint16(place) : view.getUint32(place);
  };
  const text = (count: number): string => {
    const place = pass(count);
    return decoder.decode(bytes.subarray(place, at));
  };
  const binary = (count: number): Uint8Array => {
    const place = pass(count);
    return bytes.slice(place, at);
  };
  const list = (count: number): unknown[] => Array.from({ length: count }, read);
  const map = (count: number): object => {
    const members: [string, unknown][] = [];
    for (let n = 0; n < count; n += 1) members.push([`${read()}`, read()]);
    // Not by assignment: `__proto__` is a key like any other.
    return Object.fromEntries(members);
  };

  function read(): any {
    const type = length(1);
    if (type < 0x80) return type;
    if (type < 0x90) return map(type & 15);
    if (type < 0xa0) return list(type & 15);
    if (type < 0xc0) return text(type & 31);
    if (type >= 0xe0) return type - 256;
    switch (type) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return binary(length(2 ** (type - 0xc4)));
      case 0xca: return view.getFloat32(pass(4));
      case 0xcb: return view.getFloat64(pass(8));
      case 0xcc: case 0xcd: case 0xce: return length(2 ** (type - 0xcc));
      case 0xcf: return Number(view.getBigUint64(pass(8)));
      case 0xd0: return view.getInt8(pass(1));
      case 0xd1: return view.getInt16(pass(2));
      case 0xd2: return view.getInt32(pass(4));
      case 0xd3: return Number(view.getBigInt64(pass(8)));
      case 0xd9: case 0xda: case 0xdb: return text(length(2 ** (type - 0xd9)));
      case 0xdc: case 0xdd: return list(length(2 ** (type - 0xdb)));
      case 0xde: case 0xdf: return map(length(2 ** (type - 0xdd)));
      default: throw new TypeError(`a MessagePack byte ${type} that the gateway never sends`);
    }
  }

  return read();
}
