// Records of a topic as rows of a table.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './bundle.mjs';

// What a browser has, as far as times ask for it.
globalThis.window = globalThis;
globalThis.document = { addEventListener: () => undefined };
globalThis.localStorage = { getItem: (name) => (name === 'streamview.zone' ? 'UTC' : null), setItem: () => undefined, removeItem: () => undefined };
globalThis.setInterval = () => undefined;
const { COLUMNS, recordCells } = await load('preview/records.ts');
const { compare } = await load('rows.ts');

const record = (timestamp) => JSON.stringify({ partition: 0, offset: 1, timestamp, format: 'json', value: {} });

test('the time of a record is told with its day, and sorts as a time', () => {
  const [time] = COLUMNS;
  const cells = ['2026-11-26T08:00:00.120Z', '2026-11-23T14:02:11Z', '2026-11-26T08:00:00.050Z'].map((at) => recordCells(record(at))[0]);
  assert.deepEqual(cells.map(time.written), ['2026-11-26 08:00:00 UTC', '2026-11-23 14:02:11 UTC', '2026-11-26 08:00:00 UTC']);
  assert.deepEqual([...cells].sort(compare), [cells[1], cells[2], cells[0]]);
  assert.equal(recordCells(record(undefined))[0], null);
});
