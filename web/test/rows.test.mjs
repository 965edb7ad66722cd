// Rows as they come, as they are kept and as they are now.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './bundle.mjs';

globalThis.window = globalThis;
const { Feed, MOST } = await load('rows.ts');

const row = (...cells) => JSON.stringify({ row: { columns: cells } });
const shown = (feed, key) => feed.current(key).rows.map((row) => feed.cells(row));
function feed() {
  const feed = new Feed((text) => JSON.parse(text).row.columns);
  clearTimeout(feed.timer);
  feed.draw = () => undefined;
  return feed;
}

test('what is so now is the same while it stands, however many rows have come since the oldest of it', () => {
  for (const rows of [MOST + 1000, MOST * 3]) {
    const kept = feed();
    kept.add('insert', row('A', 0));
    assert.deepEqual(shown(kept, [0]), [['A', 0]]);
    for (let at = 1; at <= rows; at += 1) kept.add('insert', row('B', at));
    kept.pause(true);
    kept.add('insert', row('C', 1));
    const stands = [['A', 0], ['B', rows]];
    assert.deepEqual(shown(kept, [0]), stands, `${rows} rows`);
    assert.equal(kept.waiting, 1);
    // By another key it is what is kept, and back again.
    assert.equal(shown(kept, [1]).length, MOST);
    assert.deepEqual(shown(kept, [0]), stands);
    kept.pause(false);
    assert.deepEqual(shown(kept, [0]), [...stands, ['C', 1]]);
  }
});

test('what comes once more takes the place of what was there, but for who has paused', () => {
  const kept = feed();
  kept.add('insert', row('A', 1));
  kept.pause(true);
  kept.clear({ again: true });
  assert.equal(kept.kept().length, 1);
  kept.add('insert', row('A', 1));
  assert.deepEqual([kept.waiting, kept.total], [1, 1]);
  kept.pause(false);
  assert.equal(kept.kept().length, 1);
  kept.clear();
  assert.equal(kept.kept().length, 0);
});
