// JSON as a tree shows it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './bundle.mjs';

const { partsOf } = await load('json.ts');

test('of a list or an object as many parts are taken as are wanted, and all are counted', () => {
  const list = Array.from({ length: 100_000 }, (_, at) => `at ${at}`);
  assert.deepEqual(partsOf(list, 2), { names: ['0', '1'], count: 100_000 });
  assert.deepEqual(partsOf({ a: null, b: [], c: 1 }, 2), { names: ['a', 'b'], count: 3 });
  assert.deepEqual(partsOf(['only'], 200), { names: ['0'], count: 1 });
  for (const one of [[], {}, null, 'text', 1, undefined]) assert.deepEqual(partsOf(one, 200), { names: [], count: 0 });
});
