// Pictures made small enough for the repository: a PNG of any colours becomes one of 256 at most, each the mean of those near it.
import { deflateSync, inflateSync } from 'node:zlib';

const MOST_COLOURS = 256;
const SIGNATURE = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);

/** The same picture with a palette. Takes what browsers write: eight bits a channel, not interlaced. */
export function small(png) {
  const { width, height, pixels } = decoded(png);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const palette = cut([...counts]);
  const nearest = new Map();
  const scans = Buffer.alloc((width + 1) * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const pixel = pixels[y * width + x];
      let index = nearest.get(pixel);
      if (index === undefined) nearest.set(pixel, (index = closest(palette, pixel)));
      scans[y * (width + 1) + 1 + x] = index;
    }
  }
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 3, 0, 0, 0], 8);
  const colours = Buffer.from(palette.flatMap((colour) => [colour >> 16, (colour >> 8) & 255, colour & 255]));
  return Buffer.concat([SIGNATURE, chunk('IHDR', head), chunk('PLTE', colours), chunk('IDAT', deflateSync(scans, { level: 9, memLevel: 9 })), chunk('IEND', Buffer.alloc(0))]);
}

/** Each pixel as one number, red first. */
function decoded(png) {
  const data = [];
  let head;
  for (let at = SIGNATURE.length; at < png.length; at += 12 + png.readUInt32BE(at)) {
    const body = png.subarray(at + 8, at + 8 + png.readUInt32BE(at));
    const type = png.toString('latin1', at + 4, at + 8);
    if (type === 'IHDR') head = body;
    else if (type === 'IDAT') data.push(body);
  }
  const [width, height, bits, kind, interlaced] = [head.readUInt32BE(0), head.readUInt32BE(4), head[8], head[9], head[12]];
  const channels = { 2: 3, 6: 4 }[kind];
  if (bits !== 8 || interlaced || !channels) throw new Error(`a PNG with ${bits} bits of kind ${kind}`);
  const raw = inflateSync(Buffer.concat(data));
  const line = width * channels;
  let above = Buffer.alloc(line);
  const pixels = new Uint32Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const filter = raw[y * (line + 1)];
    const now = raw.subarray(y * (line + 1) + 1, (y + 1) * (line + 1));
    for (let x = 0; x < line; x += 1) {
      const [left, up, corner] = [x < channels ? 0 : now[x - channels], above[x], x < channels ? 0 : above[x - channels]];
      now[x] += [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
    }
    for (let x = 0; x < width; x += 1) pixels[y * width + x] = (now[x * channels] << 16) | (now[x * channels + 1] << 8) | now[x * channels + 2];
    above = now;
  }
  return { width, height, pixels };
}

function paeth(left, up, corner) {
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

const part = (colour, channel) => (colour >> (16 - 8 * channel)) & 255;

/** Median cut: the box with the widest channel is halved until there are enough. */
function cut(colours) {
  const boxes = [colours];
  while (boxes.length < MOST_COLOURS) {
    let widest = { span: 0 };
    for (const [index, box] of boxes.entries()) {
      if (box.length < 2) continue;
      for (const channel of [0, 1, 2]) {
        const all = box.map(([colour]) => part(colour, channel));
        const span = Math.max(...all) - Math.min(...all);
        if (span > widest.span) widest = { span, index, channel };
      }
    }
    if (widest.span === 0) break;
    const box = boxes[widest.index].sort(([one], [other]) => part(one, widest.channel) - part(other, widest.channel));
    boxes.splice(widest.index, 1, box.slice(0, box.length >> 1), box.slice(box.length >> 1));
  }
  // A colour of large areas stays what it is.
  return boxes.map((box) => box.reduce((most, one) => (one[1] > most[1] ? one : most))[0]);
}

function closest(palette, pixel) {
  let [best, least] = [0, Infinity];
  for (const [index, colour] of palette.entries()) {
    const distance = [0, 1, 2].reduce((sum, channel) => sum + (part(colour, channel) - part(pixel, channel)) ** 2, 0);
    if (distance < least) [best, least] = [index, distance];
  }
  return best;
}

function chunk(type, body) {
  const piece = Buffer.alloc(12 + body.length);
  piece.writeUInt32BE(body.length, 0);
  piece.write(type, 4, 'latin1');
  piece.set(body, 8);
  piece.writeUInt32BE(crc32(piece.subarray(4, 8 + body.length)), 8 + body.length);
  return piece;
}

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
