// The rows of the list of orders while orders change, and which of them wait.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './bundle.mjs';

const { begin, fits, heldOf, isCut, merge, MOST_WAITING, noRows, PAGE_SIZE, take } = await load('orders/rows.ts');

const ANY = { statuses: [], from: null, to: null };
const order = (orderId, lastEventSequence = 1, more = {}) => ({ orderId, lastEventSequence, status: 'Created', updatedAt: new Date(lastEventSequence * 1000).toISOString(), ...more });

test('the list holds a page of orders, and as much about them, however many come', () => {
  const now = noRows();
  begin(now, [order('first')]);
  for (let at = 2; at <= 5000; at += 1) {
    take(now, ANY, order(`order-${at}`, at));
    if (at % 100 === 0) merge(now);
  }
  assert.deepEqual([now.rows.size, now.changed.size, now.waiting.size, now.gone.size], [PAGE_SIZE, PAGE_SIZE, 0, 0]);
  assert.equal(now.order[0], 'order-5000');
  // While somebody points at a row nothing is merged.
  for (let at = 5001; at <= 5001 + MOST_WAITING * 2; at += 1) take(now, ANY, order(`order-${at}`, at));
  assert.deepEqual([now.waiting.size, now.changed.size], [MOST_WAITING, PAGE_SIZE]);
});

test('a row changes where it is, and what was told late changes nothing', () => {
  const now = noRows();
  begin(now, [order('a', 3), order('b', 2)]);
  take(now, ANY, order('b', 4));
  take(now, ANY, order('a', 2));
  assert.deepEqual([now.order, now.rows.get('a').lastEventSequence, now.rows.get('b').lastEventSequence], [['a', 'b'], 3, 4]);
  assert.deepEqual([...now.changed], [['b', 1]]);
  // The list was asked for before that.
  begin(now, [order('a', 3), order('b', 3)]);
  assert.equal(now.rows.get('b').lastEventSequence, 4);
});

test('an order that changes after the time up to which the list goes is not among what waits, and leaves the list', () => {
  const until = { ...ANY, to: new Date(10_000).toISOString() };
  const now = noRows();
  begin(now, [order('a', 3)]);
  take(now, until, order('new', 10));
  assert.equal(now.waiting.size, 0);
  take(now, until, order('late', 9));
  assert.deepEqual([...now.waiting.keys()], ['late']);
  take(now, until, order('late', 11));
  assert.equal(now.waiting.size, 0);
  take(now, until, order('a', 12));
  assert.deepEqual([...now.gone], ['a']);
  for (const [filter, isIn] of [
    [{ ...ANY, from: new Date(5000).toISOString() }, true],
    [{ ...ANY, from: new Date(5001).toISOString() }, false],
    [{ ...ANY, to: new Date(5000).toISOString() }, false],
    [{ ...ANY, statuses: ['Paid', 'Created'] }, true],
    [{ ...ANY, statuses: ['Paid'] }, false],
  ]) assert.equal(fits(filter, order('a', 5)), isIn, JSON.stringify(filter));
  assert.equal(fits({ ...ANY, statuses: ['Paid'] }, order('a', 5, { status: null })), false);
});

test('where not all held orders are listed, those in view say it themselves', () => {
  const listed = (count) => Array.from({ length: count }, (_, at) => ({ key: `held-${at}`, missingFrom: at }));
  const seen = new Map([['held-1', { missingFrom: 99 }], ['newest', { missingFrom: 7 }]]);
  assert.equal(heldOf(undefined, seen), seen, 'readers may not list them');
  assert.deepEqual([isCut(undefined), isCut(listed(199)), isCut(listed(200))], [false, false, true]);
  assert.equal(heldOf(listed(200), seen).get('newest').missingFrom, 7);
  assert.equal(heldOf(listed(200), seen).get('held-1').missingFrom, 1, 'the list is newer');
  assert.equal(heldOf(listed(3), seen).has('newest'), false, 'what was seen before is not so any more');
});
