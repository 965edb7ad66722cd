// Rows as they come, as they are kept and as they are now.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './bundle.mjs';

globalThis.window = globalThis;
const { columnsOf, Feed, keyOf, MOST } = await load('rows.ts');

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

test('keys that were forgotten before anybody asked for what is so now are told to be missing', () => {
  for (const [rows, isPartial] of [[MOST, false], [MOST + 1, true], [MOST * 2, true]]) {
    const kept = feed();
    kept.mark('what is no row is not missed');
    kept.add('insert', row('A', 0));
    for (let at = 1; at < rows; at += 1) kept.add('insert', row('B', at));
    assert.equal(kept.current([0]).partial, isPartial, `${rows} rows`);
    assert.equal(shown(kept, [0]).length, isPartial ? 1 : 2);
    // It stays so, while more comes and while it stands; who had asked before has all of them.
    kept.pause(true);
    kept.add('insert', row('C', 1));
    assert.equal(kept.current([0]).partial, isPartial);
    assert.equal(kept.current([1]).partial, isPartial);
    kept.pause(false);
    assert.equal(kept.current([0]).partial, isPartial);
    kept.clear();
    assert.equal(kept.current([0]).partial, false);
  }
  const asked = feed();
  asked.add('insert', row('A', 0));
  assert.equal(asked.current([0]).partial, false);
  for (let at = 1; at < MOST * 2; at += 1) asked.add('insert', row('B', at));
  assert.deepEqual([asked.current([0]).partial, shown(asked, [0]).length], [false, 2]);
  assert.equal(asked.current([1]).partial, true, 'by another key they are missing');
});

test('rows are told apart by columns that they have', () => {
  const columns = ['PRODUCT', 'SHOP', 'N'].map((name) => ({ name, type: '' }));
  for (const [lists, names, key] of [
    [[['shop'], ['PRODUCT']], ['shop'], [1]],
    [[null, ['PRODUCT', 'SHOP']], ['PRODUCT', 'SHOP'], [0, 1]],
    // What was chosen of another text.
    [[['CUSTOMER'], ['N']], ['N'], [2]],
    [[['CUSTOMER'], []], ['PRODUCT'], [0]],
  ]) assert.deepEqual(keyOf(columns, ...lists), { names, key });
});

test('columns are those of a row, not those that they consist of', () => {
  const names = (schema) => columnsOf({ schema }).map(({ name }) => name);
  assert.deepEqual(names('`id` STRING, `items` ARRAY<STRUCT<`sku` STRING, `qty` INT>>, `to``tal` DECIMAL(10, 2)'), ['id', 'items', 'to`tal']);
  assert.deepEqual(names(''), []);
});
