// By which columns the rows of a query are told apart, where they are shown as they are now.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './bundle.mjs';

const { groupedBy } = await load('query/grouped.ts');

test('rows that are replaced are those of the same group, a window included', () => {
  for (const [text, names] of [
    ['SELECT PRODUCT, COUNT(*) AS N FROM orders GROUP BY PRODUCT', ['PRODUCT']],
    ['select o.product, `shop` from orders o group by o.product, `shop` emit changes;', ['product', 'shop']],
    ["SELECT tumble(at, INTERVAL '1 minute') AS minute, status, COUNT(*) AS n FROM e GROUP BY  TUMBLE( at, INTERVAL '1 minute' ), status", ['minute', 'status']],
    ["select concat(a, ',', b) as both, count(*) as n from e group by concat(a, ',', b) having count(*) > 1", ['both']],
    // What has no name in the result tells no rows apart.
    ["SELECT status, COUNT(*) AS n FROM e GROUP BY tumble(at, INTERVAL '1 minute'), status", []],
    ['SELECT * FROM orders', []],
  ]) assert.deepEqual(groupedBy(text), names, text);
});
